// Dense float matrices, in row-major order: products, Cholesky's factor and what is solved with it. Blocked so that nearly all of the time
// is spent in products. The same bits for any number of threads.
#pragma once
#include <cstdint>

namespace infopt {

/// Where element (row, column) lies: p[row·rows + column·columns]. A transposition swaps the two steps.
struct MatrixView {
  const float* p;
  int64_t rows, columns;
};

/// c += alpha·a·b; a is m×k, b is k×n, c is m×n with `stride` between its rows.
void add_product(int64_t m, int64_t n, int64_t k, float alpha, MatrixView a, MatrixView b, float* c, int64_t stride, int threads = 1);

/// The lower triangle of h += xᵀ·x; x is rows×k, h is k×k.
void add_gram(const float* x, int64_t rows, int64_t k, float* h, int threads = 1);

/// The lower factor L of a = L·Lᵀ in place; a is k×k, only its lower triangle is read, and the upper one is zeroed.
/// False where a isn't positive definite: a is then spoilt.
bool cholesky(float* a, int64_t k, int threads = 1);

/// b ← b·(L·Lᵀ)⁻¹; b is m×k, L as cholesky() leaves it.
void solve_rows(float* b, int64_t m, const float* l, int64_t k, int threads = 1);

}  // namespace infopt

#include "lib/runtime/cuda/libraries.h"

#include <string>

#include "lib/base/error.h"
#include "lib/runtime/cuda/sparse_library.h"

namespace infopt::cuda {

Libraries::Libraries() = default;
Libraries::~Libraries() = default;
SparseLibrary& Libraries::sparse() {
  if (!sparse_) sparse_ = SparseLibrary::open();
  return *sparse_;
}

void check_limits(const MatrixProduct& p, const void* a, const void* b, const void* c, const void* bias, const void* added) {
  const auto need = [](bool holds, const char* what) {
    if (!holds) throw Error(ErrorKind::Defect, std::string("a product that cuBLASLt doesn't take: ") + what);
  };
  const bool integer = p.type == DType::I8, small = p.type == DType::F8E4M3FN, half = p.type == DType::F16 || p.type == DType::BF16;
  need(integer || small || half || p.type == DType::F32, "its type");
  if (integer) need(p.out == DType::I32, "8-bit integers give int32");
  else if (small) need(p.out == DType::F32 || p.out == DType::F16 || p.out == DType::BF16, "what float8 gives");
  else need(p.out == p.type || p.out == DType::F32, "its result's type");
  need(p.k >= 1, "sums of nothing");
  need(p.lda >= (p.transpose_a ? p.m : p.k) && p.ldb >= (p.transpose_b ? p.k : p.n) && p.ldc >= p.n, "rows that overlap");
  need(p.batch == 1 || p.stride_c != 0, "results that overlap");
  need(!p.bias || bias, "a bias of nothing");
  const auto aligned = [](const void* q, uintptr_t to) { return reinterpret_cast<uintptr_t>(q) % to == 0; };
  const uintptr_t in = bits_of(p.type) / 8, out = bits_of(p.out) / 8;
  need(aligned(a, in) && aligned(b, in) && aligned(c, out) && (!p.bias || aligned(bias, out)), "pointers between elements");
  if (!integer && !small) return;
  need(!p.transpose_a && p.transpose_b, "8-bit operands in another order than A[m,k], B[n,k]");
  need(p.k % 16 == 0 && p.n % 16 == 0 && p.lda % 16 == 0 && p.ldb % 16 == 0 && p.ldc % 16 == 0, "8-bit operands whose sizes aren't multiples of 16");
  need(aligned(a, 16) && aligned(b, 16) && aligned(c, 16) && aligned(added, 16), "8-bit operands that aren't aligned to 16 bytes");
  need(p.batch == 1 || (p.stride_a % 16 == 0 && p.stride_b % 16 == 0 && p.stride_c % 16 == 0), "8-bit operands with strides that aren't multiples of 16");
  if (integer) need(p.alpha == 1 && (p.beta == 0 || p.beta == 1) && !p.bias && p.activation == MatrixProduct::None, "an epilogue of an integer product");
  else need(!p.bias || p.out != DType::F32, "a bias of float8 into float32");
}

}  // namespace infopt::cuda

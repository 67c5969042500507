#include "lib/runtime/cuda/sparse_pattern.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "lib/base/strided.h"

namespace infopt::cuda {
namespace {

constexpr double kFew = 0.15;

template <class T> class Reader {
 public:
  Reader(const WeightMatrix& w, T mask, T zero) : at_(w.data.raw()), w_(w), mask_(mask), zero_(zero) {}
  bool kept(int64_t n, int64_t k) const {
    T v;
    std::memcpy(&v, at_ + (n * w_.n_stride + k * w_.k_stride) * static_cast<int64_t>(sizeof(T)), sizeof v);
    return (v & mask_) != zero_;
  }

 private:
  const std::byte* at_;
  const WeightMatrix& w_;
  T mask_, zero_;
};

template <class T> double sampled_zeros(const WeightMatrix& w, const Reader<T>& read) {
  constexpr int64_t kSide = 64;
  const int64_t rows = std::min(w.n, kSide), run = std::min(w.k, kSide);
  int64_t zeros = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t n = i * w.n / rows, from = (w.k - run) * (i % 8) / 8;
    for (int64_t k = from; k < from + run; ++k) zeros += !read.kept(n, k);
  }
  return static_cast<double>(zeros) / static_cast<double>(rows * run);
}

template <class T> SparsePattern pattern_of(const WeightMatrix& w, const Reader<T>& read) {
  SparsePattern p;
  p.zeros = sampled_zeros(w, read);
  if (p.zeros < kFew) return p;
  int64_t kept = 0, pieces = 0;
  bool two_of_four = w.k % 4 == 0;
  std::vector<uint8_t> any(static_cast<size_t>(w.k));
  for (int64_t first = 0; first < w.n; first += kPanel) {
    std::fill(any.begin(), any.end(), uint8_t{0});
    for (int64_t n = first; n < std::min(w.n, first + kPanel); ++n) {
      int of_four = 0;
      for (int64_t k = 0; k < w.k; ++k) {
        if (k % 4 == 0) of_four = 0;
        if (!read.kept(n, k)) continue;
        any[static_cast<size_t>(k)] = 1;
        ++kept;
        if (++of_four > 2) two_of_four = false;
      }
    }
    pieces += std::count(any.begin(), any.end(), uint8_t{1});
  }
  p.zeros = 1 - static_cast<double>(kept) / static_cast<double>(w.n * w.k);
  p.two_of_four = two_of_four;
  p.panels = static_cast<double>(pieces) / static_cast<double>((w.n + kPanel - 1) / kPanel * w.k);
  return p;
}

/// f of the weights' reader; nothing for empty weights and other types.
template <class F> void read_with(const WeightMatrix& w, F&& f) {
  if (w.n == 0 || w.k == 0) return;
  switch (w.data.dtype()) {
    case DType::F32: return f(Reader<uint32_t>(w, 0x7fffffffu, 0));
    case DType::F16:
    case DType::BF16: return f(Reader<uint16_t>(w, 0x7fff, 0));
    case DType::I8:
    case DType::U8: return f(Reader<uint8_t>(w, 0xff, w.zero));
    default: return;
  }
}

}  // namespace

bool many_zeros(const WeightMatrix& w) {
  bool many = false;
  read_with(w, [&](const auto& read) { many = sampled_zeros(w, read) >= kFew; });
  return many;
}

SparsePattern find_pattern(const WeightMatrix& w) {
  SparsePattern p;
  read_with(w, [&](const auto& read) { p = pattern_of(w, read); });
  return p;
}

Tensor dense_rows(const WeightMatrix& w) {
  Tensor rows = gather_strided(w.data, {w.n, w.k}, 0, {w.n_stride, w.k_stride});
  if (w.data.dtype() != DType::U8) return rows;
  Tensor codes(DType::I8, {w.n, w.k});
  std::transform(rows.raw(), rows.raw() + codes.bytes(), codes.mutable_raw(), [](std::byte b) { return b ^ std::byte{0x80}; });
  return codes;
}

}  // namespace infopt::cuda

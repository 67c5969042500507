// Places of elements in boxes of any rank: divisions by numbers that are known at launch, and offsets by strides.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/tensor.h"
#include "lib/runtime/cuda/portable.h"

namespace infopt::cuda {

/// n / d. Of 32 bits: for n below 2^31, by a multiplication. Of 64 bits: a division.
template <class I> struct Divider;

template <> struct Divider<uint32_t> {
  uint32_t d = 1, factor = 1, shift = 0;
  Divider() = default;
  explicit Divider(int64_t by) : d(by > 0 ? static_cast<uint32_t>(by) : 1) {
    while (shift < 32 && (uint64_t{1} << shift) < d) ++shift;
    factor = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift) - d)) / d + 1);
  }
  INFOPT_DEVICE uint32_t divide(uint32_t n) const { return (static_cast<uint32_t>((static_cast<uint64_t>(n) * factor) >> 32) + n) >> shift; }
};

template <> struct Divider<uint64_t> {
  uint64_t d = 1;
  Divider() = default;
  explicit Divider(int64_t by) : d(by > 0 ? static_cast<uint64_t>(by) : 1) {}
  INFOPT_DEVICE uint64_t divide(uint64_t n) const { return n / d; }
};

/// Quotient by `by`; n becomes the remainder.
template <class I> INFOPT_DEVICE I divide_off(I& n, const Divider<I>& by) {
  const I q = by.divide(n);
  n -= q * static_cast<I>(by.d);
  return q;
}

constexpr int kMostAxes = 8;

/// A box of elements, counted in row-major order, and where each lies in N tensors.
template <class I, int N> struct Places {
  int rank = 0;
  Divider<I> size[kMostAxes];
  int64_t stride[N][kMostAxes] = {};

  INFOPT_DEVICE void of(I element, int64_t (&offset)[N]) const {
    for (int k = 0; k < N; ++k) offset[k] = 0;
    for (int d = rank - 1; d > 0; --d) {
      const I q = size[d].divide(element);
      const int64_t at = static_cast<int64_t>(element - q * static_cast<I>(size[d].d));
      for (int k = 0; k < N; ++k) offset[k] += at * stride[k][d];
      element = q;
    }
    if (rank > 0)
      for (int k = 0; k < N; ++k) offset[k] += static_cast<int64_t>(element) * stride[k][0];
  }
};

/// Throws Error(Unsupported) for more than kMostAxes axes.
template <class I, int N> Places<I, N> places_of(const Shape& sizes, const std::vector<std::vector<int64_t>>& strides) {
  if (sizes.size() > static_cast<size_t>(kMostAxes)) throw Error(ErrorKind::Unsupported, "a CUDA kernel over more than 8 axes: " + to_string(sizes));
  Places<I, N> p;
  p.rank = static_cast<int>(sizes.size());
  for (size_t d = 0; d < sizes.size(); ++d) {
    p.size[d] = Divider<I>(sizes[d]);
    for (size_t k = 0; k < static_cast<size_t>(N); ++k) p.stride[k][d] = strides[k][d];
  }
  return p;
}

/// Whether elements are to be counted with 64 bits.
bool counts_wide(int64_t elements);
/// Calls f with 0u of the type that counts so many elements: uint32_t or uint64_t.
template <class F> void with_index(int64_t elements, F&& f) {
  if (counts_wide(elements)) f(uint64_t{0});
  else f(uint32_t{0});
}

/// Blocks of a kernel whose threads step on by the grid's size until all items are done.
inline int64_t grid_for(int64_t items, int64_t per_block) {
  const int64_t blocks = (items + per_block - 1) / per_block;
  return blocks < (int64_t{1} << 20) ? blocks : int64_t{1} << 20;
}

}  // namespace infopt::cuda

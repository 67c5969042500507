// Moving elements about: copies between strided places, whatever the element type.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "lib/base/tensor.h"

namespace infopt {

/// Bytes of one element of a type whose elements are whole bytes; throws Error(Unsupported) for strings and packed types.
size_t element_bytes(DType dtype);
/// Strides, in elements, of a dense row-major tensor.
Shape row_major_strides(const Shape& shape);

/// Copies every element of the box `shape`: element (i0,i1,…) goes from `from + Σ i·from_strides` to `to + Σ i·to_strides`.
/// Strides are in elements; those of `from` may be 0 or negative. The places written must be distinct and not overlap `from`.
void copy_strided(size_t element_size, const Shape& shape, std::byte* to, const Shape& to_strides, const std::byte* from,
                  const Shape& from_strides);
/// A fresh dense tensor of `shape` read from `x`, starting at element `offset`, with the given strides.
Tensor gather_strided(const Tensor& x, const Shape& shape, int64_t offset, const Shape& strides);
/// Fills `count` elements at `to` with the element at `value`.
void fill_elements(size_t element_size, std::byte* to, const std::byte* value, int64_t count);

/// Calls `move` with tensors of whole-byte elements. Where the inputs (all of one dtype) hold strings or packed elements, `move` gets
/// codes in their place (of another dtype), and its result is translated back. It must only copy elements, never look into them.
Tensor move_elements(const std::vector<Tensor>& inputs, const std::function<Tensor(const std::vector<Tensor>&)>& move);

/// Calls f with an unaligned, may-alias block type of `bytes` bytes (1, 2, 4, 8 or 16).
template <size_t N>
struct [[gnu::packed, gnu::may_alias]] Block {
  unsigned char bytes[N];
};
template <>
struct [[gnu::packed, gnu::may_alias]] Block<2> {
  uint16_t bits;
};
template <>
struct [[gnu::packed, gnu::may_alias]] Block<4> {
  uint32_t bits;
};
template <>
struct [[gnu::packed, gnu::may_alias]] Block<8> {
  uint64_t bits;
};
template <class F>
void with_block(size_t bytes, F&& f) {
  switch (bytes) {
    case 1: return f(Block<1>{});
    case 2: return f(Block<2>{});
    case 4: return f(Block<4>{});
    case 8: return f(Block<8>{});
    default: return f(Block<16>{});
  }
}

}  // namespace infopt

// Moving elements about in the device's memory, whatever their type.
#pragma once
#include <initializer_list>
#include <string>

#include "lib/runtime/cuda/context.h"

namespace infopt::cuda {

/// Element (i0,i1,…) of the box `shape` goes from `from + Σ i·from_strides` to `to + Σ i·to_strides`; strides are in elements of `bytes`
/// bytes (1, 2, 4, 8 or 16). Those of `from` may be 0 or negative. The places written must be distinct, and not overlap what is read.
void copy_box(Stream& stream, size_t bytes, const Shape& shape, std::byte* to, const Shape& to_strides, const std::byte* from, const Shape& from_strides);

/// `count` times the element at `value`, which is in the host's memory. `to` is aligned to 16 bytes.
void fill_elements(Stream& stream, size_t bytes, std::byte* to, const std::byte* value, int64_t count);

/// Strides, in elements, of the logical axes of a dense tensor that lies so.
Shape strides_in(const Shape& shape, Layout layout);

/// A box of x's elements, from element `offset` on with the given strides: x's own memory where it lies dense and aligned there, else a copy.
Tensor read_box(CudaContext& context, const Tensor& x, const Shape& shape, int64_t offset, const Shape& strides, Layout layout = Layout::Plain);

/// x's memory from element `first` on under another shape.
Tensor part_view(const Tensor& x, int64_t first, Shape shape);
/// Whether memory there may be given on as a tensor: others rely on 16 bytes.
bool aligned_part(const Tensor& x, int64_t first);

/// The declared element type of a node's input; Undefined where it isn't known.
DType declared_type(const KernelSpec& spec, size_t input);
/// Throws Error(Unsupported) where one of these inputs is declared to hold strings or elements of less than a byte.
void need_whole_bytes(const KernelSpec& spec, std::initializer_list<size_t> inputs);
/// Throws Error(Unsupported) unless the input's type isn't known or one of these.
void need_type(const KernelSpec& spec, size_t input, std::initializer_list<DType> types);

/// Calls f with a value of an unsigned type of so many bytes: 1, 2, 4, 8, or 16 (Sixteen).
struct alignas(16) Sixteen { uint64_t low, high; };
template <class F> void with_element(size_t bytes, F&& f) {
  switch (bytes) {
    case 1: return f(uint8_t{});
    case 2: return f(uint16_t{});
    case 4: return f(uint32_t{});
    case 8: return f(uint64_t{});
    default: return f(Sixteen{});
  }
}

}  // namespace infopt::cuda

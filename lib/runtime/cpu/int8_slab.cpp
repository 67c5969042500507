#include "lib/runtime/cpu/int8_slab.h"

#include <algorithm>
#include <cstring>

#include "lib/runtime/cpu/int8_kernels.h"

namespace infopt::cpu {
namespace {

/// Inputs that `count` neighbouring outputs read along an axis.
int64_t reach(const Int8Window& w, size_t axis, int64_t count) {
  return count > 0 ? (count - 1) * w.strides[axis] + (w.kernel[axis] - 1) * w.dilations[axis] + 1 : 0;
}

/// Columns [-pad, -pad + columns) of a line, `width` pixels wide.
void copy_line(const Int8Window& w, const uint8_t* line, int64_t width, int64_t columns, uint8_t* to) {
  const int64_t pad = w.pads_begin[2], c = w.channels;
  const int64_t left = std::clamp<int64_t>(pad, 0, columns), right = std::clamp<int64_t>(width + pad, left, columns);
  std::memset(to, w.zero, static_cast<size_t>(left * c));
  if (right > left) {
    const uint8_t* from = line + (left - pad) * c;
    if (w.flip) flip_bytes(from, to + left * c, (right - left) * c, w.flip);
    else std::memcpy(to + left * c, from, static_cast<size_t>((right - left) * c));
  }
  std::memset(to + right * c, w.zero, static_cast<size_t>((columns - right) * c));
}

}  // namespace

bool Int8Window::pads() const {
  for (size_t i = 0; i < 3; ++i)
    if (pads_begin[i] != 0 || pads_end[i] > 0) return true;
  return false;
}

int64_t int8_slab_bytes(const Int8Window& w, const Int8Extent& extent, int64_t lines) {
  return reach(w, 0, 1) * reach(w, 1, lines) * reach(w, 2, extent.out[2]) * w.channels;
}

Int8Slab int8_slab(const Int8Window& w, const Int8Extent& extent, const uint8_t* image, int64_t plane, int64_t first, int64_t last) {
  const int64_t width = extent.in[2], line_bytes = width * w.channels, plane_bytes = extent.in[1] * line_bytes;
  const int64_t plane0 = plane * w.strides[0] - w.pads_begin[0], line0 = first * w.strides[1] - w.pads_begin[1];
  if (!w.flip && !w.slack && !w.pads()) return {image + plane0 * plane_bytes + line0 * line_bytes, line_bytes, plane_bytes};
  const int64_t planes = reach(w, 0, 1), lines = reach(w, 1, last - first), columns = reach(w, 2, extent.out[2]),
                row = columns * w.channels;
  const size_t bytes = static_cast<size_t>(planes * lines * row);
  uint8_t* slab = static_cast<uint8_t*>(int8_scratch(Int8Slot::Rows, bytes + static_cast<size_t>(w.slack)));
  uint8_t* to = slab;
  for (int64_t z = plane0; z < plane0 + planes; ++z)
    for (int64_t y = line0; y < line0 + lines; ++y, to += row) {
      if (z < 0 || z >= extent.in[0] || y < 0 || y >= extent.in[1]) std::memset(to, w.zero, static_cast<size_t>(row));
      else copy_line(w, image + z * plane_bytes + y * line_bytes, width, columns, to);
    }
  std::memset(to, 0, static_cast<size_t>(w.slack));
  return {slab, row, lines * row};
}

}  // namespace infopt::cpu

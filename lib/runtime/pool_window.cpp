#include "lib/runtime/pool_window.h"

#include <algorithm>

namespace infopt {

Pool3 widen(const Window& w, const Shape& spatial) {
  Pool3 p;
  const size_t n = spatial.size();
  for (size_t i = 0; i < 3; ++i) {
    if (i + n < 3) {
      p.in[i] = p.out[i] = p.kernel[i] = p.stride[i] = p.dilation[i] = 1;
      p.begin[i] = p.end[i] = 0;
      continue;
    }
    const size_t a = i + n - 3;
    p.in[i] = spatial[a], p.out[i] = w.out[a], p.kernel[i] = w.kernel[a], p.stride[i] = w.strides[a], p.dilation[i] = w.dilations[a];
    p.begin[i] = w.pads_begin[a], p.end[i] = w.pads_end[a];
  }
  return p;
}

int64_t places(const Pool3& p, int i, int64_t o, bool count_pads) {
  int64_t n = 0;
  for (int64_t k = 0; k < p.kernel[i]; ++k) {
    const int64_t at = o * p.stride[i] - p.begin[i] + k * p.dilation[i];
    n += count_pads ? at < p.in[i] + p.end[i] : at >= 0 && at < p.in[i];
  }
  return n;
}

std::pair<int64_t, int64_t> outputs_inside(const Pool3& p, int64_t offset) {
  const int64_t shift = offset - p.begin[2], s = p.stride[2];
  const int64_t first = shift >= 0 ? 0 : (-shift + s - 1) / s;
  const int64_t last = p.in[2] - shift <= 0 ? 0 : (p.in[2] - shift + s - 1) / s;
  return {std::min(first, p.out[2]), std::clamp(last, std::min(first, p.out[2]), p.out[2])};
}

}  // namespace infopt

// What a convolution's window sees, laid out as the columns of a matrix.
#pragma once
#include <vector>

#include "lib/runtime/window.h"

namespace infopt {

/// One channel `x` of shape `spatial` into rows of one kernel position each, of all output positions: [prod(kernel)][prod(out)].
/// What lies in the pads is `pad`.
template <class T> void im2col(const T* x, const Shape& spatial, const Window& w, T pad, T* columns) {
  const size_t n = spatial.size();
  const int64_t positions = element_count(w.kernel), outputs = element_count(w.out);
  for (int64_t k = 0; k < positions; ++k) {
    std::vector<int64_t> offset(n);
    for (size_t d = n, rest = static_cast<size_t>(k); d-- > 0; rest /= static_cast<size_t>(w.kernel[d]))
      offset[d] = static_cast<int64_t>(rest) % w.kernel[d] * w.dilations[d] - w.pads_begin[d];
    std::vector<int64_t> place(n);
    for (int64_t o = 0; o < outputs; ++o) {
      int64_t from = 0;
      bool inside = true;
      for (size_t d = 0; d < n && inside; ++d) {
        const int64_t at = place[d] * w.strides[d] + offset[d];
        inside = at >= 0 && at < spatial[d];
        if (inside) from = from * spatial[d] + at;
      }
      *columns++ = inside ? x[from] : pad;
      for (size_t d = n; d-- > 0;) {
        if (++place[d] < w.out[d]) break;
        place[d] = 0;
      }
    }
  }
}

}  // namespace infopt

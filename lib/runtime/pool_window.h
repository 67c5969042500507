// A pooling's window over up to three spatial axes: which taps meet the input, and which output places meet a tap.
#pragma once
#include <utility>

#include "lib/runtime/window.h"

namespace infopt {

/// Missing axes are in front, of size 1.
struct Pool3 {
  int64_t in[3], out[3], kernel[3], stride[3], dilation[3], begin[3], end[3];
};
Pool3 widen(const Window& w, const Shape& spatial);
inline int64_t volume(const int64_t d[3]) { return d[0] * d[1] * d[2]; }

/// The window's places along axis i, at output o, that are inside the input, or inside the input and its pads.
int64_t places(const Pool3& p, int i, int64_t o, bool count_pads);

/// The outputs [first, last) whose tap at `offset` from the window's begin lies inside the input, along the last axis.
std::pair<int64_t, int64_t> outputs_inside(const Pool3& p, int64_t offset);

/// Calls f(z·in[1] + y) for each row of the input under the windows of the outputs at a and b along the first two axes, in the order of the taps.
template <class F> void each_input_row(const Pool3& p, int64_t a, int64_t b, F f) {
  for (int64_t i = 0; i < p.kernel[0]; ++i) {
    const int64_t z = a * p.stride[0] - p.begin[0] + i * p.dilation[0];
    if (z < 0 || z >= p.in[0]) continue;
    for (int64_t j = 0; j < p.kernel[1]; ++j) {
      const int64_t y = b * p.stride[1] - p.begin[1] + j * p.dilation[1];
      if (y >= 0 && y < p.in[1]) f(z * p.in[1] + y);
    }
  }
}

/// Calls f(place in the row of the first output's tap, first, last) for each tap along the last axis: the outputs [first, last) meet it, each stride[2] places
/// behind the one before.
template <class F> void each_tap_of_row(const Pool3& p, F f) {
  for (int64_t k = 0; k < p.kernel[2]; ++k) {
    const int64_t offset = k * p.dilation[2];
    const auto [first, last] = outputs_inside(p, offset);
    if (first < last) f(first * p.stride[2] - p.begin[2] + offset, first, last);
  }
}

/// The same for the taps of all rows, places being those in the input's D×H×W.
template <class F> void each_tap(const Pool3& p, int64_t a, int64_t b, F f) {
  each_input_row(p, a, b, [&](int64_t row) { each_tap_of_row(p, [&](int64_t at, int64_t first, int64_t last) { f(row * p.in[2] + at, first, last); }); });
}

}  // namespace infopt

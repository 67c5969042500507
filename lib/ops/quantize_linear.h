// The attributes of QuantizeLinear and DequantizeLinear, and which scale is an element's, for every device's kernels.
#pragma once
#include <algorithm>

#include "lib/ops/op.h"

namespace infopt {

struct QuantizeOptions {
  int64_t axis = 1, block = 0;
  bool saturate = true;
  DType output = DType::Undefined, precision = DType::Undefined;
  /// Throws Error(Unsupported) for an element type that isn't known.
  static QuantizeOptions of(const Node& node);
};

/// The tensor as [outer, n, inner] with scales along n, `block` elements sharing one; or one scale for all.
struct QuantizeGrid {
  int64_t outer = 1, n = 1, inner = 1, block = 0;

  int64_t blocks() const { return block ? n / block + (n % block != 0) : 0; }
  /// Calls f(start, length, first scale, scale step) for runs of elements that have one scale (step 0) or each its own (step 1).
  template <class F> void each_run(F f) const {
    if (outer == 0 || n == 0 || inner == 0) return;
    for (int64_t o = 0; o < outer; ++o) {
      if (!block && inner == 1) {
        f(o * n, n, int64_t{0}, n == 1 ? 0 : 1);
      } else if (!block) {
        for (int64_t i = 0; i < n; ++i) f((o * n + i) * inner, inner, i, 0);
      } else if (inner == 1) {
        for (int64_t b = 0; b < blocks(); ++b) f(o * n + b * block, std::min(block, n - b * block), o * blocks() + b, 0);
      } else {
        for (int64_t i = 0; i < n; ++i) f((o * n + i) * inner, inner, (o * blocks() + i / block) * inner, 1);
      }
    }
  }
};

/// Throws Error(Malformed) where the scale's shape doesn't fit. `layout` tells how x lies; it may be channels-last only where lies_well.
QuantizeGrid quantize_grid(const Shape& x, const Shape& scale, const QuantizeOptions& options, Layout layout);
/// Whether a channels-last tensor of that rank can be taken as it lies: one scale, or scales along the channels.
bool lies_well(int64_t rank, const Shape& scale, const QuantizeOptions& options);
/// n float32 as 8-bit codes of one scale (U8, I8, saturating F8E4M3FN or F8E5M2), as QuantizeLinear has them; `precision`: of the quotient.
void quantize_floats(const float* x, uint8_t* codes, int64_t n, DType type, float scale, float zero, DType precision);
/// Whether QuantizeLinear gives, and DequantizeLinear takes, elements of the type (int32 aside).
bool is_quantized(DType type);

}  // namespace infopt

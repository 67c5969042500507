// PostActivation in kernels.
#pragma once
#include "lib/ops/op.h"
#include "lib/runtime/cuda/portable.h"

namespace infopt::cuda {

INFOPT_DEVICE float activate(PostActivation::Kind kind, float low, float high, float v) {
  switch (kind) {
    case PostActivation::Clip: return v < low ? low : v > high ? high : v;
    case PostActivation::HardSwish: return v * fminf(fmaxf(v * (1.0f / 6.0f) + 0.5f, 0.0f), 1.0f);
    case PostActivation::Gelu: return 0.5f * v * (1.0f + erff(v * 0.70710678f));
    case PostActivation::GeluTanh: return 0.5f * v * (1.0f + tanhf(0.7978845608f * (v + 0.044715f * v * v * v)));
    case PostActivation::Silu: return v / (1.0f + expf(-v));
    default: return v;
  }
}

}  // namespace infopt::cuda

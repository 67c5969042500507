#include "lib/runtime/cpu/post_activation.h"

#include "lib/base/float_math.h"
#include "lib/base/simd.h"
#include "lib/ops/elementwise.h"

namespace infopt::cpu {
namespace {

INFOPT_FLOAT_LOOP(clip_loop, v < a ? a : v > b ? b : v)
INFOPT_FLOAT_LOOP(gelu_loop, gelu_f(v))
INFOPT_FLOAT_LOOP(gelu_tanh_loop, v * sigmoid_f(1.5957691216f * (v + 0.044715f * (v * v * v))))
INFOPT_FLOAT_LOOP(silu_loop, v * sigmoid_f(v))
INFOPT_INLINE float unit(float v) { return v < 0.0f ? 0.0f : v > 1.0f ? 1.0f : v; }
INFOPT_FLOAT_LOOP(hard_swish_loop, v * unit(v * (1.0f / 6.0f) + 0.5f))

INFOPT_SIMD void add_loop(float* y, const float* by, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += by[i];
}

}  // namespace

void activate(const PostActivation& post, float* y, int64_t n) {
  switch (post.kind) {
    case PostActivation::Clip: return clip_loop(y, y, n, post.low, post.high);
    case PostActivation::Gelu: return gelu_loop(y, y, n, 0, 0);
    case PostActivation::GeluTanh: return gelu_tanh_loop(y, y, n, 0, 0);
    case PostActivation::Silu: return silu_loop(y, y, n, 0, 0);
    case PostActivation::HardSwish: return hard_swish_loop(y, y, n, 0, 0);
    case PostActivation::None: return;
  }
}

void add_floats(float* y, const float* by, int64_t n) { add_loop(y, by, n); }

}  // namespace infopt::cpu

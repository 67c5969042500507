#include "lib/autodiff/fake_quantize.h"

#include <algorithm>

#include "lib/base/simd.h"

namespace infopt {
namespace {

constexpr float kMagic = 12582912.0f;  // 1.5·2^23: adding and taking it away rounds half to even
constexpr int64_t kBlock = 64;         // elements for which one word of random bits is enough

/// Codes less the zero point. Quotients beyond the codes are cut first, so that they stay where adding kMagic rounds.
INFOPT_SIMD void round_block(const float* x, float* y, int64_t n, float scale, float low, float high) {
  for (int64_t i = 0; i < n; ++i) {
    float v = x[i] / scale;
    v = v < low ? low : v;
    v = v > high ? high : v;
    y[i] = ((v + kMagic) - kMagic) * scale;
  }
}

INFOPT_SIMD void cut_block(const float* x, float* y, int64_t n, float least, float most) {
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i] < least ? least : x[i];
    y[i] = v > most ? most : v;
  }
}

INFOPT_SIMD void mask_block(const float* x, const float* dy, float* dx, int64_t n, float least, float most) {
  for (int64_t i = 0; i < n; ++i) dx[i] = x[i] >= least && x[i] <= most ? dy[i] : 0.0f;
}

/// Where the bit is set, the element of `from` goes to `to`.
INFOPT_SIMD void spare_block(const float* from, float* to, int64_t n, uint64_t bits) {
  for (int64_t i = 0; i < n; ++i) to[i] = (bits >> i) & 1 ? from[i] : to[i];
}

uint64_t coins(uint64_t seed, int64_t place) { return mix_bits(seed ^ mix_bits(static_cast<uint64_t>(place / kBlock))); }

}  // namespace

Tensor fake_quantize(const Tensor& x, const FakeQuantizer& q, uint64_t seed) {
  Tensor y(DType::F32, x.shape());
  const float* from = x.data<float>();
  float* to = y.mutable_data<float>();
  const auto low = static_cast<float>(q.low - q.zero), high = static_cast<float>(q.high - q.zero);
  if (seed == 0) round_block(from, to, x.size(), q.scale, low, high);
  for (int64_t at = 0; at < x.size() && seed != 0; at += kBlock) {
    const int64_t n = std::min(kBlock, x.size() - at);
    float cut[kBlock];
    cut_block(from + at, cut, n, low * q.scale, high * q.scale);
    round_block(from + at, to + at, n, q.scale, low, high);
    spare_block(cut, to + at, n, coins(seed, at));
  }
  return y;
}

Tensor fake_quantize_gradient(const Tensor& x, const Tensor& dy, const FakeQuantizer& q) {
  Tensor dx(DType::F32, x.shape());
  const float least = (static_cast<float>(q.low - q.zero) - 0.5f) * q.scale, most = (static_cast<float>(q.high - q.zero) + 0.5f) * q.scale;
  mask_block(x.data<float>(), dy.data<float>(), dx.mutable_data<float>(), x.size(), least, most);
  return dx;
}

Tensor spare(const Tensor& rounded, const Tensor& whole, uint64_t seed) {
  Tensor out = rounded.clone();
  for (int64_t at = 0; at < out.size(); at += kBlock)
    spare_block(whole.data<float>() + at, out.mutable_data<float>() + at, std::min(kBlock, out.size() - at), coins(seed, at));
  return out;
}

}  // namespace infopt

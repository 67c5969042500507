#include "passes/support/weight_grid.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "lib/base/error.h"
#include "lib/base/float8.h"

namespace infopt {
namespace {

constexpr float kMagic = 12582912.0f;  // 1.5·2^23: adding and taking it away rounds half to even
constexpr int kShrinks = 40;           // candidates of a least-squares search, a hundredth to two apart

/// One group's weights.
struct Group {
  const float* w;
  const double* importance;  ///< null: 1
  int64_t count;
};

struct Candidate {
  float scale = 1;
  int32_t zero = 0;
};

double error_of(const Group& g, const Candidate& c, const WeightGrid& grid) {
  const CodeSpacing spacing = CodeSpacing::of(grid.format.dtype);
  double sum = 0;
  const float inverse = 1.0f / c.scale, zero = static_cast<float>(c.zero), least = static_cast<float>(grid.low), most = static_cast<float>(grid.high);
  for (int64_t i = 0; i < g.count; ++i) {
    const float code = std::clamp(spacing.nearest(g.w[i] * inverse + zero), least, most);
    const double d = static_cast<double>((code - zero) * c.scale - g.w[i]);
    sum += g.importance ? g.importance[i] * d * d : d * d;
  }
  return sum;
}

/// Over [min, max] of the weights, each end times `keep`: above 1, a signed type's lowest code, which has no counterpart, may come into use.
Candidate over(float min, float max, bool symmetric, int low, int high, double keep) {
  const bool is_signed = low < 0;
  const int middle = is_signed ? 0 : (high + 1) / 2;
  Candidate c;
  if (symmetric) {
    const double most = std::max(std::fabs(static_cast<double>(min)), std::fabs(static_cast<double>(max))) * keep;
    c.scale = static_cast<float>(most / (high - middle));
    c.zero = middle;
  } else {
    const double from = std::min(0.0, static_cast<double>(min)) * keep, to = std::max(0.0, static_cast<double>(max)) * keep;
    c.scale = static_cast<float>((to - from) / (high - low));
    if (c.scale > 0) c.zero = static_cast<int32_t>(std::clamp(std::nearbyint(low - from / static_cast<double>(c.scale)), static_cast<double>(low), static_cast<double>(high)));
  }
  if (!(c.scale >= 1e-38f)) return {1, symmetric ? middle : std::clamp(0, low, high)};
  return c;
}

Candidate fit_group(const Group& g, const WeightGrid& grid, GridFit fit) {
  const auto [min, max] = std::minmax_element(g.w, g.w + g.count);
  const bool symmetric = grid.format.symmetric;
  Candidate best = over(*min, *max, symmetric, grid.low, grid.high, 1);
  if (fit == GridFit::Extremes || (*min == 0 && *max == 0)) return best;
  double least = error_of(g, best, grid);
  const bool floats = CodeSpacing::of(grid.format.dtype).digits > 0;  // whose precision hangs on where a power of two falls
  const double finest = floats ? 0.025 : grid.high - grid.low > 100 ? 0.005 : 0.02;
  for (int step = floats ? -kShrinks : -8; step <= (floats ? 2 : kShrinks); ++step) {
    const double keep = 1 - finest * step;
    if (keep <= 0.05) continue;
    const auto consider = [&](const Candidate& c) {
      const double e = error_of(g, c, grid);
      if (e < least) least = e, best = c;
    };
    if (step != 0) consider(over(*min, *max, symmetric, grid.low, grid.high, keep));
    if (!grid.format.two_signs()) continue;
    const auto largest = static_cast<double>(-*min > *max ? *min : *max);
    if (const auto scale = static_cast<float>(largest * keep / grid.low); std::fabs(scale) >= 1e-38f) consider({scale, best.zero});
  }
  return best;
}

}  // namespace

int lowest_code(DType dtype) {
  switch (dtype) {
    case DType::I2: return -2;
    case DType::I4: return -8;
    case DType::I8: return -127;
    case DType::F8E4M3FN: return -448;
    case DType::F8E5M2: return -57344;
    default: return 0;
  }
}

int highest_code(DType dtype) {
  switch (dtype) {
    case DType::I2: return 1;
    case DType::U2: return 3;
    case DType::I4: return 7;
    case DType::U4: return 15;
    case DType::I8: return 127;
    case DType::F8E4M3FN: return 448;
    case DType::F8E5M2: return 57344;
    default: return 255;
  }
}

CodeSpacing CodeSpacing::of(DType dtype) {
  if (dtype == DType::F8E4M3FN) return {3, 0x1p-6f};
  if (dtype == DType::F8E5M2) return {2, 0x1p-14f};
  return {};
}

float CodeSpacing::nearest(float r) const {
  if (digits == 0) return (r + kMagic) - kMagic;
  const float power = std::max(std::bit_cast<float>(std::bit_cast<uint32_t>(r) & 0x7f800000u), least), magic = power * (kMagic / static_cast<float>(1 << digits));
  return (r + magic) - magic;
}

float WeightGrid::value(int32_t code, size_t g) const {
  if (CodeSpacing::of(format.dtype).digits > 0) return decode_small_float(format.dtype, static_cast<uint8_t>(code)) * scales[g];
  return static_cast<float>(code - zeros[g]) * scales[g];
}

int32_t WeightGrid::nearest(float w, size_t g) const {
  if (CodeSpacing::of(format.dtype).digits > 0) return encode_small_float(format.dtype, w / scales[g]);
  const float code = (w / scales[g] + static_cast<float>(zeros[g]) + kMagic) - kMagic;
  return static_cast<int32_t>(std::clamp(code, static_cast<float>(low), static_cast<float>(high)));
}

WeightGrid fit_grid(const std::vector<float>& weights, int64_t out, int64_t k, const WeightFormat& format, GridFit fit, const std::vector<double>& importance) {
  for (float w : weights)
    if (!std::isfinite(w)) throw Error(ErrorKind::Malformed, "its weights have a NaN or an infinity");
  WeightGrid grid;
  grid.format = format;
  grid.out = out;
  grid.k = k;
  grid.block = format.block > 0 ? std::min(format.block, k) : k;
  grid.blocks = (k + grid.block - 1) / grid.block;
  grid.low = lowest_code(format.dtype);
  grid.high = highest_code(format.dtype);
  if (format.block < 0) {
    const Candidate c = fit_group({weights.data(), nullptr, out * k}, grid, fit);
    grid.scales = {c.scale};
    grid.zeros = {c.zero};
    return grid;
  }
  for (int64_t o = 0; o < out; ++o)
    for (int64_t from = 0; from < k; from += grid.block) {
      const Candidate c = fit_group({weights.data() + o * k + from, importance.empty() ? nullptr : importance.data() + from, std::min(grid.block, k - from)}, grid, fit);
      grid.scales.push_back(c.scale);
      grid.zeros.push_back(c.zero);
    }
  return grid;
}

CodedWeights round_to_nearest(const std::vector<float>& weights, WeightGrid grid) {
  CodedWeights coded{std::move(grid), std::vector<int16_t>(weights.size())};
  size_t index = 0;
  for (int64_t o = 0; o < coded.grid.out; ++o)
    for (int64_t i = 0; i < coded.grid.k; ++i, ++index) coded.codes[index] = static_cast<int16_t>(coded.grid.nearest(weights[index], coded.grid.group(o, i)));
  return coded;
}

std::vector<float> decode(const CodedWeights& weights) {
  std::vector<float> values(weights.codes.size());
  size_t index = 0;
  for (int64_t o = 0; o < weights.grid.out; ++o)
    for (int64_t i = 0; i < weights.grid.k; ++i, ++index) values[index] = weights.grid.value(weights.codes[index], weights.grid.group(o, i));
  return values;
}

}  // namespace infopt

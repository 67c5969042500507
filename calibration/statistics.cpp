#include "calibration/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/simd.h"

namespace infopt {
namespace {

constexpr int64_t kLanes = 16;

/// Extremes and whether all is finite, in one pass: x·0 is NaN for what isn't.
INFOPT_SIMD bool extremes_of(const float* x, int64_t n, float& low, float& high) {
  float lo[kLanes], hi[kLanes], bad[kLanes];
  for (int64_t l = 0; l < kLanes; ++l) lo[l] = low, hi[l] = high, bad[l] = 0;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) {
      const float v = x[i + l];
      lo[l] = v < lo[l] ? v : lo[l];
      hi[l] = v > hi[l] ? v : hi[l];
      bad[l] += v * 0.0f;
    }
  for (; i < n; ++i) {
    const float v = x[i];
    lo[0] = v < lo[0] ? v : lo[0];
    hi[0] = v > hi[0] ? v : hi[0];
    bad[0] += v * 0.0f;
  }
  float worst = 0;
  for (int64_t l = 0; l < kLanes; ++l) {
    low = lo[l] < low ? lo[l] : low;
    high = hi[l] > high ? hi[l] : high;
    worst += bad[l];
  }
  return worst == 0.0f;
}

/// One row of a tensor whose last axis is the channel: adds to every channel's extremes and sums.
INFOPT_SIMD void add_row(const float* x, int64_t channels, float* low, float* high, double* sum, double* square) {
  for (int64_t c = 0; c < channels; ++c) {
    const float v = x[c];
    low[c] = v < low[c] ? v : low[c];
    high[c] = v > high[c] ? v : high[c];
    const double d = static_cast<double>(v);
    sum[c] += d;
    square[c] += d * d;
  }
}

/// One channel that lies in one piece: sums in fixed lanes.
INFOPT_SIMD void sums_of(const float* x, int64_t n, double& sum, double& square) {
  double s[kLanes] = {}, q[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) {
      const double d = static_cast<double>(x[i + l]);
      s[l] += d;
      q[l] += d * d;
    }
  for (; i < n; ++i) {
    const double d = static_cast<double>(x[i]);
    s[0] += d;
    q[0] += d * d;
  }
  for (int64_t l = 0; l < kLanes; ++l) sum += s[l], square += q[l];
}

void collect_channels(TensorStatistics& out, const float* x, int64_t outer, int64_t channels, int64_t inner) {
  const auto n = static_cast<size_t>(channels);
  out.channel_min.assign(n, std::numeric_limits<float>::infinity());
  out.channel_max.assign(n, -std::numeric_limits<float>::infinity());
  out.channel_sum.assign(n, 0);
  out.channel_square.assign(n, 0);
  for (int64_t o = 0; o < outer; ++o) {
    if (inner == 1) {
      add_row(x + o * channels, channels, out.channel_min.data(), out.channel_max.data(), out.channel_sum.data(), out.channel_square.data());
      continue;
    }
    for (size_t c = 0; c < n; ++c) {
      const float* plane = x + (o * channels + static_cast<int64_t>(c)) * inner;
      extremes_of(plane, inner, out.channel_min[c], out.channel_max[c]);
      sums_of(plane, inner, out.channel_sum[c], out.channel_square[c]);
    }
  }
}

}  // namespace

TensorStatistics collect(const Tensor& tensor, Layout layout, int64_t channel_axis) {
  TensorStatistics out;
  out.samples = 1;
  const Tensor values = cast(tensor, DType::F32);
  out.elements = values.size();
  if (values.size() == 0) return out;
  const float* x = values.data<float>();
  out.min = std::numeric_limits<float>::infinity();
  out.max = -out.min;
  if (!extremes_of(x, values.size(), out.min, out.max)) throw Error(ErrorKind::Malformed, "has a NaN or an infinite element");
  out.histogram.add(x, values.size(), std::max(std::fabs(out.min), std::fabs(out.max)));
  const ChannelView view = channel_view(values.shape(), layout, channel_axis);
  if (view.channels > 0) collect_channels(out, x, view.outer, view.channels, view.inner);
  return out;
}

TensorStatistics statistics_of(const TensorSummary& s) {
  if (s.nan || s.plus_infinity || s.minus_infinity) throw Error(ErrorKind::Malformed, "has a NaN or an infinite element");
  return {1, s.elements, s.min, s.max, s.channel_min, s.channel_max, s.channel_sum, s.channel_square, Histogram::from(s.exponent, s.counts)};
}

void TensorStatistics::merge(const TensorStatistics& later) {
  if (samples == 0 || later.samples == 0) {
    if (samples == 0) *this = later;
    return;
  }
  samples += later.samples;
  const bool channels = channel_sum.size() == later.channel_sum.size() && elements > 0 && later.elements > 0;
  if (later.elements > 0) {
    min = elements > 0 ? std::min(min, later.min) : later.min;
    max = elements > 0 ? std::max(max, later.max) : later.max;
  }
  if (elements == 0 && later.elements > 0) {
    channel_min = later.channel_min, channel_max = later.channel_max, channel_sum = later.channel_sum, channel_square = later.channel_square;
  } else if (channels) {
    for (size_t c = 0; c < channel_sum.size(); ++c) {
      channel_min[c] = std::min(channel_min[c], later.channel_min[c]);
      channel_max[c] = std::max(channel_max[c], later.channel_max[c]);
      channel_sum[c] += later.channel_sum[c];
      channel_square[c] += later.channel_square[c];
    }
  } else if (later.elements > 0) {  // an axis whose length differs from sample to sample is no channel axis
    channel_min.clear(), channel_max.clear(), channel_sum.clear(), channel_square.clear();
  }
  elements += later.elements;
  histogram.merge(later.histogram);
}

namespace {
constexpr int kVersion = 1;
}

std::string serialize(const StatisticsSet& set) {
  nlohmann::json tensors = nlohmann::json::array();
  for (const auto& [id, t] : set.tensors)
    tensors.push_back({{"value", id}, {"samples", t.samples}, {"elements", t.elements}, {"min", t.min}, {"max", t.max}, {"channel_min", t.channel_min},
                       {"channel_max", t.channel_max}, {"channel_sum", t.channel_sum}, {"channel_square", t.channel_square},
                       {"exponent", t.histogram.exponent()}, {"counts", t.histogram.counts()}});
  const nlohmann::json root{{"format", "infopt statistics"}, {"version", kVersion}, {"model", set.model_key}, {"data", set.data_key}, {"samples", set.samples}, {"tensors", tensors}};
  std::string out;
  nlohmann::json::to_cbor(root, out);
  return out;
}

StatisticsSet parse_statistics(const std::string& bytes, const std::string& where) {
  try {
    const auto root = nlohmann::json::from_cbor(bytes);
    if (root.at("format") != "infopt statistics") throw Error(ErrorKind::Malformed, "isn't a file of statistics", where);
    if (root.at("version") != kVersion) throw Error(ErrorKind::Malformed, "has statistics of version " + root.at("version").dump() + ", this infopt reads version " + std::to_string(kVersion), where);
    StatisticsSet set{root.at("model"), root.at("data"), root.at("samples"), {}};
    for (const auto& j : root.at("tensors")) {
      TensorStatistics t{j.at("samples"), j.at("elements"), j.at("min"), j.at("max"), j.at("channel_min"), j.at("channel_max"), j.at("channel_sum"), j.at("channel_square"), {}};
      const std::vector<int64_t> counts = j.at("counts");
      if (!counts.empty() && counts.size() != static_cast<size_t>(Histogram::kBins)) throw Error(ErrorKind::Malformed, "has a histogram of the wrong size", where);
      t.histogram = Histogram::from(j.at("exponent"), counts);
      set.tensors.emplace(j.at("value").get<ValueId>(), std::move(t));
    }
    return set;
  } catch (const nlohmann::json::exception&) {
    throw Error(ErrorKind::Malformed, "isn't a file of statistics, or it is damaged", where);
  }
}

}  // namespace infopt

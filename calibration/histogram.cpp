#include "calibration/histogram.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "lib/base/simd.h"

namespace infopt {
namespace {

constexpr int kLeastExponent = kSummaryLeastExponent;  // below that all is zero as far as a quantizer goes; 2^(11 - it) must still be a float
constexpr int64_t kChunk = 1024;

/// Bin numbers: floor(x · 2048 / 2^e) + 2048. The product is exact, so that a coarser histogram's bins nest.
INFOPT_SIMD void bins_of(const float* x, int32_t* bins, int64_t n, float scale) {
  for (int64_t i = 0; i < n; ++i) {
    const float t = x[i] * scale + 0.0f;
    const int32_t whole = static_cast<int32_t>(t);
    bins[i] = whole - ((static_cast<float>(whole) > t) | ((t == 0.0f) & (x[i] < 0.0f))) + static_cast<int32_t>(Histogram::kBins / 2);
  }
}

}  // namespace

double Histogram::width() const { return std::ldexp(1.0, exponent_ - 11); }

int64_t Histogram::total() const { return std::accumulate(counts_.begin(), counts_.end(), int64_t{0}); }

void Histogram::grow(int exponent) {
  if (counts_.empty()) {
    counts_.assign(kBins, 0);
    exponent_ = exponent;
    return;
  }
  while (exponent_ < exponent) {
    std::vector<int64_t> wider(kBins, 0);
    for (int64_t i = 0; i < kBins; ++i) wider[static_cast<size_t>(((i - kBins / 2) >> 1) + kBins / 2)] += counts_[static_cast<size_t>(i)];
    counts_ = std::move(wider);
    ++exponent_;
  }
}

void Histogram::add(const float* values, int64_t count, float extent) {
  int exponent = kLeastExponent;
  if (extent > 0) std::frexp(extent, &exponent);  // extent < 2^exponent, strictly
  grow(std::max(exponent, kLeastExponent));
  const float scale = std::ldexp(1.0f, 11 - exponent_);
  // Four histograms in turn: equal neighbours (a Relu's zeros) don't wait for each other's counter.
  static thread_local std::array<std::array<uint32_t, kBins>, 4> part;
  std::array<int32_t, kChunk> bins;
  constexpr int64_t kRound = int64_t{1} << 30;  // what a 32-bit counter is sure to hold
  for (int64_t from = 0; from < count; from += kRound) {
    for (auto& p : part) p.fill(0);
    const int64_t until = std::min(count, from + kRound);
    for (int64_t at = from; at < until; at += kChunk) {
      const int64_t n = std::min(kChunk, until - at);
      bins_of(values + at, bins.data(), n, scale);
      for (int64_t i = 0; i < n; ++i) ++part[static_cast<size_t>(i & 3)][static_cast<size_t>(bins[static_cast<size_t>(i)])];
    }
    for (size_t b = 0; b < static_cast<size_t>(kBins); ++b) counts_[b] += int64_t{part[0][b]} + part[1][b] + part[2][b] + part[3][b];
  }
}

void Histogram::merge(const Histogram& other) {
  if (other.empty()) return;
  grow(other.exponent_);
  Histogram same = other;
  same.grow(exponent_);
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += same.counts_[i];
}

Histogram Histogram::from(int exponent, std::vector<int64_t> counts) {
  Histogram h;
  h.exponent_ = exponent;
  h.counts_ = std::move(counts);
  return h;
}

}  // namespace infopt

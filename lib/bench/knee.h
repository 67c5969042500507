// Which batch size to choose from measured ones.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

namespace infopt {

/// What was measured at one batch size.
struct BatchPoint {
  int64_t batch = 1;
  double items_per_second = 0;
  double p99_ms = 0;
};

/// The gain in throughput from `a` to `b` for each doubling of the batch: (items(b) / items(a))^(1 / log2(batch(b) / batch(a))) − 1.
/// b's batch is larger than a's.
double gain_per_doubling(const BatchPoint& a, const BatchPoint& b);

/// Where batching stops paying: the batch before the first step whose gain per doubling is below `least_gain`; the largest batch where
/// every step gains that. Points ascend by batch. Empty for fewer than two points.
std::optional<int64_t> find_knee(const std::vector<BatchPoint>& points, double least_gain);

/// The largest batch whose P99 isn't above the target; empty where there is none.
std::optional<int64_t> largest_within(const std::vector<BatchPoint>& points, double p99_ms);

}  // namespace infopt

// What a device says of a tensor in its memory, instead of giving its elements back.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/ir/graph.h"
#include "lib/ops/op.h"

namespace infopt {

constexpr int64_t kSummaryBins = 4096;
constexpr int kSummaryLeastExponent = -116;

struct SummaryRequest {
  bool histogram = false;                 ///< off: only whether there are NaN or infinities
  std::optional<int64_t> channel_axis = {};  ///< negative counts from the end; one that isn't there gives no channels
};

/// Where there is a NaN or an infinity, nothing but the flags counts.
struct TensorSummary {
  int64_t elements = 0;
  bool nan = false, plus_infinity = false, minus_infinity = false;
  float min = 0, max = 0;
  /// Bin i counts the elements in [i − 2048, i − 2047) · 2^(exponent − 11), for the least exponent whose 2^exponent is above every magnitude
  /// (kSummaryLeastExponent at least). Empty where it wasn't asked for, or where there are no elements.
  int exponent = 0;
  std::vector<int64_t> counts;
  std::vector<float> channel_min, channel_max;
  std::vector<double> channel_sum, channel_square;
};

/// A tensor as [outer, channels, inner], in the order in which its elements lie.
struct ChannelView {
  int64_t outer = 1, channels = 0, inner = 1;  ///< channels: 0 where the axis isn't there
};
inline ChannelView channel_view(const Shape& shape, Layout layout, int64_t axis) {
  const auto rank = static_cast<int64_t>(shape.size());
  if (axis < 0) axis += rank;
  ChannelView view;
  if (axis < 0 || axis >= rank) return view;
  const bool last = layout == Layout::ChannelsLast && rank >= 3;
  view.channels = shape[static_cast<size_t>(axis)];
  const auto place = [&](int64_t i) { return !last || i == 0 ? i : i == 1 ? rank : i - 1; };
  for (int64_t i = 0; i < rank; ++i)
    if (i != axis) (place(i) < place(axis) ? view.outer : view.inner) *= shape[static_cast<size_t>(i)];
  return view;
}

/// Sees the tapped values of a run on a device.
class SummaryTap {
 public:
  virtual ~SummaryTap() = default;
  /// What is to be known of a value; the same in every run of a session.
  virtual SummaryRequest request(ValueId value) const = 0;
  /// One that lies in the host's memory; valid only during the call.
  virtual void see(ValueId value, const Tensor& tensor, Layout layout) = 0;
  /// One of the device's; told when the run ends, even with an error.
  virtual void see(ValueId value, const TensorSummary& summary) = 0;
};

}  // namespace infopt

// What one sample's run shows of a model's values: their statistics, and where a NaN or an infinity begins.
#pragma once
#include <functional>
#include <map>

#include "calibration/finite_watch.h"
#include "calibration/statistics.h"
#include "lib/runtime/summary.h"

namespace infopt {

/// Values may be shown in any order: those of a device come last.
class SampleFindings : public SummaryTap {
 public:
  /// `axes`: the channel axes of the values whose statistics are wanted. Histograms, which are large, go to `take_histogram` at once.
  SampleFindings(const Graph& graph, const std::map<ValueId, int64_t>& axes, std::function<void(ValueId, Histogram&)> take_histogram)
      : graph_(graph), axes_(axes), take_histogram_(std::move(take_histogram)) {}

  SummaryRequest request(ValueId value) const override;
  void see(ValueId value, const Tensor& tensor, Layout layout) override;
  void see(ValueId value, const TensorSummary& summary) override;

  /// Throws Error(Malformed) naming the first tensor, in the order of the graph, where a NaN or an infinity begins (see FiniteWatch), or whose
  /// statistics are wanted and that has one.
  void judge() const;
  /// But for the histograms.
  std::map<ValueId, TensorStatistics> take() { return std::move(statistics_); }

 private:
  void keep(ValueId value, TensorStatistics statistics);

  const Graph& graph_;
  const std::map<ValueId, int64_t>& axes_;
  std::function<void(ValueId, Histogram&)> take_histogram_;
  std::map<ValueId, TensorStatistics> statistics_;
  std::map<ValueId, NotFinite> not_finite_;
};

}  // namespace infopt

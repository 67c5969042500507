#include "calibration/sample_findings.h"

#include "lib/base/error.h"

namespace infopt {

SummaryRequest SampleFindings::request(ValueId value) const {
  const auto axis = axes_.find(value);
  return axis == axes_.end() ? SummaryRequest{} : SummaryRequest{true, axis->second};
}

void SampleFindings::see(ValueId value, const Tensor& tensor, Layout layout) {
  if (const NotFinite found = not_finite(tensor); found.any()) not_finite_[value] = found;
  else if (axes_.contains(value)) keep(value, collect(tensor, layout, axes_.at(value)));
}

void SampleFindings::see(ValueId value, const TensorSummary& summary) {
  if (const NotFinite found{summary.nan, summary.plus_infinity, summary.minus_infinity}; found.any()) not_finite_[value] = found;
  else if (axes_.contains(value)) keep(value, statistics_of(summary));
}

void SampleFindings::keep(ValueId value, TensorStatistics statistics) {
  take_histogram_(value, statistics.histogram);
  statistics_[value] = std::move(statistics);
}

void SampleFindings::judge() const {
  if (not_finite_.empty()) return;
  FiniteWatch watch(graph_);
  const auto look = [&](ValueId value) {
    const auto found = not_finite_.find(value);
    if (found == not_finite_.end()) return;
    watch.see(value, found->second);
    if (axes_.contains(value)) throw Error(ErrorKind::Malformed, name_of_value(graph_, value) + " has a NaN or an infinite element");
  };
  for (ValueId v : graph_.inputs()) look(v);
  for (NodeId id : graph_.order()) try {
      for (ValueId v : graph_.node(id).outputs)
        if (v != kNone) look(v);
    } catch (const Error& e) {
      throw e.within(graph_.label(id));
    }
}

}  // namespace infopt

#include "calibration/calibration.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "calibration/finite_watch.h"
#include "calibration/sample_findings.h"
#include "calibration/sample_order.h"
#include "lib/base/error.h"
#include "lib/base/finite.h"
#include "lib/base/threads.h"
#include "lib/runtime/session.h"

namespace infopt {
namespace {

constexpr int64_t kReferences = 4;         ///< samples whose outputs are kept
constexpr int64_t kMostReferences = 64;    ///< the same, where they are small
constexpr size_t kReferenceBytes = 16 << 20;  ///< of all outputs that are kept beyond those few

bool holds(const Tensor& t, bool (*which)(double)) {
  if (!t.defined() || !is_float(t.dtype()) || first_nonfinite(t) < 0) return false;
  const auto values = to_vector<double>(t);
  return std::any_of(values.begin(), values.end(), which);
}

bool is_nan(double v) { return std::isnan(v); }
/// Minus infinity is what masks are made of.
bool is_suspect(double v) { return std::isnan(v) || v == HUGE_VAL; }

/// An output of NaN means that the model, or the sample, is broken: names the tensor where it began.
void check_outputs(const Graph& graph, const Sample& sample, const std::vector<Tensor>& outputs) {
  if (std::none_of(outputs.begin(), outputs.end(), [](const Tensor& t) { return holds(t, is_nan); })) return;
  SessionOptions options;
  options.fuse = false;
  for (size_t v = 0; v < graph.value_capacity(); ++v)
    if (graph.value_alive(static_cast<ValueId>(v)) && !graph.value(static_cast<ValueId>(v)).constant.defined()) options.taps.push_back(static_cast<ValueId>(v));
  run_partially(graph, options, sample, [&](ValueId id, const Tensor& t, Layout) {
    if (holds(t, is_suspect)) throw Error(ErrorKind::Malformed, name_of_value(graph, id) + " has a NaN or an infinite element, and an output has a NaN");
  });
  throw Error(ErrorKind::Malformed, "an output has a NaN");
}

/// Merges samples' results in the order of the samples. Histograms, which are large and don't depend on an order, are merged at once: what waits
/// for an earlier sample is small.
class OrderedMerge {
 public:
  explicit OrderedMerge(StatisticsSet& into) : into_(into) {}

  void take_histogram(ValueId id, Histogram& histogram) {
    std::lock_guard lock(mutex_);
    histograms_[id].merge(histogram);
    histogram = {};
  }

  void add(int64_t sample, std::map<ValueId, TensorStatistics> part) { order_.take(sample, std::move(part)); }

  void finish() {
    for (auto& [id, t] : into_.tensors) t.histogram = std::move(histograms_[id]);
  }

 private:
  StatisticsSet& into_;
  std::mutex mutex_;
  std::map<ValueId, Histogram> histograms_;
  SampleOrder<std::map<ValueId, TensorStatistics>> order_{[this](int64_t, auto& part) {
    for (auto& [id, t] : part) into_.tensors[id].merge(t);
  }};
};

/// What isn't finite is named rather than what it led to.
std::vector<Tensor> run_watched(const PartialSession& session, const Sample& sample, SampleFindings& findings) {
  std::vector<Tensor> outputs;
  try {
    outputs = session.run(sample.inputs, findings);
  } catch (const Error&) {
    findings.judge();
    throw;
  }
  findings.judge();
  return outputs;
}

size_t bytes_of(const std::vector<Tensor>& tensors) {
  size_t bytes = 0;
  for (const Tensor& t : tensors) bytes += t.defined() ? t.bytes() : 0;
  return bytes;
}

}  // namespace

std::vector<Observed> Calibration::observe(const Graph& graph) {
  std::vector<Observed> seen(graph.value_capacity());
  SessionOptions options;
  options.fuse = false;
  for (size_t v = 0; v < graph.value_capacity(); ++v)
    if (graph.value_alive(static_cast<ValueId>(v))) options.taps.push_back(static_cast<ValueId>(v));
  for (ValueId id : options.taps)
    if (graph.value(id).constant.defined()) seen[static_cast<size_t>(id)] = {graph.value(id).constant.dtype(), graph.value(id).constant.shape()};
  data_->reset();
  Sample sample;
  if (!data_->next(sample)) throw Error(ErrorKind::Malformed, "the calibration data has no samples");
  try {
    const auto look = [&](ValueId id, const Tensor& t, Layout) { seen[static_cast<size_t>(id)] = {t.dtype(), t.shape()}; };
    obstacles_ = run_partially(graph, options, sample, look).obstacles;
  } catch (const Error& e) {
    throw e.within(sample.where);
  }
  return seen;
}

PartialSession Calibration::session(const Graph& graph, SessionOptions options) {
  if (obstacles_.empty()) return PartialSession(graph, std::move(options));
  const std::vector<Sample> first = first_samples(1);
  return PartialSession(graph, std::move(options), first.data());
}

std::vector<Sample> Calibration::first_samples(int64_t count) {
  std::vector<Sample> samples;
  data_->reset();
  Sample sample;
  while (static_cast<int64_t>(samples.size()) < count && data_->next(sample)) samples.push_back(std::move(sample));
  return samples;
}

const StatisticsSet& Calibration::collect(const Graph& graph, const std::vector<CollectRequest>& requests) {
  if (saved_) {
    if (saved_->model_key != content_key(graph)) throw Error(ErrorKind::Usage, "the saved statistics are of another model, or of another recipe's form of it; run `infopt calibrate` again");
    if (saved_->data_key != data_->content_key()) throw Error(ErrorKind::Usage, "the saved statistics are of other data or of another number of samples; run `infopt calibrate` again");
    return statistics_ = *saved_;
  }
  statistics_ = {};
  statistics_.samples = data_->size();
  if (keyed_) {
    statistics_.model_key = content_key(graph);
    statistics_.data_key = data_->content_key();
  }
  SessionOptions options;
  options.device = options_.device;
  std::map<ValueId, int64_t> axes;
  for (const CollectRequest& r : requests) axes[r.value] = r.channel_axis;
  options.taps = FiniteWatch::values(graph);
  for (const CollectRequest& r : requests)
    if (std::find(options.taps.begin(), options.taps.end(), r.value) == options.taps.end()) options.taps.push_back(r.value);
  reference_.assign(static_cast<size_t>(std::min(kMostReferences, data_->size())), {});
  const PartialSession session = this->session(graph, options);
  data_->reset();
  OrderedMerge merge(statistics_);
  std::mutex reading;
  int64_t done = 0;
  parallel_for(data_->size(), options_.threads, [&](int64_t, int) {
    Sample sample;
    {
      std::lock_guard lock(reading);
      if (!data_->next(sample)) throw Error(ErrorKind::Malformed, "the calibration data has fewer samples than it says");
    }
    SampleFindings findings(graph, axes, [&](ValueId id, Histogram& histogram) { merge.take_histogram(id, histogram); });
    try {
      check_finite(sample);
      auto outputs = run_watched(session, sample, findings);
      check_outputs(graph, sample, outputs);
      const bool kept = sample.index < kReferences || bytes_of(outputs) * static_cast<size_t>(sample.index + 1) <= kReferenceBytes;
      if (kept && sample.index < static_cast<int64_t>(reference_.size())) reference_[static_cast<size_t>(sample.index)] = std::move(outputs);
    } catch (const Error& e) {
      throw e.where().find(sample.where) == std::string::npos ? e.within(sample.where) : e;
    }
    merge.add(sample.index, findings.take());
    std::lock_guard lock(reading);
    ++done;
    if (options_.progress) options_.progress(done, data_->size());
  });
  merge.finish();
  // Only those that follow each other from the first: lengths differ, and so do bytes.
  reference_.erase(std::find_if(reference_.begin(), reference_.end(), [](const auto& outputs) { return outputs.empty(); }), reference_.end());
  return statistics_;
}

}  // namespace infopt

#include "passes/support/reestimate_batchnorm.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>

#include "calibration/calibration.h"
#include "calibration/sample_order.h"
#include "calibration/staged_run.h"

namespace infopt {
namespace {

constexpr double kLeastVariance = 1e-12;

struct Sums {
  std::vector<double> sum, square;
  double places = 0;

  void add(const Tensor& x) {
    const int64_t channels = x.dim(1);
    int64_t inner = 1;
    for (int64_t a = 2; a < x.rank(); ++a) inner *= x.dim(a);
    sum.resize(static_cast<size_t>(channels), 0), square.resize(static_cast<size_t>(channels), 0);
    const float* v = x.data<float>();
    for (int64_t i = 0; i < x.size(); ++i) {
      const auto c = static_cast<size_t>(i / inner % channels);
      sum[c] += static_cast<double>(v[i]), square[c] += static_cast<double>(v[i]) * static_cast<double>(v[i]);
    }
    places += static_cast<double>(x.size() / std::max<int64_t>(1, channels));
  }
  double mean(size_t c) const { return sum[c] / places; }
  double variance(size_t c) const { return std::max(0.0, square[c] / places - mean(c) * mean(c)); }
};

/// Sums of values, made as far as they are asked for.
class SumsAhead {
 public:
  SumsAhead(const Graph& graph, const std::set<ValueId>& wanted, PassContext& context) {
    for (ValueId v : graph.inputs())
      if (wanted.contains(v)) order_.push_back(v);
    for (NodeId id : graph.order())
      for (ValueId v : graph.node(id).outputs)
        if (v != kNone && wanted.contains(v)) order_.push_back(v);
    run_ = std::make_unique<StagedRun>(graph, *context.calibration, order_, StagedOptions{.threads = context.threads});
  }
  const Sums& of(ValueId value) {
    for (; !made_.contains(value); ++next_) {
      Sums& out = made_[order_[next_]];
      SampleOrder<std::vector<Tensor>> order([&](int64_t, const std::vector<Tensor>& seen) { out.add(seen[0]); });
      run_->advance({order_[next_]}, [&](int64_t sample, const std::vector<Tensor>& seen) { order.take(sample, seen); });
    }
    return made_[value];
  }

 private:
  std::vector<ValueId> order_;
  size_t next_ = 0;
  std::unique_ptr<StagedRun> run_;
  std::map<ValueId, Sums> made_;
};

/// Those whose statistics are constants and whose input is made by something that has changed.
std::vector<NodeId> changed_ones(const Graph& graph, const Graph& original) {
  std::vector<bool> changed(graph.value_capacity(), false);
  std::vector<NodeId> out;
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    bool differs = !original.alive(id);
    for (size_t i = 0; i < n.inputs.size() && !differs; ++i)
      differs = n.inputs[i] != kNone && (changed[static_cast<size_t>(n.inputs[i])] || original.node(id).input(i) != n.inputs[i]);
    for (size_t i = 0; i < n.inputs.size() && !differs; ++i) {
      const Tensor *now = graph.constant(n.input(i)), *then = original.constant(original.node(id).input(i));
      differs = now && then && now->raw() != then->raw();
    }
    for (ValueId v : n.outputs)
      if (v != kNone) changed[static_cast<size_t>(v)] = differs;
    const bool fixed = n.is("BatchNormalization") && n.i("training_mode", 0) == 0 && graph.constant(n.input(3)) && graph.constant(n.input(4));
    const bool plain = fixed && graph.constant(n.input(3))->dtype() == DType::F32 && graph.constant(n.input(4))->dtype() == DType::F32;
    if (plain && changed[static_cast<size_t>(n.outputs[0])] && original.alive(id) && changed[static_cast<size_t>(n.input(0))]) out.push_back(id);
  }
  return out;
}

}  // namespace

int64_t reestimate_batchnorm(GraphEdit& edit, const Graph& original, const std::function<std::vector<bool>(ValueId value, int64_t axis)>& keep, PassContext& context) {
  const Graph& graph = edit.graph();
  const std::vector<NodeId> nodes = changed_ones(graph, original);
  if (nodes.empty()) return 0;
  std::set<ValueId> now, then;
  for (NodeId id : nodes) now.insert(graph.node(id).input(0)), then.insert(original.node(id).input(0));
  SumsAhead changed(graph, now, context), whole(original, then, context);
  for (NodeId id : nodes) {
    const Node& n = graph.node(id);
    const ValueId b = original.node(id).input(0);
    const Sums &s = changed.of(n.input(0)), &w = whole.of(b);
    std::vector<bool> kept = keep(b, 1);
    if (kept.empty()) kept.assign(w.sum.size(), true);
    Tensor mean = graph.constant(n.input(3))->clone(), variance = graph.constant(n.input(4))->clone();
    const auto epsilon = static_cast<double>(n.f("epsilon", 1e-5f));
    size_t c = 0;
    for (size_t o = 0; o < kept.size() && o < w.sum.size(); ++o) {
      if (!kept[o]) continue;
      if (c >= s.sum.size() || static_cast<int64_t>(c) >= mean.size()) break;
      float &m = mean.mutable_data<float>()[c], &v = variance.mutable_data<float>()[c];
      const double before = static_cast<double>(v) + epsilon, ratio = s.variance(c) / std::max(kLeastVariance, w.variance(o));
      const double after = before * ratio;
      if (w.variance(o) > kLeastVariance && s.variance(c) > kLeastVariance && after > epsilon) {
        m = static_cast<float>(s.mean(c) - (w.mean(o) - static_cast<double>(m)) * std::sqrt(ratio));
        v = static_cast<float>(after - epsilon);
      }
      ++c;
    }
    edit.set_input(id, 3, edit.add_constant(mean));
    edit.set_input(id, 4, edit.add_constant(variance));
  }
  edit.finish();
  return static_cast<int64_t>(nodes.size());
}

}  // namespace infopt

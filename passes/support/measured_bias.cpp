#include "passes/support/measured_bias.h"

#include <algorithm>
#include <map>

#include "calibration/staged_run.h"
#include "passes/support/coded_layers.h"

namespace infopt {
namespace {

/// By sample, the means of one layer's output channels.
using SampleMeans = std::vector<std::vector<double>>;

/// Means over all axes but one; empty where the tensor isn't float32 or the axis hasn't so many channels.
std::vector<double> channel_means(const Tensor& given, bool convolution, int64_t channels) {
  const int64_t axis = convolution ? 1 : given.rank() - 1;
  if (given.rank() < 2 || given.dim(axis) != channels || given.size() == 0 || given.dtype() != DType::F32) return {};
  int64_t inner = 1;
  for (int64_t a = axis + 1; a < given.rank(); ++a) inner *= given.dim(a);
  std::vector<double> sums(static_cast<size_t>(channels), 0);
  const float* x = given.data<float>();
  for (int64_t i = 0; i < given.size(); i += inner) {
    double sum = 0;
    for (int64_t k = 0; k < inner; ++k) sum += static_cast<double>(x[i + k]);
    sums[static_cast<size_t>(i / inner % channels)] += sum;
  }
  for (double& s : sums) s /= static_cast<double>(given.size() / channels);
  return sums;
}

class Correction {
 public:
  Correction(GraphEdit& edit, const Graph& original, const std::vector<NodeId>& layers, Calibration& calibration, int threads)
      : edit_(edit), graph_(edit.graph()), original_(original), calibration_(calibration), options_{.threads = threads} {
    for (NodeId id : layers)
      if (const auto coded = graph_.alive(id) && original.alive(id) ? coded_layer(graph_, id) : std::nullopt; coded && coded->bias != kNone && coded->bias_values.rank() == 1)
        ids_.push_back(id), channels_[id] = coded->bias_values.size();
  }

  int64_t run() {
    if (ids_.empty()) return 0;
    measure_original();
    std::vector<ValueId> targets;
    const auto groups = by_depth();
    for (const auto& group : groups)
      for (NodeId id : group) targets.push_back(graph_.node(id).input(0)), targets.push_back(graph_.node(id).outputs[0]);
    StagedRun staged(graph_, calibration_, targets, options_);
    if (staged.samples() < 2) return 0;
    int64_t changed = 0;
    for (const auto& group : groups) {
      std::vector<ValueId> inputs, outputs;
      for (NodeId id : group) {
        if (const ValueId v = graph_.node(id).input(0); std::find(inputs.begin(), inputs.end(), v) == inputs.end()) inputs.push_back(v);
        outputs.push_back(graph_.node(id).outputs[0]);
      }
      staged.advance(inputs, [](int64_t, const std::vector<Tensor>&) {});
      std::vector<SampleMeans> now(group.size(), SampleMeans(static_cast<size_t>(staged.samples())));
      staged.peek(graph_, outputs, [&](int64_t sample, const std::vector<Tensor>& made) {
        for (size_t i = 0; i < made.size(); ++i) now[i][static_cast<size_t>(sample)] = means_of(group[i], made[i]);
      });
      staged.forget(outputs);
      for (size_t i = 0; i < group.size(); ++i) changed += correct(group[i], now[i]);
    }
    return changed;
  }

 private:
  std::vector<double> means_of(NodeId id, const Tensor& output) const {
    const Node& n = graph_.node(id);
    return channel_means(output, n.is("Conv") || n.is("ConvTranspose"), channels_.at(id));
  }

  void measure_original() {
    std::vector<ValueId> outputs;
    for (NodeId id : ids_) outputs.push_back(original_.node(id).outputs[0]);
    StagedRun staged(original_, calibration_, outputs, options_);
    for (NodeId id : ids_) expected_[id].resize(static_cast<size_t>(staged.samples()));
    staged.advance(outputs, [&](int64_t sample, const std::vector<Tensor>& made) {
      for (size_t i = 0; i < made.size(); ++i) expected_.at(ids_[i])[static_cast<size_t>(sample)] = means_of(ids_[i], made[i]);
    });
  }

  /// Layers whose corrections can't change each other's inputs stand together.
  std::vector<std::vector<NodeId>> by_depth() const {
    std::vector<size_t> depth(graph_.value_capacity(), 0);
    std::vector<std::vector<NodeId>> groups;
    for (NodeId id : graph_.order()) {
      const Node& n = graph_.node(id);
      size_t most = 0;
      for (const auto& list : {n.inputs, n.captures})
        for (ValueId v : list)
          if (v != kNone) most = std::max(most, depth[static_cast<size_t>(v)]);
      if (std::find(ids_.begin(), ids_.end(), id) != ids_.end()) {
        if (groups.size() <= most) groups.resize(most + 1);
        groups[most++].push_back(id);
      }
      for (ValueId v : n.outputs)
        if (v != kNone) depth[static_cast<size_t>(v)] = most;
    }
    std::erase_if(groups, [](const auto& g) { return g.empty(); });
    return groups;
  }

  bool correct(NodeId id, const SampleMeans& now) {
    const SampleMeans& expected = expected_.at(id);
    const auto coded = coded_layer(graph_, id);
    Tensor bias = coded->bias_values.clone();
    bool any = false;
    for (int64_t c = 0; c < bias.size(); ++c) {
      const double error = significant_mean(expected, now, static_cast<size_t>(c));
      bias.mutable_data<float>()[c] -= static_cast<float>(error);
      any = any || error != 0;
    }
    if (any) set_bias(edit_, *coded, bias);
    return any;
  }

  static double significant_mean(const SampleMeans& expected, const SampleMeans& now, size_t channel) {
    double sum = 0, square = 0;
    const auto n = static_cast<double>(now.size());
    for (size_t s = 0; s < now.size(); ++s) {
      if (channel >= now[s].size() || channel >= expected[s].size()) return 0;
      const double d = now[s][channel] - expected[s][channel];
      sum += d;
      square += d * d;
    }
    const double mean = sum / n, variance = std::max(0.0, square / n - mean * mean) / (n - 1);
    return mean == 0 ? 0 : mean * std::max(0.0, 1 - variance / (mean * mean));
  }

  GraphEdit& edit_;
  const Graph& graph_;
  const Graph& original_;
  Calibration& calibration_;
  StagedOptions options_;
  std::vector<NodeId> ids_;
  std::map<NodeId, int64_t> channels_;
  std::map<NodeId, SampleMeans> expected_;
};

}  // namespace

int64_t correct_biases(GraphEdit& edit, const Graph& original, const std::vector<NodeId>& layers, Calibration& calibration, int threads) {
  return Correction(edit, original, layers, calibration, threads).run();
}

}  // namespace infopt

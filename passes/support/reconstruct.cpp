#include "passes/support/reconstruct.h"

#include <algorithm>
#include <optional>
#include <set>

#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "passes/support/block_learner.h"

namespace infopt {
namespace {

class Reconstruction {
 public:
  Reconstruction(GraphEdit& edit, const Graph& original, const std::map<ValueId, ValueId>& became, const FetchValues& fetch, const ReconstructOptions& options)
      : edit_(edit), graph_(edit.graph()), original_(original), fetch_(fetch), options_(options) {
    for (const auto& [was, now] : became) origin_[now] = was;
    search_.most_layers = options.most_layers;
    search_.comparable = [this](ValueId v) { return float_of(v) != kNone; };
    for (NodeId id : graph_.order())
      if (learned_layer(id)) search_.layers.insert(id);
  }

  std::vector<BlockReport> run() {
    const std::vector<Block> blocks = options_.single_layers ? single_layer_blocks(graph_, search_) : find_blocks(graph_, search_);
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (!learn(blocks[i]) && blocks[i].layers.size() > 1) learn_apart(blocks[i]);
      if (options_.progress) options_.progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(blocks.size()));
    }
    return std::move(reports_);
  }

 private:
  /// What the float graph has where `now` is; kNone where it has nothing, or not in float32.
  ValueId float_of(ValueId now) const {
    const auto it = origin_.find(now);
    const ValueId v = it != origin_.end() ? it->second : now;
    if (!original_.value_alive(v) || original_.constant(v) || (!original_.producer(v) && !original_.value(v).graph_input)) return kNone;
    return v;
  }

  std::optional<LearnedLayer> learned_layer(NodeId id) const {
    if (!original_.alive(id)) return std::nullopt;
    const Tensor* w = original_.constant(original_.node(id).input(1));
    auto coded = w ? coded_layer(graph_, id) : std::nullopt;
    if (!coded || w->shape() != coded->grid.shape || !is_float(w->dtype())) return std::nullopt;
    const Tensor weights = cast(*w, DType::F32);
    SoftRounding rounding({weights.data<float>(), weights.data<float>() + weights.size()}, coded->grid);
    return LearnedLayer{std::move(*coded), std::move(rounding)};
  }

  BlockSamples samples_of(const Block& b) const {
    BlockSamples s;
    std::vector<ValueId> wanted;
    std::vector<size_t> inputs;
    for (size_t i = 0; i < b.inputs.size(); ++i)
      if (const ValueId v = float_of(b.inputs[i]); v != kNone && original_.producer(v)) wanted.push_back(v), inputs.push_back(i);
    for (ValueId v : b.outputs) wanted.push_back(float_of(v));
    s.inputs = fetch_(graph_, b.inputs);
    for (std::vector<Tensor>& values : fetch_(original_, wanted)) {
      std::vector<Tensor> whole(b.inputs.size());
      const std::vector<Tensor>& rounded = s.inputs[s.targets.size()];
      for (size_t i = 0; i < inputs.size(); ++i)
        if (values[i].dtype() == DType::F32 && rounded[inputs[i]].dtype() == DType::F32 && values[i].shape() == rounded[inputs[i]].shape()) whole[inputs[i]] = values[i];
      s.float_inputs.push_back(std::move(whole));
      s.targets.emplace_back(values.begin() + static_cast<int64_t>(inputs.size()), values.end());
      for (const Tensor& t : s.targets.back())
        if (t.dtype() != DType::F32) throw Error(ErrorKind::Unsupported, "a block's output isn't float32");
    }
    return s;
  }

  /// False where the block can't be learned.
  bool learn(const Block& b) {
    try {
      std::vector<LearnedLayer> layers;
      for (NodeId id : b.layers) layers.push_back(*learned_layer(id));
      BlockLearner learner(graph_, b, std::move(layers), options_);
      reports_.push_back(learner.learn(samples_of(b)));
      for (size_t i = 0; i < learner.layers().size(); ++i) {
        const CodedLayer& coded = learner.layers()[i].coded;
        set_codes(edit_, coded, learner.codes()[i]);
        if (learner.biases()[i].defined()) set_bias(edit_, coded, learner.biases()[i]);
      }
      edit_.finish();
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::Unsupported) throw;
      return false;
    }
    trim_memory();
    return true;
  }

  void learn_apart(const Block& b) {
    BlockSearch each = search_;
    each.layers = {b.layers.begin(), b.layers.end()};
    for (const Block& one : single_layer_blocks(graph_, each)) learn(one);
  }

  GraphEdit& edit_;
  const Graph& graph_;
  const Graph& original_;
  const FetchValues& fetch_;
  const ReconstructOptions& options_;
  std::map<ValueId, ValueId> origin_;  ///< values of the quantized graph, and what they stand for
  BlockSearch search_;
  std::vector<BlockReport> reports_;
};

}  // namespace

std::vector<BlockReport> reconstruct(GraphEdit& quantized, const Graph& original, const std::map<ValueId, ValueId>& became, const FetchValues& fetch, const ReconstructOptions& options) {
  return Reconstruction(quantized, original, became, fetch, options).run();
}

}  // namespace infopt

#include "passes/support/flops.h"
#include "passes/support/reconstruct.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <set>

#include "calibration/staged_run.h"
#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "passes/support/block_learner.h"
#include "passes/support/learning_plan.h"

namespace infopt {
namespace {

constexpr double kRecurrent = 8;  // times a product's: step by step, in small pieces

class Reconstruction {
 public:
  Reconstruction(GraphEdit& edit, const Graph& original, const std::map<ValueId, ValueId>& became, Calibration& calibration, const ReconstructOptions& options)
      : edit_(edit), graph_(edit.graph()), original_(original), calibration_(calibration), options_(options) {
    for (const auto& [was, now] : became) origin_[now] = was;
    search_.most_layers = options.most_layers;
    search_.comparable = [this](ValueId v) { return float_of(v) != kNone; };
    for (NodeId id : graph_.order())
      if (learned_layer(id)) search_.layers.insert(id);
  }

  ReconstructReport run() {
    const std::vector<Block> blocks = affordable(learnable_blocks());
    start(blocks);
    for (size_t i = 0; i < blocks.size(); ++i) {
      const Block& b = blocks[i];
      effort_ = efforts_[i];
      if (!learn(b, advance(b)) && b.layers.size() > 1) learn_apart(b);
      for (ValueId v : b.outputs)
        if (const auto left = rounded_left_.find(v); left == rounded_left_.end() || left->second == 0) rounded_->forget({v});
      if (options_.progress) options_.progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(blocks.size()));
    }
    return std::move(report_);
  }

 private:
  BlockWork work_of(const Block& b) const {
    BlockWork work{.places = 1e18};
    for (NodeId id : b.layers) {
      const Node& n = original_.node(id);
      const Observed& y = (*options_.seen)[static_cast<size_t>(n.outputs[0])];
      const double weights = static_cast<double>(original_.constant(n.input(1))->size());
      const double macs = static_cast<double>(options_.macs.contains(id) ? options_.macs.at(id) : 0);
      work.macs += macs;
      work.weights += weights;
      work.elements += y.dtype == DType::Undefined ? 0 : static_cast<double>(element_count(y.shape));
      work.places = std::min(work.places, std::max(1.0, macs / std::max(1.0, weights)));
    }
    work.macs += kRecurrent * static_cast<double>(recurrent_macs_in(b));
    return work;
  }

  /// Of recurrent layers between a block's inputs and outputs.
  int64_t recurrent_macs_in(const Block& b) const {
    int64_t macs = 0;
    std::set<ValueId> met(b.inputs.begin(), b.inputs.end());
    std::vector<ValueId> todo = b.outputs;
    while (!todo.empty()) {
      const ValueId v = todo.back();
      todo.pop_back();
      if (v == kNone || !met.insert(v).second) continue;
      const Node* made = original_.value_alive(v) ? original_.producer(v) : nullptr;
      if (!made) continue;
      macs += recurrent_macs(original_, *options_.seen, *made);
      todo.insert(todo.end(), made->inputs.begin(), made->inputs.end());
    }
    return macs;
  }

  /// Those that the budget has room for; efforts_ gets theirs.
  std::vector<Block> affordable(std::vector<Block> blocks) {
    const BlockEffort asked{options_.iterations, options_.batch};
    efforts_.assign(blocks.size(), asked);
    if (options_.budget > 0) {
      std::vector<BlockWork> work;
      for (const Block& b : blocks) work.push_back(work_of(b));
      const int64_t data = calibration_.data().size();
      efforts_ = share_learning(work, asked, options_.samples > 0 ? std::min(options_.samples, data) : data, options_.budget);
    }
    std::vector<Block> kept;
    std::vector<BlockEffort> efforts;
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (efforts_[i].iterations == 0) {
        report_.left_out.insert(report_.left_out.end(), blocks[i].layers.begin(), blocks[i].layers.end());
        continue;
      }
      report_.iterations = efforts_[i].iterations;
      report_.batch += efforts_[i].batch;
      efforts.push_back(efforts_[i]);
      kept.push_back(std::move(blocks[i]));
    }
    if (!kept.empty()) report_.batch /= static_cast<double>(kept.size());
    efforts_ = std::move(efforts);
    return kept;
  }

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

  /// A block's values in the two graphs: of the float one its inputs, where it has them, and then its outputs.
  struct Wanted {
    std::vector<ValueId> rounded, exact;
    std::vector<size_t> inputs;  ///< which the first of `exact` are
  };
  Wanted wanted_of(const Block& b) const {
    Wanted w{b.inputs, {}, {}};
    for (size_t i = 0; i < b.inputs.size(); ++i)
      if (const ValueId v = float_of(b.inputs[i]); v != kNone && original_.producer(v)) w.exact.push_back(v), w.inputs.push_back(i);
    for (ValueId v : b.outputs) w.exact.push_back(float_of(v));
    return w;
  }

  /// A run's values of each sample, asked for in any order; each once. Values that two places want are fetched once.
  using Values = std::vector<std::vector<Tensor>>;
  static std::vector<ValueId> apart(std::vector<ValueId> values) {
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    return values;
  }
  static StagedRun::Visit take_into(Values& out, const std::vector<ValueId>& fetched, const std::vector<ValueId>& wanted) {
    return [&](int64_t sample, const std::vector<Tensor>& made) {
      for (ValueId v : wanted) out[static_cast<size_t>(sample)].push_back(made[static_cast<size_t>(std::find(fetched.begin(), fetched.end(), v) - fetched.begin())]);
    };
  }

  void start(const std::vector<Block>& blocks) {
    std::vector<ValueId> rounded, exact;
    for (const Block& b : blocks) {
      const Wanted w = wanted_of(b);
      rounded.insert(rounded.end(), w.rounded.begin(), w.rounded.end());
      rounded.insert(rounded.end(), b.outputs.begin(), b.outputs.end());  // what lies within a block may be asked for too
      exact.insert(exact.end(), w.exact.begin(), w.exact.end());
      for (ValueId v : apart(w.rounded)) ++rounded_left_[v];
      for (ValueId v : apart(w.exact)) ++exact_left_[v];
    }
    const StagedOptions options{.samples = options_.samples, .threads = options_.threads};
    rounded_ = std::make_unique<StagedRun>(graph_, calibration_, apart(std::move(rounded)), options);
    exact_ = std::make_unique<StagedRun>(original_, calibration_, apart(std::move(exact)), options);
  }

  /// Blocks of several layers that have no gradient fall into single ones.
  std::vector<Block> learnable_blocks() const {
    if (options_.single_layers) return single_layer_blocks(graph_, search_);
    std::vector<Block> out;
    for (Block& b : find_blocks(graph_, search_)) {
      if (b.layers.size() == 1 || differentiable(b)) {
        out.push_back(std::move(b));
        continue;
      }
      for (Block& one : layers_of(b)) out.push_back(std::move(one));
    }
    return out;
  }

  bool differentiable(const Block& b) const {
    try {
      BlockLearner(graph_, b, learned_layers(b), options_);
      return true;
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::Unsupported) throw;
      return false;
    }
  }

  std::vector<Block> layers_of(const Block& b) const {
    BlockSearch each = search_;
    each.layers = {b.layers.begin(), b.layers.end()};
    return single_layer_blocks(graph_, each);
  }

  std::vector<LearnedLayer> learned_layers(const Block& b) const {
    std::vector<LearnedLayer> layers;
    for (NodeId id : b.layers) layers.push_back(*learned_layer(id));
    return layers;
  }

  /// To the block's inputs in the graph that is quantized so far, and through it in the float one.
  BlockSamples advance(const Block& b) {
    const Wanted w = wanted_of(b);
    return samples_of(b, w, step(*rounded_, w.rounded, rounded_left_), step(*exact_, w.exact, exact_left_));
  }

  static Values step(StagedRun& run, const std::vector<ValueId>& wanted, std::map<ValueId, int64_t>& left) {
    Values out(static_cast<size_t>(run.samples()));
    const std::vector<ValueId> fetched = apart(wanted);
    std::vector<ValueId> again;
    for (ValueId v : fetched)
      if (--left.at(v) > 0) again.push_back(v);
    run.advance(fetched, take_into(out, fetched, wanted), again);
    return out;
  }

  /// Of a part of the block that advance() went to, without going on; the float graph, which is past it, is run again.
  BlockSamples look(const Block& b) const {
    const Wanted w = wanted_of(b);
    const StagedRun exact(original_, calibration_, apart(w.exact), {.samples = options_.samples, .threads = options_.threads});
    const auto see = [](const StagedRun& run, const Graph& graph, const std::vector<ValueId>& wanted) {
      Values out(static_cast<size_t>(run.samples()));
      const std::vector<ValueId> fetched = apart(wanted);
      run.peek(graph, fetched, take_into(out, fetched, wanted));
      return out;
    };
    return samples_of(b, w, see(*rounded_, graph_, w.rounded), see(exact, original_, w.exact));
  }

  static BlockSamples samples_of(const Block& b, const Wanted& w, Values rounded, const Values& exact) {
    BlockSamples s;
    s.inputs = std::move(rounded);
    for (size_t sample = 0; sample < exact.size(); ++sample) {
      const std::vector<Tensor>& values = exact[sample];
      std::vector<Tensor> whole(b.inputs.size());
      for (size_t i = 0; i < w.inputs.size(); ++i) {
        const Tensor& own = s.inputs[sample][w.inputs[i]];
        if (values[i].dtype() == DType::F32 && own.dtype() == DType::F32 && values[i].shape() == own.shape()) whole[w.inputs[i]] = values[i];
      }
      s.float_inputs.push_back(std::move(whole));
      s.targets.emplace_back(values.begin() + static_cast<int64_t>(w.inputs.size()), values.end());
    }
    return s;
  }

  /// False where the block can't be learned.
  bool learn(const Block& b, BlockSamples samples) {
    try {
      for (const auto& targets : samples.targets)
        for (const Tensor& t : targets)
          if (t.dtype() != DType::F32) throw Error(ErrorKind::Unsupported, "a block's output isn't float32");
      ReconstructOptions options = options_;
      options.iterations = effort_.iterations;
      options.batch = effort_.batch;
      BlockLearner learner(graph_, b, learned_layers(b), options);
      report_.blocks.push_back(learner.learn(std::move(samples)));
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
    for (const Block& one : layers_of(b)) learn(one, look(one));
  }

  GraphEdit& edit_;
  const Graph& graph_;
  const Graph& original_;
  Calibration& calibration_;
  const ReconstructOptions& options_;
  std::map<ValueId, ValueId> origin_;  ///< values of the quantized graph, and what they stand for
  BlockSearch search_;
  std::unique_ptr<StagedRun> rounded_, exact_;
  std::map<ValueId, int64_t> rounded_left_, exact_left_;  ///< how many blocks ahead want a value
  std::vector<BlockEffort> efforts_;  ///< of the blocks
  BlockEffort effort_;                ///< of the one that is learned now
  ReconstructReport report_;
};

}  // namespace

ReconstructReport reconstruct(GraphEdit& quantized, const Graph& original, const std::map<ValueId, ValueId>& became, Calibration& calibration, const ReconstructOptions& options) {
  return Reconstruction(quantized, original, became, calibration, options).run();
}

}  // namespace infopt

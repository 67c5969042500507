#include "passes/support/distill.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <unordered_map>

#include "calibration/calibration.h"
#include "calibration/tensor_store.h"
#include "lib/autodiff/adam.h"
#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "lib/base/threads.h"
#include "lib/runtime/session.h"
#include "passes/support/batch_runs.h"
#include "passes/support/batches.h"
#include "passes/support/blocks.h"
#include "passes/support/layer_bias.h"
#include "passes/support/remove_channels.h"

namespace infopt {
namespace {

constexpr size_t kMostTogether = 4;                   // samples that run as one
constexpr size_t kMostWithin = 6;                     // values between the blocks
constexpr int64_t kMostTargets = int64_t{1} << 30;    // bytes of those
constexpr int64_t kMostHeld = int64_t{256} << 20;
constexpr int64_t kChecks = 5;                        // of a cycle: looks at the samples held out
constexpr double kWorthwhile = 0.95;                  // what a cycle leaves of the noise, at most, for a longer one to follow
constexpr double kSlower = 0.25, kLeastRate = 0.05;   // where it leaves more than there was
constexpr double kWarm = 0.05;                        // the share of the steps in which the rate rises

/// The positions of each axis that `keep` says.
Tensor slice_kept(Tensor t, ValueId value, const std::function<std::vector<bool>(ValueId, int64_t)>& keep) {
  for (int64_t axis = 0; axis < t.rank(); ++axis) {
    const std::vector<bool> kept = keep(value, axis);
    if (static_cast<int64_t>(kept.size()) != t.dim(axis)) continue;
    std::vector<int64_t> from;
    for (int64_t i = 0; i < t.dim(axis); ++i)
      if (kept[static_cast<size_t>(i)]) from.push_back(i);
    if (from.size() < kept.size()) t = take_positions(t, axis, from);
  }
  return t;
}

/// Of a value of that rank: a convolution's, or a product's.
int64_t channel_axis(int64_t rank) { return rank >= 4 ? 1 : rank - 1; }

/// What says the same as an output, where gradients don't vanish.
ValueId before_squashing(const Graph& graph, const Graph& original, ValueId v) {
  for (const Node* p = graph.producer(v); p && squashes(*p); p = graph.producer(v)) {
    if (!original.value_alive(p->input(0)) || !original.producer(p->input(0))) break;
    v = p->input(0);
  }
  return v;
}

class Distiller {
 public:
  using Keep = std::function<std::vector<bool>(ValueId, int64_t)>;
  Distiller(GraphEdit& edit, const Graph& original, const Keep& keep, VariedSamples& data, const DistillOptions& options, PassContext& context)
      : edit_(edit), graph_(edit.graph()), original_(original), keep_(keep), data_(data), options_(options), context_(context), store_(kMostHeld) {}

  DistillReport run() {
    seen_ = context_.calibration->observe(original_);
    now_ = context_.calibration->observe(graph_);
    find_targets();
    find_parameters();
    DistillReport report;
    find_boundary(report);
    open();
    take_samples();
    joined_ = joins_samples();
    report.noise_before = report.noise_after = measure();
    learn(report);
    for (size_t i = 0; i < learned_.size() && report.steps > 0; ++i) edit_.set_constant(learned_[i], best_[i]);
    edit_.finish();
    return report;
  }

 private:
  struct Held {
    std::vector<int64_t> inputs, targets;  ///< tickets
  };
  bool is_float32(ValueId v, const std::vector<Observed>& seen) const { return seen[static_cast<size_t>(v)].dtype == DType::F32; }
  bool comparable(ValueId v) const {
    return v != kNone && original_.value_alive(v) && original_.producer(v) && graph_.producer(v) && is_float32(v, now_) && is_float32(v, seen_) && now_[static_cast<size_t>(v)].shape.size() == seen_[static_cast<size_t>(v)].shape.size();
  }

  void find_targets() {
    for (ValueId v : graph_.outputs())
      if (const ValueId b = before_squashing(graph_, original_, v); comparable(b) && !std::count(targets_.begin(), targets_.end(), b)) targets_.push_back(b);
    if (targets_.empty()) throw Error(ErrorKind::Unsupported, "no output is float32");
    outputs_ = targets_.size();
    BlockSearch search;
    for (const Layer& l : find_layers(graph_)) search.layers.insert(l.node);
    search.comparable = [this](ValueId v) { return comparable(v); };
    search.most_layers = 1;
    std::vector<ValueId> cuts;
    for (const Block& b : find_blocks(graph_, search))
      for (ValueId v : b.outputs)
        if (!std::count(targets_.begin(), targets_.end(), v)) cuts.push_back(v);
    int64_t room = kMostTargets / std::max<int64_t>(1, data_.size());
    const size_t few = std::min(kMostWithin, cuts.size());
    for (size_t i = 0; i < few; ++i) {
      const ValueId v = cuts[(i + 1) * cuts.size() / few - 1];
      room -= 4 * element_count(seen_[static_cast<size_t>(v)].shape);
      if (room > 0 && options_.within > 0) targets_.push_back(v);
    }
  }

  void find_parameters() {
    std::set<ValueId> met;
    const auto add = [&](ValueId v, double unit) {
      const Tensor* t = v == kNone ? nullptr : graph_.constant(v);
      if (!t || t->dtype() != DType::F32 || !met.insert(v).second) return;
      const double rms = std::sqrt(energy(*t) / static_cast<double>(std::max<int64_t>(1, t->size())));
      if (std::max(rms, unit) <= 0) return;
      learned_.push_back(v);
      rates_.push_back(static_cast<float>(options_.rate * std::max(rms, unit)));
    };
    for (NodeId id : graph_.order()) {
      const Node& n = graph_.node(id);
      if (n.is("LayerNormalization") || n.is("BatchNormalization") || n.is("RMSNormalization") || n.is("InstanceNormalization"))
        for (size_t i : {1, 2}) add(n.input(i), 0);
      if (n.is("LSTM") || n.is("GRU") || n.is("RNN"))
        for (size_t i : {1, 2, 3}) add(n.input(i), 0);
      const auto layer = layer_of(graph_, id);
      if (!layer) continue;
      add(layer->weights, 0);
      const LayerBias bias = find_bias(graph_, *layer);
      const Tensor& w = *graph_.constant(layer->weights);
      if (bias.node != kNone && w.dtype() == DType::F32) add(graph_.node(bias.node).input(bias.input), std::sqrt(energy(w) / static_cast<double>(std::max<int64_t>(1, w.size()))));
    }
  }

  /// What nodes make of one of `values`, and these.
  std::set<ValueId> behind(const std::vector<ValueId>& values) const {
    std::set<ValueId> found(values.begin(), values.end());
    for (NodeId id : graph_.order()) {
      const Node& n = graph_.node(id);
      const auto met = [&](ValueId v) { return found.contains(v); };
      if (std::any_of(n.inputs.begin(), n.inputs.end(), met) || std::any_of(n.captures.begin(), n.captures.end(), met)) found.insert(n.outputs.begin(), n.outputs.end());
    }
    return found;
  }
  /// What nodes make one of `values` of, and these.
  std::set<ValueId> before(const std::vector<ValueId>& values) const {
    std::set<ValueId> found(values.begin(), values.end());
    const auto& order = graph_.order();
    for (size_t i = order.size(); i-- > 0;) {
      const Node& n = graph_.node(order[i]);
      if (std::none_of(n.outputs.begin(), n.outputs.end(), [&](ValueId v) { return found.contains(v); })) continue;
      found.insert(n.inputs.begin(), n.inputs.end());
      found.insert(n.captures.begin(), n.captures.end());
    }
    found.erase(kNone);
    return found;
  }

  /// Values that nothing learned changes and that the learned part reads: fed, where the tape can't make them.
  void find_boundary(DistillReport& report) {
    const std::set<ValueId> needed = before(targets_);
    std::set<ValueId> moving;
    std::vector<ValueId> stops;
    std::set<std::string> names;
    for (const std::set<ValueId> changed = behind(learned_); NodeId id : graph_.order()) {
      const Node& n = graph_.node(id);
      if (std::none_of(n.outputs.begin(), n.outputs.end(), [&](ValueId v) { return needed.contains(v); })) continue;
      const bool flows = std::any_of(n.inputs.begin(), n.inputs.end(), [&](ValueId v) { return moving.contains(v) || std::count(learned_.begin(), learned_.end(), v); });
      const Passage passage = passage_of(graph_, n);
      const bool constant = std::all_of(n.inputs.begin(), n.inputs.end(), [&](ValueId v) { return v == kNone || graph_.constant(v); });
      if ((passage == Passage::NoKernel && !(constant && n.captures.empty() && n.bodies().empty())) || (passage == Passage::NoGradient && flows)) {
        stops.insert(stops.end(), n.outputs.begin(), n.outputs.end());
        if (std::any_of(n.outputs.begin(), n.outputs.end(), [&](ValueId v) { return changed.contains(v); })) names.insert(n.op);
      } else if (flows && passage == Passage::Differentiable) {
        moving.insert(n.outputs.begin(), n.outputs.end());
      }
    }
    if (stops.empty()) return;
    const std::set<ValueId> still = before(stops);
    for (size_t i = learned_.size(); i-- > 0;)
      if (still.contains(learned_[i])) learned_.erase(learned_.begin() + static_cast<int64_t>(i)), rates_.erase(rates_.begin() + static_cast<int64_t>(i));
    for (const std::string& name : names) report.boundary += (report.boundary.empty() ? "" : ", ") + name;
    const std::set<ValueId> changed = behind(learned_);
    for (size_t i = targets_.size(); i-- > 0;)
      if (!changed.contains(targets_[i])) {
        targets_.erase(targets_.begin() + static_cast<int64_t>(i));
        if (i < outputs_) --outputs_;
      }
    if (outputs_ == 0) throw Error(ErrorKind::Unsupported, "there is no gradient of " + report.boundary + ", and no weights behind");
    for (NodeId id : graph_.order()) {
      const Node& n = graph_.node(id);
      if (std::none_of(n.outputs.begin(), n.outputs.end(), [&](ValueId v) { return changed.contains(v); })) continue;
      for (ValueId v : n.inputs)
        if (v != kNone && !changed.contains(v) && graph_.producer(v) && !graph_.constant(v) && !std::count(boundary_.begin(), boundary_.end(), v)) boundary_.push_back(v);
    }
  }

  /// Only what reaches a target can be learned.
  void open() {
    std::set<ValueId> reached(targets_.begin(), targets_.end());
    const auto& order = graph_.order();
    for (size_t i = order.size(); i-- > 0;) {
      const Node& n = graph_.node(order[i]);
      if (std::any_of(n.outputs.begin(), n.outputs.end(), [&](ValueId v) { return reached.contains(v); })) reached.insert(n.inputs.begin(), n.inputs.end());
    }
    for (size_t i = learned_.size(); i-- > 0;)
      if (!reached.contains(learned_[i])) learned_.erase(learned_.begin() + static_cast<int64_t>(i)), rates_.erase(rates_.begin() + static_cast<int64_t>(i));
    if (learned_.empty()) throw Error(ErrorKind::Unsupported, "there are no weights to train");
    for (ValueId v : graph_.inputs())
      if (!graph_.constant(v) && reached.contains(v) && (boundary_.empty() || read_behind(v))) inputs_.push_back(v);
    std::erase_if(boundary_, [&](ValueId v) { return !reached.contains(v); });
    inputs_.insert(inputs_.end(), boundary_.begin(), boundary_.end());
    Piece::Spec spec{inputs_, targets_, learned_};
    spec.inputs.insert(spec.inputs.end(), learned_.begin(), learned_.end());
    piece_ = std::make_unique<Piece>(graph_, spec);
    for (ValueId v : learned_) {
      values_.push_back(graph_.constant(v)->clone());
      adam_.emplace_back(static_cast<size_t>(values_.back().size()));
    }
  }

  /// Whether a node that isn't before the boundary reads it.
  bool read_behind(ValueId v) const {
    const std::set<ValueId> changed = behind(learned_);
    return std::ranges::any_of(graph_.value(v).uses, [&](const Use& u) {
      return u.index >= 0 && std::ranges::any_of(graph_.node(u.node).outputs, [&](ValueId o) { return changed.contains(o); });
    });
  }

  void take_samples() {
    const Session teacher(original_, {.fetches = targets_});
    std::unique_ptr<Session> front;
    if (!boundary_.empty()) front = std::make_unique<Session>(graph_, SessionOptions{.fetches = boundary_});
    data_.reset();
    std::vector<Sample> together;
    std::vector<double> signal(targets_.size(), 0);
    const auto flush = [&] {
      std::vector<std::vector<Tensor>> made(together.size()), fed(together.size());
      parallel_for(static_cast<int64_t>(together.size()), context_.threads, [&](int64_t at, int) {
        const auto i = static_cast<size_t>(at);
        made[i] = teacher.run(together[i].inputs);
        if (front) fed[i] = front->run(together[i].inputs);
      });
      for (size_t i = 0; i < together.size(); ++i) {
        Held h;
        for (ValueId v : inputs_) {
          if (const auto at = std::find(boundary_.begin(), boundary_.end(), v); at != boundary_.end()) {
            h.inputs.push_back(store_.put(fed[i][static_cast<size_t>(at - boundary_.begin())]));
            continue;
          }
          const auto it = together[i].inputs.find(graph_.value(v).name);
          if (it == together[i].inputs.end()) throw Error(ErrorKind::Unsupported, "the data has nothing for the input " + graph_.value(v).name);
          h.inputs.push_back(store_.put(it->second));
        }
        for (size_t t = 0; t < targets_.size(); ++t) {
          const Tensor wanted = slice_kept(made[i][t], targets_[t], keep_);
          signal[t] += energy(wanted);
          h.targets.push_back(store_.put(wanted));
        }
        (data_.held_out(together[i].index) ? judges_ : train_).push_back(samples_.size());
        samples_.push_back(std::move(h));
      }
      together.clear();
    };
    for (Sample s; data_.next(s);) {
      together.push_back(std::move(s));
      if (together.size() == 16) flush();
    }
    flush();
    if (judges_.empty()) throw Error(ErrorKind::Unsupported, "too few samples to hold some out");
    for (size_t t = 0; t < targets_.size(); ++t) {
      const double share = t < outputs_ ? 1.0 / static_cast<double>(outputs_) : options_.within / static_cast<double>(targets_.size() - outputs_);
      importance_.push_back(signal[t] > 0 ? share * static_cast<double>(samples_.size()) / signal[t] : 0);
    }
  }

  std::unordered_map<ValueId, Laid> feeds(const SamplePlaces& samples) const {
    std::unordered_map<ValueId, Laid> out;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      std::vector<Tensor> parts;
      for (size_t s : samples) {
        parts.push_back(store_.get(samples_[s].inputs[i]));
        if (!shared_.empty() && shared_[i]) break;
      }
      out[inputs_[i]] = stack(parts);
    }
    for (size_t i = 0; i < learned_.size(); ++i) out[learned_[i]] = values_[i];
    return out;
  }

  /// Whether a batch of two samples gives what they give one by one.
  bool joins_samples() {
    shared_.assign(inputs_.size(), true);
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const Tensor first = store_.get(samples_[0].inputs[i]);
      for (const Held& h : samples_) {
        const Tensor t = store_.get(h.inputs[i]);
        shared_[i] = shared_[i] && same_bytes(t, first);
        if (!shared_[i] && !stackable(t, first)) return false;
      }
    }
    for (size_t t = 0; t < targets_.size(); ++t)
      for (const Held& h : samples_)
        if (!stackable(store_.get(h.targets[t]), store_.get(samples_[0].targets[t]))) return false;
    if (samples_.size() < 2) return false;
    return runs_as_one(*piece_, targets_, [this](const SamplePlaces& samples) { return feeds(samples); });
  }

  /// Zeros where the outputs don't hang on a place.
  void silence_dead(Tensor& d, ValueId value, const SamplePlaces& samples) const {
    if (!options_.live) return;
    const int64_t axis = channel_axis(d.rank()), each = d.size() / static_cast<int64_t>(samples.size());
    for (size_t s = 0; s < samples.size(); ++s) {
      const std::vector<bool>* live = options_.live->of({value, axis}, static_cast<int64_t>(samples[s]));
      int64_t inner = 1;
      for (int64_t a = axis + 1; a < d.rank(); ++a) inner *= d.dim(a);
      const int64_t channels = d.dim(axis);
      if (!live || static_cast<int64_t>(live->size()) * channels != each) continue;
      float* p = d.mutable_data<float>() + static_cast<int64_t>(s) * each;
      for (int64_t i = 0; i < each; ++i)
        if (!(*live)[static_cast<size_t>(i / (inner * channels) * inner + i % inner)]) p[i] = 0;
    }
  }

  void run_together(BatchSums& sums, double batch, const SamplePlaces& samples, bool learning) const {
    Tape tape(*piece_);
    tape.forward(feeds(samples));
    std::unordered_map<ValueId, Laid> by_outputs;
    for (size_t t = 0; t < targets_.size(); ++t) {
      std::vector<Tensor> wanted;
      for (size_t s : samples) wanted.push_back(store_.get(samples_[s].targets[t]));
      const Tensor target = stack(wanted), y = tape.value(targets_[t]);
      if (y.shape() != target.shape()) throw Error(ErrorKind::Unsupported, "a value has another shape than in the original: " + graph_.value(targets_[t]).name);
      Tensor d = minus(y, target);
      if (t >= outputs_) silence_dead(d, targets_[t], samples);
      sums.noise[t] += energy(d);
      sums.signal[t] += energy(target);
      if (!learning) continue;
      scale_by(d, static_cast<float>(2 * importance_[t] / batch));
      by_outputs[targets_[t]] = d;
    }
    if (!learning) return;
    tape.backward(by_outputs);
    for (size_t i = 0; i < learned_.size(); ++i) add_to(sums.gradients[i], tape.gradient(learned_[i]));
  }

  BatchSums run_batch(const SamplePlaces& samples, bool learning) const {
    return run_in_parts(samples, joined_ ? kMostTogether : 1, learned_.size(), targets_.size(), context_.threads,
                        [&](BatchSums& sums, const SamplePlaces& together) { run_together(sums, static_cast<double>(samples.size()), together, learning); });
  }

  /// Noise over signal of the outputs on the samples held out.
  double measure() const { return run_batch(judges_, false).ratio(outputs_); }

  /// Cycles, in each of which the rate rises and falls to nothing: of twice the length after one that paid, of a lower rate after one that didn't.
  void learn(DistillReport& report) {
    Shuffle shuffle(train_.size());
    double rate = 1;
    int64_t done = 0, length = options_.first > 0 ? std::min(options_.first, options_.steps) : options_.steps;
    while (done < options_.steps) {
      const int64_t left = options_.steps - done;
      if (left < 2 * length) length = left;
      const double before = report.noise_after;
      run_cycle(shuffle, rate, done, length, report);
      report.run = done += length;
      if (report.noise_after < kWorthwhile * before) {
        length *= 2;
      } else {
        if (report.noise_after < before || rate * kSlower < kLeastRate) break;
        rate *= kSlower;
        start_again();
      }
    }
  }

  void run_cycle(Shuffle& shuffle, double rate, int64_t done, int64_t length, DistillReport& report) {
    const size_t batch = std::min(static_cast<size_t>(options_.batch), train_.size());
    const int64_t each = std::max<int64_t>(1, length / kChecks);
    for (int64_t step = 1; step <= length; ++step) {
      SamplePlaces now;
      for (size_t i : shuffle.next(batch)) now.push_back(train_[i]);
      take_step(run_batch(now, true), rate, static_cast<double>(step - 1) / static_cast<double>(length));
      context_.tell(done + step, options_.steps, "steps of repair");
      if (step % each == 0) check(report, done + step);
    }
  }

  /// From what was best.
  void start_again() {
    for (size_t i = 0; i < values_.size(); ++i) {
      values_[i] = (best_.empty() ? *graph_.constant(learned_[i]) : best_[i]).clone();
      adam_[i] = Adam(static_cast<size_t>(values_[i].size()));
    }
  }

  void check(DistillReport& report, int64_t step) {
    const double noise = measure();
    if (!(noise < report.noise_after)) return;
    report.noise_after = noise;
    report.steps = step;
    best_.clear();
    for (const Tensor& t : values_) best_.push_back(t.clone());
  }

  void take_step(const BatchSums& sums, double rate, double progress) {
    const double pi = 3.14159265358979323846;
    const auto share = static_cast<float>(rate) * static_cast<float>(progress < kWarm ? (progress + 0.5 * kWarm) / (1.5 * kWarm) : 0.5 * (1 + std::cos(pi * (progress - kWarm) / (1 - kWarm))));
    parallel_for(static_cast<int64_t>(learned_.size()), context_.threads, [&](int64_t at, int) {
      const auto i = static_cast<size_t>(at);
      adam_[i].step(values_[i].mutable_data<float>(), sums.gradients[i].data<float>(), rates_[i] * share);
    });
  }

  GraphEdit& edit_;
  const Graph& graph_;
  const Graph& original_;
  const Keep& keep_;
  VariedSamples& data_;
  const DistillOptions& options_;
  PassContext& context_;
  TensorStore store_;
  std::vector<Observed> seen_, now_;  ///< of the original, of the changed graph
  std::vector<ValueId> targets_;      ///< outputs first, then what lies between the blocks
  size_t outputs_ = 0;
  std::vector<ValueId> inputs_, boundary_, learned_;  ///< boundary_: those of the inputs that the frozen part makes
  std::vector<float> rates_;
  std::unique_ptr<Piece> piece_;
  std::vector<Tensor> values_, best_;
  std::vector<Adam> adam_;
  std::vector<Held> samples_;
  SamplePlaces train_, judges_;
  std::vector<double> importance_;  ///< of each target: one over a sample's signal, times its share
  std::vector<bool> shared_;        ///< inputs that are the same for every sample
  bool joined_ = false;
};

}  // namespace

DistillReport distill(GraphEdit& edit, const Graph& original, const std::function<std::vector<bool>(ValueId, int64_t)>& keep, VariedSamples& data, const DistillOptions& options, PassContext& context) {
  try {
    return Distiller(edit, original, keep, data, options, context).run();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::Unsupported) throw;
    DistillReport report;
    report.obstacle = e.what();
    return report;
  }
}

}  // namespace infopt

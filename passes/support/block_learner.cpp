#include "passes/support/block_learner.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/autodiff/fake_quantize.h"
#include "lib/base/error.h"
#include "lib/base/threads.h"
#include "passes/support/batch_runs.h"
#include "passes/support/batches.h"

namespace infopt {
namespace {

constexpr size_t kMostTogether = 8;  // samples that run as one
constexpr float kRate = 0.02f;       // of Adam for V, and for biases in units of the noise that rounding puts on them
constexpr float kBiasRate = 0.02f;
constexpr double kFree = 0.2;        // the share of the steps in which nothing pulls V to either side
constexpr double kBiasAlone = 0.1;   // the share of the steps, after those, that fit biases to the weights as rounded
constexpr float kPull = 8;        // of the regularizer, against the root mean square of the loss's gradients
constexpr float kSharpest = 5, kBluntest = 2;  // β of AdaRound's regularizer, from first to last

}  // namespace

BlockLearner::BlockLearner(const Graph& graph, const Block& block, std::vector<LearnedLayer> layers, const ReconstructOptions& options)
    : graph_(graph), block_(block), layers_(std::move(layers)), options_(options) {
  Piece::Spec spec{block.inputs, block.outputs, {}};
  for (const LearnedLayer& l : layers_) spec.differentiate.push_back(l.coded.weights);
  for (const LearnedLayer& l : layers_)
    if (l.coded.bias != kNone) spec.differentiate.push_back(l.coded.bias);
  spec.inputs.insert(spec.inputs.end(), spec.differentiate.begin(), spec.differentiate.end());
  piece_ = std::make_unique<Piece>(graph, spec);
}
BlockLearner::~BlockLearner() = default;

BlockReport BlockLearner::learn(BlockSamples samples) {
  samples_ = std::move(samples);
  shared_.clear();
  for (size_t i = 0; i < block_.inputs.size(); ++i)
    shared_.push_back(std::all_of(samples_.inputs.begin(), samples_.inputs.end(), [&](const auto& s) { return same_bytes(s[i], samples_.inputs[0][i]); }));
  input_layouts_.assign(block_.inputs.size(), Layout::Plain);
  output_layouts_.assign(block_.outputs.size(), Layout::Plain);
  joined_ = joins_samples();
  lay_out();
  Parameters nearest = parameters(true);
  for (size_t i = 0; i < layers_.size(); ++i) nearest[i] = layers_[i].rounding.decode(layers_[i].rounding.nearest());
  BlockReport report{block_.layers, 0, 0};
  importance_.assign(block_.outputs.size(), 0);
  SamplePlaces all(samples_.inputs.size());
  std::iota(all.begin(), all.end(), 0);
  const BatchSums before = run_batch(all, nearest, 0, false);
  for (size_t o = 0; o < block_.outputs.size(); ++o) {
    const double outputs = static_cast<double>(block_.outputs.size());
    if (before.noise[o] > 0) importance_[o] = static_cast<double>(all.size()) / before.noise[o] / outputs;
    if (before.signal[o] > 0) report.noise_before += before.noise[o] / before.signal[o] / outputs;
  }
  fit_units();
  optimize();
  report.noise_after = measure(parameters(true));
  const bool better = report.noise_after < report.noise_before;
  if (!better) report.noise_after = report.noise_before;
  codes_.clear();
  biases_.clear();
  for (size_t i = 0; i < layers_.size(); ++i) {
    const LearnedLayer& l = layers_[i];
    codes_.push_back(better ? l.rounding.codes() : l.rounding.nearest());
    biases_.push_back(l.coded.bias == kNone ? Tensor() : better ? bias(i) : l.coded.bias_values);
  }
  samples_ = {};
  return report;
}

/// Turns what convolutions read, and what is compared with what they make, channels last, once.
void BlockLearner::lay_out() {
  const auto turn = [](Tensor& t, Layout to) {
    if (t.defined()) t = Laid(t).as(to);
  };
  for (size_t i = 0; i < block_.inputs.size(); ++i) {
    const auto& uses = graph_.value(block_.inputs[i]).uses;
    const bool convolved = std::any_of(uses.begin(), uses.end(), [&](const Use& u) { return u.index == 0 && (graph_.node(u.node).is("Conv") || graph_.node(u.node).is("ConvTranspose")); });
    if (!convolved) continue;
    input_layouts_[i] = Layout::ChannelsLast;
    for (auto& s : samples_.inputs) turn(s[i], input_layouts_[i]);
    for (auto& s : samples_.float_inputs) turn(s[i], input_layouts_[i]);
  }
  Tape tape(*piece_);
  tape.forward(feeds({0}, parameters(false), 0));
  for (size_t o = 0; o < block_.outputs.size(); ++o) {
    output_layouts_[o] = tape.find(block_.outputs[o]).layout;
    for (auto& s : samples_.targets) turn(s[o], output_layouts_[o]);
  }
}

/// Whether a batch of two samples gives what they give one by one.
bool BlockLearner::joins_samples() const {
  if (samples_.inputs.size() < 2) return false;
  for (const auto& s : samples_.inputs)
    for (size_t i = 0; i < s.size(); ++i)
      if (!shared_[i] && !stackable(s[i], samples_.inputs[0][i])) return false;
  for (const auto& s : samples_.targets)
    for (size_t i = 0; i < s.size(); ++i)
      if (!stackable(s[i], samples_.targets[0][i])) return false;
  const Parameters now = parameters(false);
  return runs_as_one(*piece_, block_.outputs, [&](const SamplePlaces& samples) { return feeds(samples, now, 0); });
}

/// A bias is moved in units of what rounding to nearest changes its channel by.
void BlockLearner::fit_units() {
  bias_.assign(layers_.size(), {});
  Parameters now = parameters(false);
  Tape whole(*piece_), rounded(*piece_);
  whole.forward(feeds({0}, now, 0));
  for (size_t i = 0; i < layers_.size(); ++i) now[i] = layers_[i].rounding.decode(layers_[i].rounding.nearest());
  rounded.forward(feeds({0}, now, 0));
  for (size_t i = 0; i < layers_.size(); ++i) {
    const CodedLayer& l = layers_[i].coded;
    if (l.bias == kNone) continue;
    const Node& n = graph_.node(l.node);
    const Tensor d = minus(whole.value(n.outputs[0]), rounded.value(n.outputs[0]));
    const int64_t channels = l.bias_values.size(), inner = n.is("Conv") || n.is("ConvTranspose") ? d.size() / (d.dim(0) * d.dim(1)) : 1;
    std::vector<double> sums(static_cast<size_t>(channels), 0);
    for (int64_t k = 0; k < d.size(); ++k) sums[static_cast<size_t>(k / inner % channels)] += static_cast<double>(d.data<float>()[k]) * static_cast<double>(d.data<float>()[k]);
    Bias& b = bias_[i];
    for (double s : sums) b.unit.push_back(static_cast<float>(std::sqrt(s * static_cast<double>(channels) / static_cast<double>(d.size()))));
    b.steps.assign(b.unit.size(), 0);
    b.adam = Adam(b.unit.size());
  }
}

double BlockLearner::measure(const Parameters& parameters) const {
  SamplePlaces all(samples_.inputs.size());
  std::iota(all.begin(), all.end(), 0);
  return run_batch(all, parameters, 0, false).ratio(block_.outputs.size());
}

void BlockLearner::optimize() {
  Shuffle shuffle(samples_.inputs.size());
  const size_t batch = std::min(static_cast<size_t>(options_.batch), samples_.inputs.size());
  const int alone = static_cast<int>(options_.iterations * kBiasAlone), total = options_.iterations + alone;
  for (int i = 0; i < total; ++i) {
    const bool rounded = i >= options_.iterations;
    const BatchSums sums = run_batch(shuffle.next(batch), parameters(rounded), options_.drop ? mix_bits(static_cast<uint64_t>(i)) | 1 : 0, true);
    step(sums, rounded ? 2 : static_cast<double>(i) / options_.iterations);
  }
}

/// `progress` from 0 to 1; beyond it the weights stay.
void BlockLearner::step(const BatchSums& sums, double progress) {
  const double cooled = std::max(0.0, (progress - kFree) / (1 - kFree));
  const auto beta = static_cast<float>(kBluntest + (kSharpest - kBluntest) * (1 - cooled));
  const float pull = progress < kFree ? 0 : kPull;
  std::vector<size_t> place(layers_.size());  // of a bias among the gradients
  for (size_t i = 0, at = layers_.size(); i < layers_.size(); ++i) place[i] = layers_[i].coded.bias == kNone ? 0 : at++;
  parallel_for(static_cast<int64_t>(layers_.size()), options_.threads, [&](int64_t layer, int) {
    const auto i = static_cast<size_t>(layer);
    if (progress <= 1) layers_[i].rounding.step(sums.gradients[i].data<float>(), pull, beta, kRate);
    if (place[i] == 0) return;
    Bias& b = bias_[i];
    std::vector<float> gradient(b.unit.size());
    for (size_t k = 0; k < gradient.size(); ++k) gradient[k] = sums.gradients[place[i]].data<float>()[k] * b.unit[k];
    b.adam.step(b.steps.data(), gradient.data(), kBiasRate);
  });
}

Tensor BlockLearner::bias(size_t layer) const {
  Tensor t = layers_[layer].coded.bias_values.clone();
  if (layer < bias_.size())
    for (size_t k = 0; k < bias_[layer].unit.size(); ++k) t.mutable_data<float>()[k] += bias_[layer].unit[k] * bias_[layer].steps[k];
  return t;
}

BlockLearner::Parameters BlockLearner::parameters(bool hard) const {
  Parameters p(layers_.size());
  parallel_for(static_cast<int64_t>(layers_.size()), options_.threads, [&](int64_t i, int) {
    const SoftRounding& r = layers_[static_cast<size_t>(i)].rounding;
    p[static_cast<size_t>(i)] = hard ? r.hard() : r.soft();
  });
  for (size_t i = 0; i < layers_.size(); ++i)
    if (layers_[i].coded.bias != kNone) p.push_back(bias(i));
  return p;
}

/// With a seed, half of its elements are the float graph's.
Tensor BlockLearner::input(size_t sample, size_t input, uint64_t seed) const {
  const Tensor& x = samples_.inputs[sample][input];
  const Tensor& whole = samples_.float_inputs[sample][input];
  return seed && whole.defined() ? spare(x, whole, mix_bits(seed + sample * 64 + input)) : x;
}

std::unordered_map<ValueId, Laid> BlockLearner::feeds(const SamplePlaces& samples, const Parameters& parameters, uint64_t seed) const {
  std::unordered_map<ValueId, Laid> out;
  for (size_t i = 0; i < block_.inputs.size(); ++i) {
    std::vector<Tensor> parts;
    for (size_t s : samples)
      if (parts.empty() || !shared_[i]) parts.push_back(input(s, i, seed));
    out[block_.inputs[i]] = {stack(parts), input_layouts_[i]};
  }
  const auto& learned = piece_->spec().differentiate;
  for (size_t i = 0; i < learned.size(); ++i) out[learned[i]] = parameters[i];
  return out;
}

/// Samples that run as one batch, or a single one.
void BlockLearner::run_together(BatchSums& sums, double batch, const SamplePlaces& samples, const Parameters& parameters, uint64_t seed, bool learning) const {
  Tape tape(*piece_);
  tape.drop(seed ? mix_bits(seed + samples[0]) | 1 : 0);
  tape.forward(feeds(samples, parameters, seed));
  std::unordered_map<ValueId, Laid> by_outputs;
  for (size_t o = 0; o < block_.outputs.size(); ++o) {
    std::vector<Tensor> wanted;
    for (size_t s : samples) wanted.push_back(samples_.targets[s][o]);
    const Tensor target = stack(wanted), y = tape.find(block_.outputs[o]).as(output_layouts_[o]);
    if (y.shape() != target.shape()) throw Error(ErrorKind::Unsupported, "a block's output has another shape than in the float graph");
    Tensor d = minus(y, target);
    sums.noise[o] += energy(d);
    sums.signal[o] += energy(target);
    if (!learning) continue;
    const auto by = static_cast<float>(2 * importance_[o] / batch);
    scale_by(d, by);
    by_outputs[block_.outputs[o]] = {d, output_layouts_[o]};
  }
  if (!learning) return;
  tape.backward(by_outputs);
  const auto& learned = piece_->spec().differentiate;
  for (size_t i = 0; i < learned.size(); ++i) add_to(sums.gradients[i], tape.gradient(learned[i]));
}

BatchSums BlockLearner::run_batch(const SamplePlaces& samples, const Parameters& parameters, uint64_t seed, bool learning) const {
  return run_in_parts(samples, joined_ ? kMostTogether : 1, parameters.size(), block_.outputs.size(), options_.threads,
                      [&](BatchSums& sums, const SamplePlaces& together) { run_together(sums, static_cast<double>(samples.size()), together, parameters, seed, learning); });
}

}  // namespace infopt

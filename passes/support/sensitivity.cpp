#include "passes/support/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <mutex>

#include "calibration/observer.h"
#include "calibration/staged_run.h"
#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "lib/ir/edit.h"
#include "passes/support/layers.h"
#include "passes/support/signal_to_noise.h"
#include "passes/support/site_causes.h"
#include "passes/support/weight_grid.h"

namespace infopt {
namespace {

struct Difference {
  NoiseSums sums;
  double kl = 0;
  int64_t rows = 0;
};

/// KL(softmax(a) ‖ softmax(b)) over the last axis, summed over the rows.
void add_divergence(Difference& d, const float* a, const float* b, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; ++r, a += n, b += n) {
    const double top_a = static_cast<double>(*std::max_element(a, a + n)), top_b = static_cast<double>(*std::max_element(b, b + n));
    double sum_a = 0, sum_b = 0, cross = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double x = static_cast<double>(a[i]) - top_a, y = static_cast<double>(b[i]) - top_b, e = std::exp(x);
      sum_a += e;
      sum_b += std::exp(y);
      cross += e > 0 ? e * (x - y) : 0;
    }
    d.kl += std::max(0.0, cross / sum_a - std::log(sum_a) + std::log(sum_b));
  }
  d.rows += rows;
}

Difference difference(const Tensor& reference, const Tensor& other, bool divergence) {
  Difference out;
  out.sums.add(reference, other);
  if (!divergence || reference.shape() != other.shape() || reference.rank() < 1 || reference.dim(-1) < 2 || !std::isfinite(out.sums.noise)) return out;
  const Tensor a = cast(reference, DType::F32), b = cast(other, DType::F32);
  add_divergence(out, a.data<float>(), b.data<float>(), a.size() / a.dim(-1), a.dim(-1));
  return out;
}

/// A recurrent layer's weights, (directions, rows, columns), rounded as they are stored: whole rows with one scale for all directions, blocks each with their own.
Tensor round_recurrent(const Tensor& stored, const WeightFormat& format) {
  const int64_t directions = stored.dim(0), rows = stored.dim(1), columns = stored.dim(2);
  const auto values = to_vector<float>(stored);
  if (format.block > 0) return cast(Tensor::of<float>(stored.shape(), decode(round_to_nearest(values, fit_grid(values, directions * rows, columns, format, GridFit::Extremes)))), stored.dtype());
  std::vector<float> by_row(values.size()), back(values.size());
  auto place = [&](int64_t d, int64_t r, bool in_file) { return static_cast<size_t>((in_file ? d * rows + r : r * directions + d) * columns); };
  auto reorder = [&](const std::vector<float>& from, std::vector<float>& to, bool file) {
    for (int64_t d = 0; d < directions; ++d)
      for (int64_t r = 0; r < rows; ++r) std::copy_n(from.begin() + static_cast<int64_t>(place(d, r, file)), columns, to.begin() + static_cast<int64_t>(place(d, r, !file)));
  };
  reorder(values, by_row, true);
  reorder(decode(round_to_nearest(by_row, fit_grid(by_row, rows, directions * columns, format, GridFit::Extremes))), back, false);
  return cast(Tensor::of<float>(stored.shape(), back), stored.dtype());
}

class Prober {
 public:
  Prober(const Graph& graph, Calibration& calibration, const Profile& profile, const SensitivityOptions& options)
      : graph_(graph), calibration_(calibration), profile_(profile), options_(options), layers_(find_layers(graph)) {}

  std::vector<Site> run() {
    seen_ = calibration_.observe(graph_);
    std::erase_if(layers_, [&](const Layer& l) { return !observed(graph_.node(l.node).input(0)); });
    for (ValueId v : graph_.outputs())
      if (observed(v) && is_float(seen_[static_cast<size_t>(v)].dtype)) outputs_.push_back(v);
    if (outputs_.empty()) throw Error(ErrorKind::Unsupported, "none of the model's outputs can be computed by infopt in float");
    collect();
    fetched_ = outputs_;
    if (options_.task) add_other_outputs();
    std::vector<ValueId> targets = fetched_;
    for (const Layer& l : layers_) targets.push_back(graph_.node(l.node).input(0));
    find_recurrent();
    for (NodeId n : recurrent_) targets.push_back(graph_.node(n).input(0));
    StagedRun staged(graph_, options_.compared ? *options_.compared : calibration_, targets, {.samples = options_.samples, .threads = options_.threads});
    reference_.resize(static_cast<size_t>(staged.samples()));
    staged.peek(graph_, fetched_, [&](int64_t sample, const std::vector<Tensor>& made) { reference_[static_cast<size_t>(sample)] = made; });
    if (options_.task) reference_figures_ = in_graph_order(reference_);
    int64_t done = 0;
    const auto total = static_cast<int64_t>(layers_.size() + recurrent_.size());
    auto layer = layers_.begin();
    for (NodeId node : graph_.order()) {
      const bool is_layer = layer != layers_.end() && layer->node == node;
      if (!is_layer && !std::count(recurrent_.begin(), recurrent_.end(), node)) continue;
      const ValueId input = graph_.node(node).input(0);
      if (!std::count(reached_.begin(), reached_.end(), input)) {
        reached_.push_back(input);
        staged.advance({input}, [](int64_t, const std::vector<Tensor>&) {});
        probe_activation(staged, input);
      }
      if (is_layer) probe_weights(staged, *layer++);
      else probe_recurrent(staged, node);
      trim_memory();
      if (options_.progress) options_.progress(++done, total);
    }
    return std::move(sites_);
  }

 private:
  bool observed(ValueId v) const { return v != kNone && seen_[static_cast<size_t>(v)].dtype != DType::Undefined; }

  void collect() {
    std::vector<CollectRequest> requests;
    for (const Layer& l : layers_) requests.push_back({graph_.node(l.node).input(0), l.input_axis});
    statistics_ = calibration_.collect(graph_, requests).tensors;
  }

  /// The task's figure may read outputs that aren't of floats.
  void add_other_outputs() {
    for (ValueId v : graph_.outputs()) {
      if (!observed(v)) throw Error(ErrorKind::Unsupported, "the task's metric can't be measured: the output '" + graph_.value(v).name + "' can't be computed by infopt");
      if (std::find(fetched_.begin(), fetched_.end(), v) == fetched_.end()) fetched_.push_back(v);
    }
  }

  /// From the order of fetched_ to that of the graph's outputs.
  std::vector<std::vector<Tensor>> in_graph_order(const std::vector<std::vector<Tensor>>& fetched) const {
    std::vector<std::vector<Tensor>> out(fetched.size());
    for (size_t s = 0; s < fetched.size(); ++s)
      for (ValueId v : graph_.outputs()) out[s].push_back(fetched[s][static_cast<size_t>(std::find(fetched_.begin(), fetched_.end(), v) - fetched_.begin())]);
    return out;
  }

  std::string name_of(ValueId v) const { return graph_.value(v).name.empty() && graph_.producer(v) ? graph_.label(graph_.producer(v)->id) : graph_.value(v).name; }

  std::string pattern_of(const Layer& l) const { return graph_.node(l.node).name.empty() ? graph_.value(l.weights).name : graph_.node(l.node).name; }

  void find_recurrent() {
    for (NodeId id : graph_.order()) {
      const Node& n = graph_.node(id);
      const Tensor* w = n.is("LSTM") || n.is("GRU") || n.is("RNN") ? graph_.constant(n.input(1)) : nullptr;
      const Tensor* r = w ? graph_.constant(n.input(2)) : nullptr;
      if (r && is_float(w->dtype()) && w->rank() == 3 && is_float(r->dtype()) && r->rank() == 3 && observed(n.input(0))) recurrent_.push_back(id);
    }
  }

  void probe_activation(const StagedRun& staged, ValueId v) {
    if (statistics_.find(v) == statistics_.end()) return;
    Site site{name_of(v), false, {}, {}, {}, {}};
    std::vector<NodeId> readers;
    for (const Layer& l : layers_)
      if (graph_.node(l.node).input(0) == v) {
        readers.push_back(l.node);
        site.readers.push_back(graph_.label(l.node));
        site.patterns.push_back(pattern_of(l));
      }
    const auto it = statistics_.find(v);
    if (it == statistics_.end() || it->second.elements == 0 || !is_float(seen_[static_cast<size_t>(v)].dtype)) return;
    for (const Precision& p : options_.precisions) {
      if (p.weights) continue;
      const auto changed = graph_.clone();
      round_input(*changed, v, readers, it->second, p);
      site.damage.push_back(measure(staged, *changed, p));
    }
    site.causes = causes_of(it->second, options_.percentile);
    if (!site.damage.empty()) sites_.push_back(std::move(site));
  }

  /// x → clip(round(x / scale), low − zero, high − zero) · scale, for those readers.
  void round_input(Graph& changed, ValueId v, const std::vector<NodeId>& readers, const TensorStatistics& s, const Precision& p) const {
    ObserverOptions o;
    o.percentile = options_.percentile;
    o.symmetric = profile_.activations_symmetric;
    const Range range = find_observer(options_.method).range(s, o);
    const double levels = std::ldexp(1.0, p.bits) - 1, low = std::min(range.low, 0.0), high = std::max(range.high, 0.0);
    const double symmetric = std::floor(levels / 2);
    double scale = o.symmetric ? std::max(-low, high) / symmetric : (high - low) / levels;
    if (!(scale > 0)) scale = 1;
    const double zero = o.symmetric ? 0 : std::nearbyint(-low / scale), least = o.symmetric ? -symmetric : -zero, most = o.symmetric ? symmetric : levels - zero;
    GraphEdit edit(changed);
    const DType type = seen_[static_cast<size_t>(v)].dtype;
    auto constant = [&](double value) { return edit.add_constant(cast(Tensor::scalar(value), type)); };
    const ValueId steps = edit.add({.op = "Round"}, {edit.add({.op = "Div"}, {v, constant(scale)})});
    const ValueId clipped = edit.add({.op = "Min"}, {edit.add({.op = "Max"}, {steps, constant(least)}), constant(most)});
    const ValueId rounded = edit.add({.op = "Mul"}, {clipped, constant(scale)});
    for (NodeId r : readers) edit.set_input(r, 0, rounded);
    edit.finish();
  }

  /// Of its inputs and of its state: a group of a recipe keeps both or none.
  void probe_recurrent(const StagedRun& staged, NodeId node) {
    const Node& n = graph_.node(node);
    Site site{graph_.label(node), true, {graph_.label(node)}, {n.name.empty() ? graph_.value(n.input(1)).name : n.name}, {}, {}};
    for (const Precision& p : options_.precisions) {
      if (!p.weights) continue;
      const auto changed = graph_.clone();
      {
        GraphEdit edit(*changed);
        for (size_t input : {1u, 2u}) edit.set_input(node, input, edit.add_constant(round_recurrent(*graph_.constant(n.input(input)), format_of(p))));
      }
      site.damage.push_back(measure(staged, *changed, p));
    }
    if (!site.damage.empty()) sites_.push_back(std::move(site));
  }

  static WeightFormat format_of(const Precision& p) { return {p.bits == 8 ? DType::I8 : p.bits == 4 ? DType::I4 : DType::I2, p.block, true}; }

  void probe_weights(const StagedRun& staged, const Layer& l) {
    Site site{graph_.label(l.node), true, {graph_.label(l.node)}, {pattern_of(l)}, {}, {}};
    const Tensor& stored = *graph_.constant(l.weights);
    const std::vector<float> weights = read_weights(l, stored);
    for (const Precision& p : options_.precisions) {
      if (!p.weights || (p.block > 0 && l.convolution)) continue;
      const CodedWeights coded = round_to_nearest(weights, fit_grid(weights, l.out, l.in * l.taps, format_of(p), GridFit::Extremes));
      const auto changed = graph_.clone();
      {
        GraphEdit edit(*changed);
        edit.set_input(l.node, 1, edit.add_constant(cast(write_weights(l, stored.shape(), decode(coded)), stored.dtype())));
      }
      site.damage.push_back(measure(staged, *changed, p));
    }
    const auto it = statistics_.find(graph_.node(l.node).input(0));
    site.causes = causes_of(graph_, l, weights, it == statistics_.end() ? nullptr : &it->second, profile_);
    if (!site.damage.empty()) sites_.push_back(std::move(site));
  }

  Damage measure(const StagedRun& staged, const Graph& changed, const Precision& p) const {
    std::vector<std::vector<Difference>> parts(reference_.size());
    std::vector<std::vector<Tensor>> rounded(options_.task ? reference_.size() : 0);
    staged.peek(changed, fetched_, [&](int64_t sample, const std::vector<Tensor>& made) {
      const auto s = static_cast<size_t>(sample);
      if (options_.task) rounded[s] = made;
      for (size_t o = 0; o < outputs_.size(); ++o) parts[s].push_back(difference(reference_[s][o], made[o], o == 0));
    });
    Damage damage{p, {}, {}, {}};
    if (options_.task) damage.drop = options_.task(reference_figures_, in_graph_order(rounded));
    for (size_t o = 0; o < outputs_.size(); ++o) {
      Difference sum;
      for (const auto& part : parts) {  // in the order of the samples
        sum.sums.add(part[o].sums);
        sum.kl += part[o].kl, sum.rows += part[o].rows;
      }
      if (o == 0 && sum.rows > 0) damage.kl = sum.kl / static_cast<double>(sum.rows);
      const auto db = sum.sums.decibels();
      if (db && (!damage.sqnr_db || *db < *damage.sqnr_db)) damage.sqnr_db = db;
    }
    return damage;
  }

  const Graph& graph_;
  Calibration& calibration_;
  const Profile& profile_;
  const SensitivityOptions& options_;
  std::vector<Layer> layers_;
  std::vector<NodeId> recurrent_;
  std::vector<Observed> seen_;
  std::vector<ValueId> outputs_, reached_;
  std::vector<ValueId> fetched_;  ///< outputs_, and behind them what else the task's figure reads
  std::map<ValueId, TensorStatistics> statistics_;
  std::vector<std::vector<Tensor>> reference_, reference_figures_;
  std::vector<Site> sites_;
};

std::optional<double> noise_at(const Site& site, const std::string& precision) {
  for (const Damage& d : site.damage)
    if (d.precision.name == precision && d.sqnr_db) return std::pow(10.0, -*d.sqnr_db / 10);
  return std::nullopt;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

}  // namespace

Precision parse_precision(const std::string& name) {
  int bits = 0, end = 0;
  long long block = 0;
  const auto length = static_cast<int>(name.size());
  const bool weights = !name.empty() && name[0] == 'w';
  if (weights && std::sscanf(name.c_str(), "w%d%n", &bits, &end) == 1 && (bits == 8 || bits == 4 || bits == 2)) {
    if (end == length) return {name, true, bits, 0};
    if (std::sscanf(name.c_str() + end, "b%lld%n", &block, &bits) == 1 && end + bits == length && block >= 16 && block <= 65536 && (block & (block - 1)) == 0)
      return {name, true, name[1] - '0', block};
  } else if (std::sscanf(name.c_str(), "a%d%n", &bits, &end) == 1 && end == length && (bits == 8 || bits == 16)) {
    return {name, false, bits, 0};
  }
  throw Error(ErrorKind::Usage, "there is no precision '" + name + "'; there are w8, w4, w2, these with a block size (w4b32: a power of 2 from 16 on), a8 and a16");
}

std::vector<Site> find_sensitivity(const Graph& graph, Calibration& calibration, const Profile& profile, const SensitivityOptions& options) {
  return Prober(graph, calibration, profile, options).run();
}

constexpr double kMended = 1.0 / 16;  // of 8 bits' noise: where 16 leave more, it isn't the width

std::string groups_that_mend(const std::vector<Site>& sites, const std::vector<std::string>& precisions, double target_db) {
  struct Entry { double noise; const Site* site; };
  std::vector<Entry> entries;
  double total = 0;
  for (const Site& s : sites)
    for (const std::string& p : precisions)
      if (const auto n = noise_at(s, p)) {
        entries.push_back({*n, &s});
        total += *n;
      }
  const double allowed = std::pow(10.0, -target_db / 10);
  if (total <= allowed) return {};
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.noise > b.noise; });
  std::string weights, activations, wide;
  for (const Entry& e : entries) {
    if (total <= allowed) break;
    total -= e.noise;
    const auto finer = noise_at(*e.site, "a16");
    const bool mends = finer && *finer < kMended * e.noise;
    if (mends && !e.site->weights) total += *finer;
    for (const std::string& reader : e.site->patterns) {
      std::string& list = e.site->weights ? weights : mends ? wide : activations;
      if (list.find(quoted(reader)) == std::string::npos) list += (list.empty() ? "" : ", ") + quoted(reader);
    }
  }
  std::string text = "groups:\n";
  if (!wide.empty()) text += "  - name: wide-activations\n    nodes: [" + wide + "]\n    activations: int16\n";
  if (!activations.empty()) text += "  - name: keep-activations\n    nodes: [" + activations + "]\n    activations: float32\n";
  if (!weights.empty()) text += "  - name: keep-weights\n    nodes: [" + weights + "]\n    weights: float32\n";
  return text;
}

}  // namespace infopt

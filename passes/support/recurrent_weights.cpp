#include "passes/support/recurrent_weights.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "calibration/calibration.h"
#include "calibration/staged_run.h"
#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "passes/support/captured_weights.h"
#include "passes/support/dense.h"
#include "passes/support/gptq.h"
#include "passes/support/groups.h"
#include "passes/support/output_judge.h"
#include "passes/support/plan_weights.h"

namespace infopt {
namespace {

constexpr int64_t kSamples = 32;  ///< whose steps show what the weights multiply

bool is_recurrent(const Node& n) { return n.is("LSTM") || n.is("GRU") || n.is("RNN"); }

/// How weights are seen as W[out][k], and where they lie.
struct View {
  int64_t directions = 1, out = 0, k = 0;
  bool joined = false;   ///< a row's columns of all directions in one
  bool columns = false;  ///< stored [k][out]

  View(const RecurrentWeights& w, const Shape& shape, bool blocks) {
    if (shape.size() == 2) {
      out = shape[static_cast<size_t>(w.out_axis)], k = shape[static_cast<size_t>(1 - w.out_axis)], columns = w.out_axis == 1;
      return;
    }
    directions = shape[0], joined = !blocks;
    out = joined ? shape[1] : shape[0] * shape[1];
    k = joined ? shape[0] * shape[2] : shape[2];
  }
  size_t at(int64_t o, int64_t i) const {
    if (columns) return static_cast<size_t>(i * out + o);
    if (!joined) return static_cast<size_t>(o * k + i);
    const int64_t width = k / directions;
    return static_cast<size_t>((i / width * out + o) * width + i % width);
  }
};

/// Scales or zero points, [out][blocks], in the shape that DequantizeLinear wants.
Tensor parameters(const std::vector<float>& values, const WeightGrid& grid, const View& view, const Shape& stored) {
  if (grid.blocks == 1 && (stored.size() == 2 || view.joined)) return Tensor::vector(values);
  if (stored.size() == 3) return Tensor::of<float>({stored[0], stored[1], grid.blocks}, values);
  if (!view.columns) return Tensor::of<float>({grid.out, grid.blocks}, values);
  std::vector<float> turned(values.size());
  for (int64_t o = 0; o < grid.out; ++o)
    for (int64_t b = 0; b < grid.blocks; ++b) turned[static_cast<size_t>(b * grid.out + o)] = values[static_cast<size_t>(o * grid.blocks + b)];
  return Tensor::of<float>({grid.blocks, grid.out}, turned);
}

Tensor codes_of(const CodedWeights& coded, const View& view, const Shape& stored) {
  const DType type = coded.grid.format.dtype;
  Tensor wide(DType::I16, stored);
  auto* p = wide.mutable_data<int16_t>();
  for (int64_t o = 0; o < view.out; ++o)
    for (int64_t i = 0; i < view.k; ++i) p[view.at(o, i)] = coded.codes[static_cast<size_t>(o * view.k + i)];
  if (type != DType::F8E4M3FN && type != DType::F8E5M2) return cast(wide, type);
  Tensor bits(type, stored);
  for (int64_t i = 0; i < wide.size(); ++i) reinterpret_cast<uint8_t*>(bits.mutable_raw())[i] = static_cast<uint8_t>(p[i]);
  return bits;
}

/// H of what W multiplies, X, or of what R does: the states that the layer gives out (those of the step before, and what a GRU's reset gate leaves of
/// them, are like them). From rows of `x`, whose axis `directions` is the directions'; −1: none.
void add_moments(const Tensor& x, int64_t axis, RecurrentMoments& m) {
  const int64_t k = x.dim(x.rank() - 1), count = static_cast<int64_t>(m.h.size());
  int64_t inner = 1;
  for (int64_t i = axis + 1; axis >= 0 && i < x.rank() - 1; ++i) inner *= x.dim(i);
  std::vector<float> rows;
  for (int64_t d = 0; d < count; ++d) {
    rows.clear();
    for (int64_t r = 0; r < x.size() / k; ++r)
      if (axis < 0 || r / inner % count == d) rows.insert(rows.end(), x.data<float>() + r * k, x.data<float>() + (r + 1) * k);
    add_gram(rows.data(), static_cast<int64_t>(rows.size()) / k, k, m.h[static_cast<size_t>(d)].data());
  }
  m.places += x.size() / k / (axis < 0 ? 1 : count);
}

/// W[out][k] of all directions, or one after the other, to nearest or, where H is known, by GPTQ. What is zero stays zero.
CodedWeights round_rows(const std::vector<float>& rows, const View& view, const WeightFormat& format, const RecurrentMoments& m, int threads) {
  if (m.h.empty()) return round_to_nearest(rows, fit_grid(rows, view.out, view.k, format, GridFit::LeastSquares));
  GptqOptions options;
  options.threads = threads;
  const int64_t width = view.k / (view.joined ? view.directions : 1);
  options.damp = damp_for(options.damp, width, m.places);
  const auto hold_zeros = [&](const std::vector<float>& w) {
    options.keep.clear();
    if (std::find(w.begin(), w.end(), 0.0f) != w.end()) std::ranges::transform(w, std::back_inserter(options.keep), [](float x) { return static_cast<uint8_t>(x != 0); });
  };
  if (view.joined) {  // what directions multiply has nothing to do with each other
    std::vector<float> whole(static_cast<size_t>(view.k * view.k), 0);
    for (int64_t d = 0; d < view.directions; ++d)
      for (int64_t i = 0; i < width; ++i)
        for (int64_t j = 0; j < width; ++j) whole[static_cast<size_t>((d * width + i) * view.k + d * width + j)] = m.h[static_cast<size_t>(d)][static_cast<size_t>(i * width + j)];
    hold_zeros(rows);
    return gptq(rows, view.out, whole, format, options);
  }
  CodedWeights all;
  const int64_t each = view.out / view.directions;
  for (int64_t d = 0; d < view.directions; ++d) {
    const auto from = rows.begin() + d * each * view.k;
    const std::vector<float> own(from, from + each * view.k);
    hold_zeros(own);
    CodedWeights part = gptq(own, each, m.h[static_cast<size_t>(d)], format, options);
    if (d == 0) {
      all = std::move(part);
      continue;
    }
    all.codes.insert(all.codes.end(), part.codes.begin(), part.codes.end());
    all.grid.scales.insert(all.grid.scales.end(), part.grid.scales.begin(), part.grid.scales.end());
    all.grid.zeros.insert(all.grid.zeros.end(), part.grid.zeros.begin(), part.grid.zeros.end());
  }
  all.grid.out = view.out;
  return all;
}

WeightFormat fitted(const RecurrentWeights& w, const Shape& shape, WeightFormat format) {
  const int64_t columns = shape.size() == 2 ? shape[static_cast<size_t>(1 - w.out_axis)] : shape[2];
  if (format.block >= columns || format.block < 0) format.block = 0;
  return format;
}

struct Coded {
  Tensor codes, scales, zeros;  ///< zeros: undefined where all are 0 and the type is an integer's
  std::vector<Attribute> attributes;
};

Coded code(const Graph& graph, const RecurrentWeights& w, const WeightFormat& format, const RecurrentMoments& m, int threads) {
  const Tensor& old = *graph.constant(w.value);
  const Shape& shape = old.shape();
  const WeightFormat own = fitted(w, shape, format);
  const View view(w, shape, own.block > 0);
  const std::vector<float> stored = to_vector<float>(old);
  std::vector<float> rows(stored.size());
  for (int64_t o = 0; o < view.out; ++o)
    for (int64_t i = 0; i < view.k; ++i) rows[static_cast<size_t>(o * view.k + i)] = stored[view.at(o, i)];
  CodedWeights coded;
  try {
    coded = round_rows(rows, view, own, m, threads);
  } catch (const Error& e) {
    throw e.within(graph.label(w.reader));
  }
  const WeightGrid& grid = coded.grid;
  Coded out{codes_of(coded, view, shape), cast(parameters(grid.scales, grid, view, shape), old.dtype()), {}, {}};
  const bool floats = CodeSpacing::of(own.dtype).digits > 0;
  if (floats || std::any_of(grid.zeros.begin(), grid.zeros.end(), [](int32_t z) { return z != 0; }))
    out.zeros = floats ? Tensor::zeros(own.dtype, out.scales.shape()) : cast(parameters({grid.zeros.begin(), grid.zeros.end()}, grid, view, shape), own.dtype);
  if (own.block > 0) out.attributes = {{"axis", shape.size() == 3 ? int64_t{2} : 1 - w.out_axis, {}}, {"block_size", grid.block, {}}};
  else out.attributes = {{"axis", w.out_axis, {}}};
  return out;
}

std::string describe_any(const WeightFormat& format) {
  return CodeSpacing::of(format.dtype).digits > 0 ? std::string(name_of(format.dtype)) + ", per channel" : describe(format);
}

class Store {
 public:
  Store(GraphEdit& edit, PassContext& context, const RecurrentOptions& options) : edit_(edit), graph_(edit.graph()), context_(context), options_(options) {
    const auto groups = assign_groups(graph_, context.groups);
    for (const RecurrentWeights& w : find_recurrent_weights(graph_, options.min_weights)) {
      const GroupRule* rule = groups[static_cast<size_t>(w.reader)];
      if (rule && (rule->form == "float" || (!rule->weights.empty() && rule->weights != "float8" && weight_type(rule->weights) == DType::Undefined))) continue;
      weights_.push_back(w);
    }
  }

  void run() {
    if (weights_.empty() || options_.formats.empty()) return;
    choice_.assign(weights_.size(), 0);
    original_ = graph_.clone();
    log_ = edit_.log();
    look();
    if (!enough(write())) choose();
    for (size_t f = 0; f <= options_.formats.size(); ++f)
      if (const auto count = std::count(choice_.begin(), choice_.end(), f); count > 0)
        edit_.note("weights of recurrent layers: " + std::to_string(count) + " of " + std::to_string(choice_.size()) + (f < options_.formats.size() ? " as " + describe_any(options_.formats[f]) : " stay in float"));
  }

 private:
  bool enough(const std::optional<double>& db) const { return !db || *db >= options_.min_sqnr_db; }

  /// What the float graph gives out, and what its weights multiply.
  void look() {
    if (!context_.calibration) return;
    const std::vector<Observed> seen = context_.calibration->observe(graph_);
    judge_.emplace(*original_, *context_.calibration, context_.threads);
    moments_.resize(weights_.size());
    for (size_t i = 0; i < weights_.size() && options_.gptq; ++i) {
      moments_[i] = see_recurrent_moments(*original_, seen, weights_[i], *context_.calibration, context_.threads);
      context_.tell(static_cast<int64_t>(i) + 1, static_cast<int64_t>(weights_.size()), "recurrent layers' weights looked at");
    }
    trim_memory();
  }

  /// Anew, as choice_ says; what the outputs have then.
  std::optional<double> write() {
    if (written_) {
      edit_.restore(*original_);
      edit_.log() = log_;
    }
    written_ = true;
    for (size_t i = 0; i < weights_.size(); ++i) {
      if (choice_[i] == options_.formats.size()) continue;
      auto [it, fresh] = coded_.try_emplace({i, choice_[i]});
      if (fresh) it->second = code(graph_, weights_[i], options_.formats[choice_[i]], moments_.empty() ? RecurrentMoments{} : moments_[i], context_.threads);
      const Coded& c = it->second;
      std::vector<ValueId> inputs{edit_.add_constant(c.codes), edit_.add_constant(c.scales)};
      if (c.zeros.defined()) inputs.push_back(edit_.add_constant(c.zeros));
      edit_.replace_uses(weights_[i].value, edit_.add({.op = "DequantizeLinear", .attributes = c.attributes}, std::move(inputs)));
    }
    edit_.finish();
    return judge_ ? judge_->decibels(graph_) : std::nullopt;
  }

  /// Those that add least keep a format while all that do add no more than half of what is allowed.
  void choose() {
    const double allowed = std::pow(10, -options_.min_sqnr_db / 10) / 2;
    for (size_t f = 0; f < options_.formats.size(); ++f) {
      std::vector<double> noise(weights_.size(), 0);
      std::vector<size_t> order;
      for (size_t i = 0; i < weights_.size(); ++i)
        if (choice_[i] == f) order.push_back(i);
      const std::vector<size_t> all = choice_;
      for (size_t at = 0; at < order.size(); ++at) {
        const size_t i = order[at];
        choice_.assign(weights_.size(), options_.formats.size());
        choice_[i] = f;
        const auto db = write();
        noise[i] = !db ? 0 : std::pow(10, -*db / 10);
        context_.tell(static_cast<int64_t>(at) + 1, static_cast<int64_t>(order.size()), "recurrent layers' weights tried");
      }
      choice_ = all;
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return noise[a] < noise[b]; });
      double sum = 0;
      for (size_t i : order)
        if ((sum += noise[i]) > allowed) choice_[i] = f + 1;
      if (enough(write())) return;
    }
  }

  GraphEdit& edit_;
  const Graph& graph_;
  PassContext& context_;
  const RecurrentOptions& options_;
  std::vector<RecurrentWeights> weights_;
  std::vector<size_t> choice_;  ///< of each, its format's place; formats.size(): float
  std::vector<RecurrentMoments> moments_;
  std::map<std::pair<size_t, size_t>, Coded> coded_;  ///< by place and format
  std::optional<OutputJudge> judge_;
  std::shared_ptr<Graph> original_;
  EditLog log_;
  bool written_ = false;
};

}  // namespace

std::vector<RecurrentWeights> find_recurrent_weights(const Graph& graph, int64_t min_weights) {
  std::vector<RecurrentWeights> found;
  std::vector<bool> taken(graph.value_capacity(), false);
  auto add = [&](ValueId v, NodeId reader, int64_t axis) {
    const Tensor* t = graph.constant(v);
    if (!t || taken[static_cast<size_t>(v)] || !is_float(t->dtype()) || t->size() < min_weights || graph.is_output(v)) return;
    taken[static_cast<size_t>(v)] = true;
    const auto& uses = graph.value(v).uses;
    const bool alone = std::all_of(uses.begin(), uses.end(), [&](const Use& u) {
      return t->rank() == 2 ? u.index == kCapture : u.index != kGraphOutput && (u.index == 1 || u.index == 2) && is_recurrent(graph.node(u.node));
    });
    if (alone) found.push_back({v, reader, axis});
  };
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    for (size_t input : {1u, 2u})
      if (const Tensor* t = is_recurrent(n) ? graph.constant(n.input(input)) : nullptr; t && t->rank() == 3) add(n.input(input), id, 1);
    for (const auto& [value, axis] : captured_weights(graph, n)) add(value, id, axis);
  }
  return found;
}

RecurrentMoments see_recurrent_moments(const Graph& graph, const std::vector<Observed>& seen, const RecurrentWeights& w, Calibration& calibration, int threads) {
  const Tensor& stored = *graph.constant(w.value);
  if (stored.rank() != 3) return {};
  const Node& n = graph.node(w.reader);
  const bool state = n.input(1) != w.value;
  const ValueId x = state ? n.outputs[0] : n.input(0);
  const int64_t k = stored.dim(2), axis = !state ? -1 : n.i("layout", 0) != 0 ? 2 : 1;
  if (x == kNone || graph.constant(x) || seen[static_cast<size_t>(x)].dtype != DType::F32 || seen[static_cast<size_t>(x)].shape.empty() || seen[static_cast<size_t>(x)].shape.back() != k) return {};
  RecurrentMoments m{std::vector(static_cast<size_t>(stored.dim(0)), std::vector<float>(static_cast<size_t>(k * k), 0))};
  StagedRun run(graph, calibration, {x}, {.samples = kSamples, .threads = threads});
  std::vector<Tensor> values(static_cast<size_t>(run.samples()));
  run.advance({x}, [&](int64_t sample, const std::vector<Tensor>& made) { values[static_cast<size_t>(sample)] = made[0]; });
  for (const Tensor& t : values) add_moments(t, axis, m);
  for (auto& one : m.h)
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < i; ++j) one[static_cast<size_t>(j * k + i)] = one[static_cast<size_t>(i * k + j)];
  return m;
}

void store_recurrent_weights(GraphEdit& edit, PassContext& context, const RecurrentOptions& options) { Store(edit, context, options).run(); }

void share_with_bodies(GraphEdit& edit, std::span<const Layer> layers) {
  const Graph& graph = edit.graph();
  for (const Layer& l : layers) {
    if (!graph.alive(l.node) || !graph.value_alive(l.weights)) continue;
    const auto uses = graph.value(l.weights).uses;
    const Node* decoded = graph.producer(graph.node(l.node).input(1));
    const bool bodies = !uses.empty() && std::all_of(uses.begin(), uses.end(), [](const Use& u) { return u.index == kCapture; });
    if (bodies && decoded && decoded->is("DequantizeLinear")) edit.replace_uses(l.weights, decoded->outputs[0]);
  }
}

}  // namespace infopt

#include "passes/support/awq.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "passes/support/gptq.h"
#include "passes/support/layers.h"

namespace infopt {
namespace {

constexpr int64_t kMostRows = 128;  ///< of a product, in a search
constexpr int kSteps = 10;          ///< of α

/// Every so many rows, so that no more than kMostRows are left.
ScaledProduct thinned(const ScaledProduct& p, int64_t k) {
  const int64_t step = (p.out + kMostRows - 1) / kMostRows;
  if (step <= 1) return p;
  ScaledProduct out{{}, 0, p.format};
  for (int64_t o = 0; o < p.out; o += step, ++out.out) out.weights.insert(out.weights.end(), p.weights.begin() + o * k, p.weights.begin() + (o + 1) * k);
  return out;
}

/// ‖(Ŵ'·diag(1/s) − W)·x‖².
double error_with(const ScaledProduct& p, const std::vector<float>& s, const std::vector<float>& h, GridFit fit, int threads) {
  const size_t k = s.size();
  std::vector<float> scaled = p.weights;
  std::vector<double> importance(k);
  for (size_t i = 0; i < k; ++i) importance[i] = static_cast<double>(h[i * k + i]) / (static_cast<double>(s[i]) * static_cast<double>(s[i]));
  for (size_t i = 0; i < scaled.size(); ++i) scaled[i] *= s[i % k];
  std::vector<float> values = decode(round_to_nearest(scaled, fit_grid(scaled, p.out, static_cast<int64_t>(k), p.format, fit, importance)));
  for (size_t i = 0; i < values.size(); ++i) values[i] /= s[i % k];
  return quadratic_error(p.weights, values, p.out, h, threads);
}

/// Moves a scaling up the graph until something takes it.
class Divider {
 public:
  Divider(const Graph& graph, const std::vector<float>& s) : graph_(graph), s_(s) {}

  /// Collects the edits; false where the value's maker takes none.
  bool through(ValueId value, int depth = 0) {
    const Node* n = graph_.producer(value);
    if (!n || depth > 8 || n->outputs[0] != value) return false;
    const auto layer = layer_of(graph_, n->id);
    if (layer && !layer->convolution && sole(layer->weights)) return product(*n, *layer);
    if (n->is("LayerNormalization")) return normalization(*n);
    if (n->is("RMSNormalization")) return normalization(*n);
    if (n->is("Mul")) return multiplication(*n, depth);
    if (n->is("Add") || n->is("Sub")) return addition(*n, depth);
    return false;
  }
  void apply(GraphEdit& edit) const {
    for (const auto& e : edits_) e(edit);
  }

 private:
  bool sole(ValueId v) const { return graph_.value(v).uses.size() == 1; }
  bool is_row(ValueId v) const {
    const Tensor* t = graph_.constant(v);
    return t && is_float(t->dtype()) && t->size() == static_cast<int64_t>(s_.size()) && t->rank() >= 1 && t->dim(-1) == t->size();
  }
  void divide(NodeId node, size_t input) {
    edits_.push_back([this, node, input](GraphEdit& edit) {
      const Tensor old = *edit.graph().constant(edit.graph().node(node).input(input));
      std::vector<float> values = to_vector<float>(old);
      for (size_t i = 0; i < values.size(); ++i) values[i] /= s_[i];
      edit.set_input(node, input, edit.add_constant(cast(Tensor::of<float>(old.shape(), values), old.dtype())));
    });
  }
  bool product(const Node& n, const Layer& layer) {
    const bool biased = n.is("Gemm") && n.input(2) != kNone;
    if (biased && !is_row(n.input(2))) return false;
    edits_.push_back([this, layer](GraphEdit& edit) {
      const Tensor old = *edit.graph().constant(layer.weights);
      std::vector<float> w = read_weights(layer, old);
      for (size_t i = 0; i < w.size(); ++i) w[i] /= s_[i / static_cast<size_t>(layer.in)];
      edit.set_input(layer.node, 1, edit.add_constant(cast(write_weights(layer, old.shape(), w), old.dtype())));
    });
    if (biased) divide(n.id, 2);
    return true;
  }
  bool normalization(const Node& n) {
    if (!is_row(n.input(1)) || (n.input(2) != kNone && !is_row(n.input(2)))) return false;
    divide(n.id, 1);
    if (n.input(2) != kNone) divide(n.id, 2);
    return true;
  }
  bool multiplication(const Node& n, int depth) {
    for (size_t i : {0u, 1u})
      if (is_row(n.input(i)) && !graph_.constant(n.input(1 - i))) return divide(n.id, i), true;
    for (size_t i : {1u, 0u}) {
      const auto before = edits_.size();
      const Node* p = graph_.producer(n.input(i));
      if (p && n.input(0) != n.input(1) && sole(n.input(i)) && full(n.input(i)) && through(n.input(i), depth + 1)) return true;
      edits_.resize(before);
    }
    return false;
  }
  bool addition(const Node& n, int depth) {
    for (size_t i : {0u, 1u})
      if (is_row(n.input(i)) && sole(n.input(1 - i)) && !graph_.constant(n.input(1 - i)) && through(n.input(1 - i), depth + 1)) return divide(n.id, i), true;
    return false;
  }
  /// A factor that isn't broadcast along the channels.
  bool full(ValueId v) const {
    const Node* p = graph_.producer(v);
    const auto layer = p ? layer_of(graph_, p->id) : std::nullopt;
    return !layer || layer->out == static_cast<int64_t>(s_.size());
  }

  const Graph& graph_;
  const std::vector<float>& s_;
  std::vector<std::function<void(GraphEdit&)>> edits_;
};

}  // namespace

ChannelScales search_channel_scales(const std::vector<ScaledProduct>& given, const std::vector<float>& h, GridFit fit, int threads) {
  size_t k = 0;
  while (k * k < h.size()) ++k;
  std::vector<ScaledProduct> products;
  for (const ScaledProduct& p : given) products.push_back(thinned(p, static_cast<int64_t>(k)));
  std::vector<double> rms(k), largest(k, 0), energy;
  double mean = 0;
  for (size_t i = 0; i < k; ++i) mean += rms[i] = std::sqrt(static_cast<double>(h[i * k + i]));
  mean /= static_cast<double>(k);
  for (const ScaledProduct& p : products) {
    for (size_t i = 0; i < p.weights.size(); ++i) largest[i % k] = std::max(largest[i % k], std::fabs(static_cast<double>(p.weights[i])));
    energy.push_back(quadratic_error(p.weights, std::vector<float>(p.weights.size(), 0.0f), p.out, h, threads));
  }
  const double widest = *std::max_element(largest.begin(), largest.end());
  ChannelScales best;
  if (!(mean > 0) || !(widest > 0)) return best;
  auto error = [&](const std::vector<float>& s) {
    double sum = 0;
    for (size_t p = 0; p < products.size(); ++p)
      if (energy[p] > 0) sum += error_with(products[p], s, h, fit, threads) / energy[p];
    return sum;
  };
  const double untouched = error(std::vector<float>(k, 1.0f));
  double least = untouched;
  for (int step = 1; step <= kSteps; ++step)
    for (bool by_weights : {false, true}) {
      const double alpha = static_cast<double>(step) / kSteps, beta = by_weights ? 1 - alpha : 0;
      if (by_weights && beta <= 0) continue;
      std::vector<float> s(k);
      for (size_t i = 0; i < k; ++i) {
        const double value = std::pow(std::max(rms[i] / mean, 1e-4), alpha) / std::pow(std::max(largest[i] / widest, 1e-4), beta);
        s[i] = static_cast<float>(std::clamp(value, 1e-3, 1e3));
      }
      const double e = error(s);
      if (e < least) least = e, best.s = std::move(s);
    }
  best.gain = untouched > 0 ? least / untouched : 1;
  return best;
}

bool divide_channels(GraphEdit& edit, ValueId value, const std::vector<float>& s, const std::vector<NodeId>& readers) {
  for (const Use& u : edit.graph().value(value).uses)
    if (u.index != 0 || std::find(readers.begin(), readers.end(), u.node) == readers.end()) return false;
  Divider divider(edit.graph(), s);
  if (!divider.through(value)) return false;
  divider.apply(edit);
  return true;
}

}  // namespace infopt

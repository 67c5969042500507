// SmoothQuant (Xiao et al., arXiv 2211.10438): outlier channels of a product's input are divided down where they are made, and the weights that
// they meet multiplied up. x′ = x / s, W′ = diag(s)·W, s_k = max|x_k|^α / max_n|W_kn|^(1−α): the same function.
//
// before     LayerNormalization, RMSNormalization, a product, Mul or Add with a row → MatMul or Gemm with constant weights
// after      the same nodes with other constants; with `insert` also a Mul where nothing can take the factors
// conditions Nothing but those products reads the value (but for `insert`); the estimated noise of 8-bit activations and weights gets less.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "calibration/calibration.h"
#include "lib/base/error.h"
#include "passes/pass.h"
#include "passes/support/awq.h"
#include "passes/support/equalize.h"
#include "passes/support/layers.h"

namespace infopt {
namespace {

constexpr double kFoldPays = 0.9;    ///< what a smoothing must leave of the noise at most
constexpr double kInsertPays = 0.5;  ///< and where it costs a multiplication

struct Site {
  std::vector<Layer> products;
  std::vector<std::vector<float>> weights;
};

/// Divided by the smallest, so that each is at least 1; a channel without values or weights isn't touched more than that.
std::vector<double> smoothing(const TensorStatistics& x, const Site& site, double alpha) {
  const size_t channels = x.channel_max.size();
  std::vector<double> largest(channels, 0), s(channels, 0);
  for (const std::vector<float>& w : site.weights)
    for (size_t i = 0; i < w.size(); ++i) largest[i % channels] = std::max(largest[i % channels], std::fabs(static_cast<double>(w[i])));
  double least = 0;
  for (size_t k = 0; k < channels; ++k) {
    const double seen = std::max(static_cast<double>(x.channel_max[k]), -static_cast<double>(x.channel_min[k]));
    if (!(seen > 0) || !(largest[k] > 0)) continue;
    s[k] = std::pow(seen, alpha) / std::pow(largest[k], 1 - alpha);
    if (least == 0 || s[k] < least) least = s[k];
  }
  for (double& f : s) f = f > 0 ? static_cast<double>(static_cast<float>(std::min(f / least, 1e4))) : 1;
  return s;
}

class Smoother {
 public:
  Smoother(GraphEdit& edit, PassContext& context, const Options& options) : edit_(edit), graph_(edit.graph()), context_(context), options_(options) {}

  void run() {
    find_sites();
    std::vector<CollectRequest> requests;
    for (const auto& [input, site] : sites_) {
      requests.push_back({input, -1});
      for (const Layer& l : site.products) requests.push_back({graph_.node(l.node).outputs[0], -1});
    }
    if (requests.empty()) return;
    statistics_ = context_.calibration->collect(graph_, requests).tensors;
    for (ValueId input : order_) smooth(input, sites_.at(input));
  }

 private:
  void find_sites() {
    const std::vector<Observed> seen = context_.calibration->observe(graph_);
    for (const Layer& l : find_layers(graph_)) {
      const Node& n = graph_.node(l.node);
      if (l.convolution || seen[static_cast<size_t>(n.input(0))].dtype == DType::Undefined || seen[static_cast<size_t>(n.outputs[0])].dtype == DType::Undefined) continue;
      if (graph_.value(l.weights).uses.size() != 1 || graph_.constant(l.weights)->dtype() != DType::F32) continue;
      if (!sites_.contains(n.input(0))) order_.push_back(n.input(0));
      sites_[n.input(0)].products.push_back(l);
    }
  }

  double signal_of(const Layer& layer) const {
    const auto it = statistics_.find(graph_.node(layer.node).outputs[0]);
    double signal = 0;
    if (it != statistics_.end())
      for (size_t c = 0; c < it->second.channel_square.size(); ++c) signal += it->second.square(c);
    return signal;
  }

  void smooth(ValueId input, Site& site) {
    const auto it = statistics_.find(input);
    if (it == statistics_.end() || it->second.channel_max.empty()) return;
    const TensorStatistics& x = it->second;
    std::vector<ProductNoise> noise;
    for (const Layer& l : site.products) {
      if (static_cast<size_t>(l.in) != x.channel_max.size()) return;
      site.weights.push_back(read_weights(l, *graph_.constant(l.weights)));
    }
    for (size_t i = 0; i < site.products.size(); ++i)
      noise.emplace_back(site.weights[i], static_cast<size_t>(site.products[i].out), static_cast<size_t>(site.products[i].in), signal_of(site.products[i]));
    auto total = [&](const std::vector<double>& s) {
      double sum = 0;
      for (const ProductNoise& p : noise) sum += p.nsr(x, s);
      return sum;
    };
    const double untouched = total({}), fixed = options_.number("alpha");
    double least = untouched, alpha = 0;
    std::vector<double> best;
    for (int step = 3; step <= 9; ++step) {
      const double a = fixed >= 0 ? fixed : step / 10.0;
      std::vector<double> s = smoothing(x, site, a);
      const double sum = total(s);
      if (sum < least) least = sum, alpha = a, best = std::move(s);
      if (fixed >= 0) break;
    }
    if (!best.empty() && least <= untouched * kFoldPays) apply(input, site, {best.begin(), best.end()}, alpha, untouched, least);
  }

  void apply(ValueId input, const Site& site, const std::vector<float>& s, double alpha, double before, double after) {
    std::vector<NodeId> readers;
    for (const Layer& l : site.products) readers.push_back(l.node);
    const bool folded = divide_channels(edit_, input, s, readers);
    if (!folded) {
      if (!options_.flag("insert") || after > before * kInsertPays) return;
      std::vector<float> inverse;
      for (float f : s) inverse.push_back(1 / f);
      const ValueId scaled = edit_.add({.op = "Mul"}, {input, edit_.add_constant(Tensor::vector(inverse))});
      for (NodeId reader : readers) edit_.set_input(reader, 0, scaled);
    }
    for (size_t i = 0; i < site.products.size(); ++i) {
      // A product that makes a later input may have got new weights in the meantime.
      const Layer layer = *layer_of(graph_, site.products[i].node);
      const Tensor old = *graph_.constant(layer.weights);
      std::vector<float> w = read_weights(layer, old);
      for (size_t k = 0; k < w.size(); ++k) w[k] *= s[k % s.size()];
      edit_.set_input(layer.node, 1, edit_.add_constant(write_weights(layer, old.shape(), w)));
    }
    char line[160];
    std::snprintf(line, sizeof line, ": alpha %.2g, estimated %.1f dB instead of %.1f%s", alpha, -10 * std::log10(after), -10 * std::log10(before), folded ? "" : ", by a multiplication");
    edit_.note("input of " + graph_.label(readers[0]) + line);
  }

  GraphEdit& edit_;
  const Graph& graph_;
  PassContext& context_;
  const Options& options_;
  std::map<ValueId, Site> sites_;
  std::vector<ValueId> order_;  ///< in the graph's order: a product's output is divided after its input was
  std::map<ValueId, TensorStatistics> statistics_;
};

void run(GraphEdit& edit, PassContext& context, const Options& options) {
  if (!context.calibration) throw Error(ErrorKind::Usage, "the step smooth_activations needs calibration data: give --calib DATA");
  Smoother(edit, context, options).run();
}

}  // namespace

PassDef pass_smooth_activations() {
  return {
      .name = "smooth_activations",
      .summary = "moves outlier channels of products' inputs into their weights, folded into what makes the input",
      .contract = Contract::Rounding,
      .options =
          {
              {.name = "alpha", .help = "how much of the range moves from activations to weights; below 0: the one of 0.3 to 0.9 with the least estimated noise, for each site", .otherwise = -1.0, .least = -1, .most = 1},
              {.name = "insert", .help = "where nothing can take the factors, a multiplication if it halves the noise", .otherwise = false},
          },
      .needs_calibration = true,
      .run = run,
  };
}

}  // namespace infopt

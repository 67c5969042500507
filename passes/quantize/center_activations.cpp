// What a channel always has goes from the values between two layers into the biases on both sides, so that one range for the whole tensor is
// narrower: bias absorption (Nagel et al., arXiv 1906.04721, section 4.1.3) and the shift of Outlier Suppression+ (Wei et al., arXiv 2304.09145).
// x′ = x − c, b′ = b + W·c.
//
// before     Conv, ConvTranspose, Gemm, LayerNormalization or Add with a row [→ Relu] → Conv without pads, Gemm, MatMul + Add with a row
// after      the same nodes with other constants
// c          the middle of a channel's calibrated range; before a Relu the least value, where it is above 0: those channels are never cut
//            with `insert` also an Add where nothing can take c
// conditions Nothing but those layers reads the value (but for `insert`); the tensor's range, 0 included, gets narrower by a tenth or more.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "calibration/calibration.h"
#include "lib/base/error.h"
#include "passes/pass.h"
#include "passes/support/affine.h"
#include "passes/support/layers.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

constexpr double kPays = 0.9;        ///< what must be left of the range at most
constexpr double kInsertPays = 0.7;  ///< and where it costs an addition
constexpr double kSpreads = 6;  ///< standard deviations between the mean and what a Relu begins to cut

struct Site {
  ValueId made = kNone;  ///< before the Relu
  bool relu = false, inserted = false;
  int64_t axis = 1;
  std::vector<NodeId> readers;
};

class Centering {
 public:
  Centering(GraphEdit& edit, PassContext& context, bool insert) : edit_(edit), graph_(edit.graph()), context_(context), insert_(insert) {}

  void run() {
    find_sites();
    std::vector<CollectRequest> requests;
    for (const Site& site : sites_) requests.push_back({site.made, site.axis});
    if (requests.empty()) return;
    const auto& statistics = context_.calibration->collect(graph_, requests).tensors;
    for (const Site& site : sites_)
      if (const auto it = statistics.find(site.made); it != statistics.end()) center(site, it->second);
  }

 private:
  void find_sites() {
    const std::vector<Observed> seen = context_.calibration->observe(graph_);
    std::map<ValueId, std::vector<NodeId>> readers;
    std::vector<ValueId> order;
    for (const Layer& l : find_layers(graph_)) {
      const Node& n = graph_.node(l.node);
      if (!takes_shift(n, l)) continue;
      if (readers[n.input(0)].empty()) order.push_back(n.input(0));
      readers[n.input(0)].push_back(l.node);
    }
    for (ValueId read : order) {
      Site site{read, false, false, graph_.node(readers[read][0]).is("Conv") ? 1 : -1, readers[read]};
      if (const Node* relu = made_only_for(graph_, read, "Relu")) site.made = relu->input(0), site.relu = true;
      const auto only = [&](ValueId v, auto&& reads) { return std::all_of(graph_.value(v).uses.begin(), graph_.value(v).uses.end(), reads); };
      const bool own = only(read, [&](const Use& u) { return u.index == 0 && std::find(site.readers.begin(), site.readers.end(), u.node) != site.readers.end(); }) &&
                       (!site.relu || graph_.sole_consumer(site.made));
      const bool alike = std::all_of(site.readers.begin(), site.readers.end(), [&](NodeId id) { return graph_.node(id).is("Conv") == (site.axis == 1); });
      if (!alike || seen[static_cast<size_t>(read)].dtype != DType::F32) continue;
      if (!own || !gives_shift(site)) {
        if (!insert_ || site.axis == 1) continue;
        site.made = read, site.relu = false, site.inserted = true;
      }
      sites_.push_back(std::move(site));
    }
  }

  bool is_row(ValueId v) const {
    const Tensor* t = v == kNone ? nullptr : graph_.constant(v);
    return t && t->dtype() == DType::F32 && t->rank() >= 1 && t->dim(-1) == t->size();
  }
  /// The Add's input that is a constant row.
  std::optional<size_t> row_of(const Node* add) const {
    if (!add || !add->is("Add")) return std::nullopt;
    for (size_t i : {0u, 1u})
      if (is_row(add->input(i))) return i;
    return std::nullopt;
  }

  bool takes_shift(const Node& n, const Layer& l) const {
    if (n.input(0) == kNone || graph_.constant(n.input(0)) || graph_.constant(l.weights)->dtype() != DType::F32) return false;
    if (n.is("Conv")) {
      const auto pads = n.ints("pads");
      const std::string pad = n.s("auto_pad", "NOTSET");
      return (pad == "NOTSET" || pad == "VALID") && std::all_of(pads.begin(), pads.end(), [](int64_t p) { return p == 0; }) && absorbing_channels(graph_, n) > 0 && graph_.value(l.weights).uses.size() == 1;
    }
    if (n.is("Gemm")) return n.f("alpha", 1) == 1 && absorbing_channels(graph_, n) > 0;
    const auto row = n.is("MatMul") ? row_of(graph_.sole_consumer(n.outputs[0])) : std::nullopt;
    return row && graph_.constant(graph_.sole_consumer(n.outputs[0])->input(*row))->size() == l.out;
  }

  bool gives_shift(const Site& site) const {
    const Node* maker = graph_.producer(site.made);
    if (!maker || maker->outputs[0] != site.made) return false;
    if (absorbing_channels(graph_, *maker) > 0) return output_rank(graph_, *maker) == 2 || site.axis == 1;
    if (site.axis == 1) return false;
    if (maker->is("LayerNormalization")) return is_row(maker->input(2)) && graph_.constant(maker->input(2))->rank() == 1 && maker->i("axis", -1) == -1;
    return row_of(maker).has_value();
  }

  /// What is taken out of each channel; empty where it doesn't pay.
  static std::vector<double> centers(const Site& site, const TensorStatistics& x, double& kept) {
    double low = 0, high = 0, low_after = 0, high_after = 0;
    std::vector<double> c;
    for (size_t k = 0; k < x.channel_max.size(); ++k) {
      const double least = static_cast<double>(x.channel_min[k]), most = static_cast<double>(x.channel_max[k]), mean = x.mean(k);
      const double spread = std::sqrt(std::max(0.0, x.square(k) - mean * mean));
      c.push_back(site.relu ? std::clamp(mean - kSpreads * spread, 0.0, std::max(0.0, least)) : (least + most) / 2);
      low = std::min(low, site.relu ? 0 : least), high = std::max(high, most);
      low_after = std::min(low_after, site.relu ? 0 : least - c[k]), high_after = std::max(high_after, most - c[k]);
    }
    kept = high > low ? (high_after - low_after) / (high - low) : 1;
    return kept <= (site.inserted ? kInsertPays : kPays) ? c : std::vector<double>{};
  }

  void center(const Site& site, const TensorStatistics& x) {
    double kept = 1;
    std::vector<double> c = centers(site, x, kept);
    if (c.empty() || std::any_of(site.readers.begin(), site.readers.end(), [&](NodeId id) { return inputs_of(id) != static_cast<int64_t>(c.size()); })) return;
    std::vector<double> minus(c.size());
    std::transform(c.begin(), c.end(), minus.begin(), [](double v) { return -v; });
    if (site.inserted) {
      const ValueId moved = edit_.add({.op = "Add"}, {site.made, edit_.add_constant(Tensor::vector(std::vector<float>(minus.begin(), minus.end())))});
      for (NodeId id : site.readers) edit_.set_input(id, 0, moved);
    } else if (!add_to(graph_.producer(site.made)->id, minus)) {
      return;
    }
    for (NodeId id : site.readers) absorb(id, c);
    char line[80];
    std::snprintf(line, sizeof line, ": its range is %.2f of what it was", kept);
    edit_.note("input of " + graph_.label(site.readers[0]) + line);
  }

  int64_t inputs_of(NodeId id) const {
    const auto layer = layer_of(graph_, id);
    return layer ? layer->in * layer->groups : 0;
  }

  /// The node gives out c more, by channel of its last or first axis. False where it doesn't have such channels.
  bool add_to(NodeId id, const std::vector<double>& c) {
    const Node& n = graph_.node(id);
    if (const int64_t channels = absorbing_channels(graph_, n)) return channels == static_cast<int64_t>(c.size()) && scale_outputs(edit_, id, {std::vector<double>(c.size(), 1), c});
    const size_t input = n.is("LayerNormalization") ? 2 : *row_of(&n);
    Tensor row = graph_.constant(n.input(input))->clone();
    if (row.size() != static_cast<int64_t>(c.size())) return false;
    for (size_t k = 0; k < c.size(); ++k) row.mutable_data<float>()[k] = static_cast<float>(static_cast<double>(row.data<float>()[k]) + c[k]);
    edit_.set_input(id, input, edit_.add_constant(std::move(row)));
    return true;
  }

  void absorb(NodeId id, const std::vector<double>& c) {
    const Node& n = graph_.node(id);
    if (n.is("Conv")) {
      if (!scale_inputs(edit_, id, {std::vector<double>(c.size(), 1), c})) throw Error(ErrorKind::Defect, "a shift that was checked could not be absorbed", graph_.label(id));
      return;
    }
    const Layer layer = *layer_of(graph_, id);
    const std::vector<float> w = read_weights(layer, *graph_.constant(layer.weights));
    std::vector<double> shift(static_cast<size_t>(layer.out), 0);
    for (size_t i = 0; i < w.size(); ++i) shift[i / c.size()] += static_cast<double>(w[i]) * c[i % c.size()];
    add_to(n.is("Gemm") ? id : graph_.sole_consumer(n.outputs[0])->id, shift);
  }

  GraphEdit& edit_;
  const Graph& graph_;
  PassContext& context_;
  bool insert_;
  std::vector<Site> sites_;
};

void run(GraphEdit& edit, PassContext& context, const Options& options) {
  if (!context.calibration) throw Error(ErrorKind::Usage, "the step center_activations needs calibration data: give --calib DATA");
  Centering(edit, context, options.flag("insert")).run();
}

}  // namespace

PassDef pass_center_activations() {
  return {
      .name = "center_activations",
      .summary = "moves what channels always have into the biases on both sides, so that tensors have narrower ranges",
      .contract = Contract::Lossy,  // a channel before a Relu may be cut on other data
      .options = {{.name = "insert", .help = "where nothing can take the shift of a product's input, an addition if that leaves 0.7 of the range", .otherwise = false}},
      .needs_calibration = true,
      .run = run,
  };
}

}  // namespace infopt

// Cross-layer equalization (Nagel et al., arXiv 1906.04721): where nothing but positively homogeneous operators lies between two layers, a channel is
// divided by s in the first and multiplied by s in the second, s = √(r₁/r₂) of their largest weights: both then have the range √(r₁·r₂). The same function.
//
// before     Conv, ConvTranspose, Gemm, MatMul → Relu, LeakyRelu, PRelu, pools, Add, Mul with a constant, Flatten … → Conv, ConvTranspose, Gemm, MatMul
// after      the same nodes with other constants; `clip: per_channel` writes Clip(0, c) as Relu and Min with a row
// conditions Every layer that makes or reads the values of such a net of nodes has float32 weights of its own, and nothing else touches them.
//            Where several layers make them (a residual sum), r₁ is the geometric mean of their ranges; likewise r₂.
#include <algorithm>
#include <cmath>
#include <map>

#include "passes/pass.h"
#include "passes/support/layers.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

constexpr int kSweeps = 50;
constexpr double kSettled = 1e-4;  ///< largest |log s| of a sweep that ends them
constexpr double kMost = 1e4;      ///< of a channel's factor, and its inverse

/// Where a value's channels lie: axis 1, the last axis, or each repeated along axis 1 of two (flattened).
enum class Place { None, First, Last, Flat };

struct Member {
  Layer layer;
  std::vector<float> weights, bias;
  std::vector<double> by_out, by_in;  ///< what channels have been multiplied by
  Place input = Place::None, output = Place::None;
  int64_t inputs() const { return layer.in * layer.groups; }
};

/// Values whose channels must be scaled alike.
struct Net {
  bool blocked = false;
  int64_t channels = 0;
  std::vector<size_t> makers, readers;              ///< members
  std::vector<std::pair<NodeId, size_t>> constants; ///< rows that are added: node and input
  std::vector<NodeId> clips;
  std::vector<double> s;
};

class Equalizer {
 public:
  Equalizer(GraphEdit& edit, bool split_clips) : edit_(edit), graph_(edit.graph()), split_clips_(split_clips), root_(graph_.value_capacity()), place_(graph_.value_capacity(), Place::None) {
    for (size_t i = 0; i < root_.size(); ++i) root_[i] = static_cast<ValueId>(i);
  }

  void run() {
    link();
    collect();
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      double moved = 0;
      for (auto& [root, net] : nets_)
        if (usable(net)) moved = std::max(moved, balance(net));
      if (moved < kSettled) break;
    }
    write();
  }

 private:
  ValueId find(ValueId v) {
    while (root_[static_cast<size_t>(v)] != v) v = root_[static_cast<size_t>(v)] = root_[static_cast<size_t>(root_[static_cast<size_t>(v)])];
    return v;
  }
  Place& place(ValueId v) { return place_[static_cast<size_t>(v)]; }
  void block(ValueId v) {
    if (v != kNone) blocked_.push_back(v);
  }
  void join(ValueId a, ValueId b) {
    a = find(a), b = find(b);
    root_[static_cast<size_t>(std::max(a, b))] = std::min(a, b);
  }

  void link() {
    for (ValueId v : graph_.inputs()) block(v);
    for (ValueId v : graph_.outputs()) block(v);
    for (NodeId id : graph_.order()) {
      const Node& n = graph_.node(id);
      for (ValueId v : n.captures) block(v);
      if (add_member(n)) continue;
      const bool simple = n.domain.empty() && n.captures.empty() && !n.inputs.empty() && n.input(0) != kNone && output_of(n) != kNone &&
                          std::none_of(n.outputs.begin() + 1, n.outputs.end(), [](ValueId v) { return v != kNone; });
      if (simple && passes(n)) continue;
      for (ValueId v : n.inputs) block(v);
      for (ValueId v : n.outputs) block(v);
    }
  }

  bool add_member(const Node& n) {
    const auto layer = layer_of(graph_, n.id);
    if (!layer || graph_.value(layer->weights).uses.size() != 1 || graph_.constant(layer->weights)->dtype() != DType::F32) return false;
    if (n.input(0) == kNone || output_of(n) == kNone) return false;
    Member m;
    m.layer = *layer;
    m.output = layer->convolution ? Place::First : Place::Last;
    const ValueId bias = n.is("MatMul") ? kNone : n.input(2);
    if (bias != kNone) {
      const Tensor* b = graph_.constant(bias);
      const auto row = b ? per_channel(*b, layer->convolution ? 1 : 2, layer->convolution ? 0 : 1, layer->out) : std::nullopt;
      if (!row) return false;
      m.bias.assign(row->begin(), row->end());
    }
    const Place before = place(n.input(0));
    m.input = layer->convolution ? (before == Place::First ? Place::First : Place::None) : before == Place::First ? Place::None : before;
    if (m.input == Place::None) block(n.input(0));
    m.weights = read_weights(*layer, *graph_.constant(layer->weights));
    m.by_out.assign(static_cast<size_t>(layer->out), 1);
    m.by_in.assign(static_cast<size_t>(m.inputs()), 1);
    place(output_of(n)) = m.output;
    members_.push_back(std::move(m));
    return true;
  }

  /// Whether f(x/s) = f(x)/s for every channel; links input and output then.
  bool passes(const Node& n) {
    const ValueId x = n.input(0), y = n.outputs[0];
    if (n.is("Add") || n.is("Sub")) return sum(n);
    if (n.is("Mul") || n.is("Div")) return product(n);
    Place to = place(x);
    if (to == Place::None) return false;
    if (n.is("Relu") || n.is("LeakyRelu") || n.is("Identity")) return follow(x, y, to);
    if (n.is("PRelu")) return graph_.constant(n.input(1)) && keeps_rank(x, n.input(1)) && follow(x, y, to);
    if (n.is("Clip")) return clip(n) && follow(x, y, to);
    if (to != Place::First) return false;
    if (n.is("MaxPool") || n.is("AveragePool") || n.is("GlobalAveragePool") || n.is("GlobalMaxPool")) return follow(x, y, to);
    const int64_t rank = rank_of(graph_, x);
    if (n.is("Flatten")) return n.i("axis", 1) == 1 && follow(x, y, Place::Flat);
    if (n.is("Reshape")) return flattens(n) && follow(x, y, Place::Flat);
    if (n.is("ReduceMean") || n.is("ReduceMax") || n.is("ReduceSum") || n.is("Squeeze")) {
      const auto axes = axes_of(graph_, n, 1);
      if (!axes || axes->empty() || rank < 3) return false;
      for (int64_t a : *axes)
        if ((a < 0 ? a + rank : a) < 2) return false;
      if (!n.is("Squeeze") && n.i("keepdims", 1) != 0) return follow(x, y, Place::First);
      return static_cast<int64_t>(axes->size()) == rank - 2 && follow(x, y, Place::Flat);
    }
    return false;
  }
  bool follow(ValueId x, ValueId y, Place to) {
    join(x, y);
    place(y) = to;
    return true;
  }
  bool keeps_rank(ValueId x, ValueId constant) const {
    const int64_t rank = rank_of(graph_, x);
    return rank > 0 && graph_.constant(constant)->rank() <= rank;
  }
  bool flattens(const Node& n) const {
    const Tensor* shape = graph_.constant(n.input(1));
    if (!shape || shape->size() != 2 || n.i("allowzero", 0) != 0) return false;
    const std::vector<int64_t> to = to_vector<int64_t>(*shape);
    const Type& type = graph_.value(n.input(0)).type;
    if (to[0] == 0) return true;
    if (!type.has_shape || type.shape.size() < 3) return false;
    int64_t each = 1;
    for (size_t i = 1; i < type.shape.size(); ++i) each = type.shape[i].size < 0 || each < 0 ? -1 : each * type.shape[i].size;
    return (to[0] > 0 && type.shape[0].size == to[0]) || (each > 0 && to[1] == each);
  }
  bool clip(const Node& n) {
    auto bound = [&](size_t input, const char* name) -> std::optional<double> {
      if (const float* f = n.get<float>(name)) return static_cast<double>(*f);
      return n.input(input) == kNone ? std::nullopt : scalar(graph_, n.input(input));
    };
    const auto low = bound(1, "min"), high = bound(2, "max");
    if (!low || *low != 0) return false;
    if (n.input(2) == kNone && !n.find("max")) return true;
    if (!split_clips_ || graph_.opset() < 8 || !high || !(*high > 0) || place(n.input(0)) != Place::First || rank_of(graph_, n.input(0)) < 3) return false;
    clips_.push_back(n.id);
    return true;
  }
  /// Of two values of one net, or of one and a constant row.
  bool sum(const Node& n) {
    const ValueId a = n.input(0), b = n.input(1), y = n.outputs[0];
    if (b == kNone) return false;
    for (size_t i : {0u, 1u}) {
      const ValueId x = n.input(1 - i);
      if (!graph_.constant(n.input(i))) continue;
      if (place(x) == Place::None || place(x) == Place::Flat || !keeps_rank(x, n.input(i)) || graph_.constant(n.input(i))->dtype() != DType::F32) return false;
      constants_.emplace_back(n.id, i);
      return follow(x, y, place(x));
    }
    if (place(a) != place(b) || place(a) == Place::None || rank_of(graph_, a) < 0 || rank_of(graph_, a) != rank_of(graph_, b)) return false;
    join(a, b);
    return follow(a, y, place(a));
  }
  bool product(const Node& n) {
    for (size_t i : {0u, 1u}) {
      const ValueId x = n.input(1 - i), c = n.input(i);
      if (c == kNone || x == kNone || !graph_.constant(c) || (n.is("Div") && i == 0)) continue;
      return place(x) != Place::None && keeps_rank(x, c) && follow(x, n.outputs[0], place(x));
    }
    return false;
  }

  void collect() {
    for (size_t i = 0; i < members_.size(); ++i) {
      const Node& n = graph_.node(members_[i].layer.node);
      nets_[find(n.outputs[0])].makers.push_back(i);
      nets_[find(n.input(0))].readers.push_back(i);
    }
    for (ValueId v : blocked_)
      if (const auto it = nets_.find(find(v)); it != nets_.end()) it->second.blocked = true;
    for (const auto& [node, input] : constants_)
      if (const auto it = nets_.find(find(graph_.node(node).outputs[0])); it != nets_.end()) it->second.constants.emplace_back(node, input);
    for (NodeId node : clips_)
      if (const auto it = nets_.find(find(graph_.node(node).outputs[0])); it != nets_.end()) it->second.clips.push_back(node);
    for (auto& [root, net] : nets_) check(net);
  }
  void check(Net& net) {
    if (net.makers.empty() || net.readers.empty()) net.blocked = true;
    if (net.blocked) return;
    net.channels = members_[net.makers[0]].layer.out;
    for (size_t m : net.makers) net.blocked = net.blocked || members_[m].layer.out != net.channels;
    for (size_t r : net.readers) {
      const Member& m = members_[r];
      net.blocked = net.blocked || (m.input == Place::Flat ? m.layer.in % net.channels != 0 : m.inputs() != net.channels);
    }
    for (const auto& [node, input] : net.constants) {
      const ValueId y = graph_.node(node).outputs[0];
      const int64_t rank = rank_of(graph_, y);
      net.blocked = net.blocked || rank < 1 || !per_channel(*graph_.constant(graph_.node(node).input(input)), rank, place(y) == Place::First ? 1 : rank - 1, net.channels);
    }
    net.s.assign(static_cast<size_t>(net.channels), 1);
  }
  static bool usable(const Net& net) { return !net.blocked && !net.s.empty(); }

  struct Ranges {
    std::vector<double> out, in;
  };
  Ranges ranges(const Member& m) const {
    const Layer& l = m.layer;
    Ranges r{std::vector<double>(m.by_out.size(), 0), std::vector<double>(m.by_in.size(), 0)};
    size_t at = 0;
    for (int64_t o = 0; o < l.out; ++o)
      for (int64_t i = 0; i < l.in; ++i) {
        const auto row = static_cast<size_t>(o), column = static_cast<size_t>(o / (l.out / l.groups) * l.in + i);
        double largest = 0;
        for (int64_t t = 0; t < l.taps; ++t) largest = std::max(largest, std::fabs(static_cast<double>(m.weights[at++])));
        largest *= m.by_out[row] * m.by_in[column];
        r.out[row] = std::max(r.out[row], largest);
        r.in[column] = std::max(r.in[column], largest);
      }
    return r;
  }

  /// The geometric mean of what isn't zero, by channel; 0 where all are.
  class Mean {
   public:
    explicit Mean(size_t channels) : sum_(channels, 0), count_(channels, 0) {}
    void add(size_t channel, double range) {
      if (range > 0) sum_[channel] += std::log(range), ++count_[channel];
    }
    double of(size_t channel) const { return count_[channel] ? std::exp(sum_[channel] / count_[channel]) : 0; }

   private:
    std::vector<double> sum_;
    std::vector<int> count_;
  };

  /// One step of a net's factors; the largest |log| of them.
  double balance(Net& net) {
    const auto channels = static_cast<size_t>(net.channels);
    Mean first(channels), second(channels);
    for (size_t m : net.makers) {
      const Ranges r = ranges(members_[m]);
      for (size_t c = 0; c < channels; ++c) {
        const bool constant = r.out[c] <= 0 && !members_[m].bias.empty();  // a dead channel: what it always is
        first.add(c, constant ? std::fabs(static_cast<double>(members_[m].bias[c])) * members_[m].by_out[c] : r.out[c]);
      }
    }
    for (size_t r : net.readers) {
      const Ranges range = ranges(members_[r]);
      const size_t each = range.in.size() / channels;
      std::vector<double> largest(channels, 0);
      for (size_t k = 0; k < range.in.size(); ++k) largest[k / each] = std::max(largest[k / each], range.in[k]);
      for (size_t c = 0; c < channels; ++c) second.add(c, largest[c]);
    }
    double widest = 0;
    for (size_t c = 0; c < channels; ++c) widest = std::max(widest, std::sqrt(first.of(c) * second.of(c)));
    double moved = 0;
    for (size_t c = 0; c < channels; ++c) {
      const double a = first.of(c), b = second.of(c);
      double by = 1;
      if (a > 0 && b > 0) by = std::sqrt(a / b);
      else if (a > widest && widest > 0) by = a / widest;  // nobody reads it: it must only not be the widest
      else if (b > widest && widest > 0) by = widest / b;
      by = std::clamp(net.s[c] * by, 1 / kMost, kMost) / net.s[c];
      net.s[c] *= by;
      moved = std::max(moved, std::fabs(std::log(by)));
      for (size_t m : net.makers) members_[m].by_out[c] /= by;
      for (size_t r : net.readers) {
        const size_t each = members_[r].by_in.size() / channels;
        for (size_t k = c * each; k < (c + 1) * each; ++k) members_[r].by_in[k] *= by;
      }
    }
    return moved;
  }

  void write() {
    int64_t nets = 0, layers = 0;
    for (const auto& [root, net] : nets_) {
      if (!usable(net)) continue;
      ++nets;
      for (const auto& [node, input] : net.constants) write_row(node, input, net);
      for (NodeId node : net.clips) write_clip(node, net);
    }
    for (const Member& m : members_) layers += write_member(m);
    if (layers) edit_.note(std::to_string(layers) + " layers' channel ranges equalized, in " + std::to_string(nets) + " places");
  }
  bool write_member(const Member& m) {
    auto touched = [](const std::vector<double>& by) { return std::any_of(by.begin(), by.end(), [](double f) { return f != 1; }); };
    if (!touched(m.by_out) && !touched(m.by_in)) return false;
    const Layer& l = m.layer;
    std::vector<float> w = m.weights;
    size_t at = 0;
    for (int64_t o = 0; o < l.out; ++o)
      for (int64_t i = 0; i < l.in; ++i) {
        const double by = m.by_out[static_cast<size_t>(o)] * m.by_in[static_cast<size_t>(o / (l.out / l.groups) * l.in + i)];
        for (int64_t t = 0; t < l.taps; ++t, ++at) w[at] = static_cast<float>(static_cast<double>(w[at]) * by);
      }
    const Shape shape = graph_.constant(l.weights)->shape();
    edit_.set_input(l.node, 1, edit_.add_constant(write_weights(l, shape, w)));
    if (m.bias.empty() || !touched(m.by_out)) return true;
    std::vector<float> bias = m.bias;
    for (size_t c = 0; c < bias.size(); ++c) bias[c] = static_cast<float>(static_cast<double>(bias[c]) * m.by_out[c]);
    edit_.set_input(l.node, 2, edit_.add_constant(Tensor::vector(bias)));
    return true;
  }
  ValueId row(const std::vector<double>& values, ValueId like) {
    const int64_t rank = rank_of(graph_, like);
    Shape shape(static_cast<size_t>(rank), 1);
    shape[place(like) == Place::First ? 1 : static_cast<size_t>(rank - 1)] = static_cast<int64_t>(values.size());
    return edit_.add_constant(rounded(values, shape, DType::F32));
  }
  void write_row(NodeId node, size_t input, const Net& net) {
    const ValueId y = graph_.node(node).outputs[0];
    const int64_t rank = rank_of(graph_, y);
    auto values = *per_channel(*graph_.constant(graph_.node(node).input(input)), rank, place(y) == Place::First ? 1 : rank - 1, net.channels);
    for (size_t c = 0; c < values.size(); ++c) values[c] /= net.s[c];
    edit_.set_input(node, input, row(values, y));
  }
  void write_clip(NodeId node, const Net& net) {
    const Node& n = graph_.node(node);
    const double high = n.get<float>("max") ? static_cast<double>(*n.get<float>("max")) : *scalar(graph_, n.input(2));
    std::vector<double> most;
    for (double s : net.s) most.push_back(high / s);
    const ValueId relu = edit_.add({.op = "Relu"}, {n.input(0)}, node), bounds = row(most, n.outputs[0]);
    edit_.remove_attribute(node, "min");
    edit_.remove_attribute(node, "max");
    edit_.set_op(node, "Min");
    edit_.set_inputs(node, {relu, bounds});
  }

  GraphEdit& edit_;
  const Graph& graph_;
  bool split_clips_;
  std::vector<ValueId> root_;  ///< union-find over values
  std::vector<Place> place_;
  std::vector<ValueId> blocked_;
  std::vector<Member> members_;
  std::vector<std::pair<NodeId, size_t>> constants_;
  std::vector<NodeId> clips_;
  std::map<ValueId, Net> nets_;
};

void run(GraphEdit& edit, PassContext&, const Options& options) { Equalizer(edit, options.text("clip") == "per_channel").run(); }

}  // namespace

PassDef pass_equalize_layers() {
  return {
      .name = "equalize_layers",
      .summary = "divides channels between layers so that the weights on both sides have like ranges",
      .contract = Contract::Rounding,
      .options = {{.name = "clip",
                   .help = "a Clip from 0 to c between two layers: keep leaves them alone; per_channel makes it Relu and Min with a bound for each channel",
                   .otherwise = std::string("keep"),
                   .choices = {"keep", "per_channel"}}},
      .run = run,
  };
}

}  // namespace infopt

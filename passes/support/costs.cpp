// The figures of `ort-cpu` are ONNX Runtime 1.32's on one thread of an AVX-512 VNNI machine (benchmarks/METHOD.md says how they are taken): a slope per
// multiplication, element or byte, and a start per call.
#include "passes/support/costs.h"

#include <algorithm>
#include <array>

namespace infopt {
namespace {

double round_up(int64_t v, int64_t to) { return static_cast<double>((v + to - 1) / to * to); }

struct ConvShape {
  double pixels, out_elements, in_elements;  ///< of one run, all channels for the latter two
  int64_t out, in_group, groups, taps, stride, width;
  bool depthwise() const { return groups > 1 && in_group == 1 && out == groups; }
};

/// Float: blocked NCHW kernels; channels count in steps of 16.
double float_convolution(const ConvShape& c) {
  const auto taps = static_cast<double>(c.taps);
  if (c.depthwise()) {
    const double narrow = 1 + 7.0 / static_cast<double>(std::max<int64_t>(c.width, 4));
    return 500 + round_up(c.out, 16) * c.pixels * (0.167 + 0.018 * taps) * narrow + (c.stride > 1 ? 0.1 * c.in_elements : 0);
  }
  if (c.groups > 1 && (c.in_group % 16 != 0 || (c.out / c.groups) % 16 != 0))
    return 1000 + 5.2 * c.out_elements + 0.02 * c.pixels * static_cast<double>(c.out * c.in_group) * taps;
  const bool few = c.groups == 1 && c.in_group < 16;
  const double in = c.groups == 1 && !few ? round_up(c.in_group, 16) : static_cast<double>(c.in_group);
  const double out = c.groups == 1 ? round_up(c.out, 16) : static_cast<double>(c.out);
  double ns = 500 + (few ? 0.0215 : 0.0195) * c.pixels * out * in * taps + (c.out_elements > 3e5 ? 0.14 : 0.03) * c.out_elements;
  if (few && c.in_group > 4) ns += 0.2 * c.in_elements;  // back from blocked to plain
  return ns;
}

/// Integer: NHWC, im2col but for 1×1 kernels; u8s8 products in steps of 16 outputs and 4 inputs.
double integer_convolution(const ConvShape& c) {
  const auto taps = static_cast<double>(c.taps);
  if (c.depthwise()) return 1000 + (c.out % 16 == 0 ? c.out_elements * (0.19 + 0.034 * taps) + c.pixels * taps : c.out_elements * (0.84 + 0.106 * taps));
  if (c.groups > 1) {
    const auto groups = static_cast<double>(c.groups);
    return 1000 + c.pixels * groups * (6 * taps + 2.5) + 0.0048 * c.pixels * groups * round_up(c.out / c.groups, 16) * round_up(c.in_group * c.taps, 4) + 0.15 * c.out_elements;
  }
  double ns = 1000 + 0.0048 * c.pixels * round_up(c.out, 16) * round_up(c.in_group * c.taps, 4) + 2.5 * c.pixels + 0.15 * c.out_elements;
  if (c.taps > 1 || c.stride > 1) ns += c.pixels * (c.in_group >= 16 ? 1.2 * taps : 3.8 * std::min(taps, 9.0) + 2.0 * std::max(taps - 9.0, 0.0));
  return ns;
}

constexpr std::array kMovers{"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "DepthToSpace", "SpaceToDepth", "Identity", "Split", "Expand", "Tile"};

bool one_of(const Node& n, const auto& names) {
  return n.domain.empty() && std::any_of(names.begin(), names.end(), [&](const char* name) { return n.op == name; });
}

}  // namespace

bool only_moves(const Node& node) { return node.is("MaxPool") || one_of(node, kMovers); }

const Shape* CostModel::shape(ValueId value) const {
  if (value == kNone || seen_[static_cast<size_t>(value)].dtype == DType::Undefined) return nullptr;
  return &seen_[static_cast<size_t>(value)].shape;
}

int64_t CostModel::elements(ValueId value) const {
  const Shape* s = shape(value);
  return s ? element_count(*s) : 0;
}

bool CostModel::blocked(const Node* n) const { return n && (n->is("Conv") || n->is("MaxPool") || n->is("GlobalAveragePool") || n->is("AveragePool")); }

bool CostModel::after_convolution(const Node& node) const {
  const Node* p = graph_.producer(node.input(0));
  return p && p->is("Conv") && graph_.sole_consumer(node.input(0)) == &node;
}

double CostModel::plain_pool(const Node& pool) const {
  if (!profile_.weigh_cost) return 0;
  double taps = 1;
  for (int64_t k : pool.ints("kernel_shape")) taps *= static_cast<double>(k);
  return 2.1 * taps * static_cast<double>(elements(pool.outputs[0]));
}

double CostModel::pool_before(ValueId value) const {
  const Node* p = graph_.producer(value);
  return p && p->is("MaxPool") && graph_.value(value).uses.size() == 1 ? plain_pool(*p) : 0;
}

NodeCost CostModel::convolution(const Node& node, const Layer& layer) const {
  const Shape* x = shape(node.input(0));
  const Shape* y = shape(node.outputs[0]);
  if (!x || !y || y->size() < 3) return {1000, std::nullopt, std::nullopt};
  ConvShape c;
  c.out = layer.out, c.in_group = layer.in, c.groups = layer.groups, c.taps = layer.taps;
  c.out_elements = static_cast<double>(element_count(*y));
  c.in_elements = static_cast<double>(element_count(*x));
  c.pixels = c.out_elements / static_cast<double>(std::max<int64_t>(1, layer.out));
  c.stride = 1;
  for (int64_t s : node.ints("strides")) c.stride = std::max(c.stride, s);
  c.width = y->back();
  if (layer.transposed) return {float_convolution(c) * 2, std::nullopt, std::nullopt};
  const bool flat = y->size() == 4 && c.pixels > 2;  // integer kernels are for images, not for what is one product a channel
  return {float_convolution(c), flat ? std::optional(integer_convolution(c)) : std::nullopt, std::nullopt};
}

NodeCost CostModel::product(const Node& node, const Layer& layer) const {
  const Shape* x = shape(node.input(0));
  if (!x || x->empty()) return {1000, std::nullopt, std::nullopt};
  const double rows = static_cast<double>(element_count(*x)) / static_cast<double>(std::max<int64_t>(1, layer.in));
  const double weights = static_cast<double>(layer.in * layer.out);
  const bool large = weights * 4 > 1 << 20;
  const double in_float = 500 + std::max(0.02 * rows * weights, (large ? 0.29 : 0.03) * weights);
  const double in_integer = 3500 + std::max((rows > 8 ? 0.0076 : 0.005) * rows * weights, (large ? 0.1 : 0.015) * weights);
  return {in_float, in_integer, in_integer + 0.4 * rows * static_cast<double>(layer.in)};
}

NodeCost CostModel::elementwise(const Node& n) const {
  const auto out = static_cast<double>(elements(n.outputs.empty() ? kNone : n.outputs[0])), in = static_cast<double>(elements(n.input(0)));
  const auto no = std::optional<double>{};
  if (n.is("Add") || n.is("Mul")) {
    const bool seen = elements(n.input(0)) > 0 && elements(n.input(1)) > 0;
    const bool same = seen && in == out && static_cast<double>(elements(n.input(1))) == out;
    const double channels = shape(n.outputs[0]) && shape(n.outputs[0])->size() > 1 ? static_cast<double>((*shape(n.outputs[0]))[1]) : 1;
    if (!seen) return {0.2 * out, no, no};
    if (n.is("Add") && same) return {350 + 0.06 * out, 800 + 0.2 * out, no};
    return {350 + 0.2 * out, same ? 800 + 0.28 * out : 800 + 0.4 * out + 20 * out / std::max(1.0, channels), no};
  }
  if (n.is("Concat")) return {350 + 0.25 * out, 800 + 0.16 * out, no};
  if (n.is("MaxPool")) {
    double taps = 1;
    for (int64_t k : n.ints("kernel_shape")) taps *= static_cast<double>(k);
    const bool narrow = shape(n.outputs[0]) && shape(n.outputs[0])->size() > 1 && (*shape(n.outputs[0]))[1] < 32;
    return {350 + 0.04 * taps * out, n.outputs.size() == 1 ? std::optional(800 + out * (0.035 * taps + (narrow ? 0.5 : 0))) : no, no};
  }
  if (n.is("GlobalAveragePool")) return {350 + 0.06 * in, 1500 + 0.06 * in, no};
  if (n.is("Sigmoid") || n.is("LeakyRelu")) return {after_convolution(n) ? 0 : 0.3 * out, 800 + 0.37 * out, no};
  if (n.is("HardSwish")) return {(after_convolution(n) ? 0.3 : 0.55) * out, no, no};
  if (n.is("HardSigmoid")) return {(after_convolution(n) ? 0.05 : 0.2) * out, no, no};
  if (n.is("AveragePool")) return {350 + 0.1 * out, 800 + 1.5 * out, no};
  if (n.is("Resize")) return {350 + 0.6 * out, 800 + 5.5 * out, no};
  const double moved = 0.15 * out;
  return {moved, only_moves(n) ? std::optional(moved) : no, no};
}

NodeCost CostModel::node(const Node& n) const {
  NodeCost cost;
  if (const auto layer = layer_of(graph_, n.id)) cost = layer->convolution ? convolution(n, *layer) : product(n, *layer);
  else cost = elementwise(n);
  const bool weighted = cost.dynamic || n.is("Conv") || n.is("ConvTranspose");
  if (!weighted && std::find(profile_.integer_ops.begin(), profile_.integer_ops.end(), n.op) == profile_.integer_ops.end()) cost.in_integer.reset();
  if (!n.domain.empty()) cost.in_integer.reset();
  if (!profile_.dynamic_products) cost.dynamic.reset();
  if (profile_.weigh_cost) return cost;
  // A target whose kernels weren't timed: integer wherever there is a kernel.
  if (n.is("ConvTranspose") && layer_of(graph_, n.id)) return {1e6, 1.0, std::nullopt};
  return cost.in_integer ? NodeCost{weighted ? 1e6 : 10.0, weighted ? 1.0 : 10.0, cost.dynamic} : NodeCost{10, std::nullopt, std::nullopt};
}

double CostModel::quantize(ValueId value) const {
  if (!profile_.weigh_cost) return 5;
  const auto n = static_cast<double>(elements(value));
  const double large = n * 4 > 1 << 20 ? 1.5 : 1.0;
  return pool_before(value) + 1.2 * (300 + n * 0.22 * large + n * (blocked(graph_.producer(value)) ? 0.2 * large : 0.15 * large));
}

double CostModel::dequantize(ValueId value) const {
  if (!profile_.weigh_cost) return 5;
  const auto n = static_cast<double>(elements(value));
  const double large = n * 4 > 1 << 20 ? 1.5 : 1.0;
  const auto& uses = graph_.value(value).uses;
  const bool to_blocked = std::any_of(uses.begin(), uses.end(), [&](const Use& u) { return u.index >= 0 && blocked(&graph_.node(u.node)); });
  double ns = 300 + n * 0.2 * large + (to_blocked ? n * 0.2 * large : 0);
  const Node* producer = graph_.producer(value);
  const Node* next = graph_.sole_consumer(value);
  if (producer && producer->is("Conv") && next) {  // what the float convolution would have done along with itself
    if (next->is("HardSwish") || next->is("Sigmoid")) ns += 0.3 * n;
    else if (next->is("HardSigmoid") || next->is("LeakyRelu")) ns += 0.2 * n;
    else if (next->is("Clip")) ns += 0.15 * n;
    else if (next->is("Relu")) ns += 0.1 * n;
  }
  return 1.2 * ns;
}

}  // namespace infopt

#include "passes/support/coded_layers.h"

#include <algorithm>
#include <cmath>

#include "lib/autodiff/gradient.h"
#include "passes/support/weight_grid.h"

namespace infopt {
namespace {

/// A scale or zero point for each element: of all, of a place along the axis, or of a block of places.
std::optional<Tensor> expand(const Tensor& given, const Shape& shape, int64_t axis, int64_t block) {
  const Tensor t = cast(given, DType::F32);
  if (t.size() == 1) return broadcast_to(t.reshaped({}), shape);
  const int64_t rank = static_cast<int64_t>(shape.size());
  if (axis < -rank || axis >= rank) return std::nullopt;
  const auto a = static_cast<size_t>(axis < 0 ? axis + rank : axis);
  if (block == 0) {
    if (t.rank() != 1 || t.dim(0) != shape[a]) return std::nullopt;
    Shape wide(shape.size(), 1);
    wide[a] = shape[a];
    return broadcast_to(t.reshaped(wide), shape);
  }
  Shape blocks = shape;
  blocks[a] = (shape[a] + block - 1) / block;
  if (t.shape() != blocks) return std::nullopt;
  Tensor out(DType::F32, shape);
  int64_t inner = 1;
  for (size_t i = a + 1; i < shape.size(); ++i) inner *= shape[i];
  for (int64_t i = 0; i < out.size(); ++i) {
    const int64_t outer = i / (inner * shape[a]), place = i / inner % shape[a];
    out.mutable_data<float>()[i] = t.data<float>()[(outer * blocks[a] + place / block) * inner + i % inner];
  }
  return out;
}

std::vector<float> values(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.size()}; }

/// DequantizeLinear over constants, read once; null else.
const Node* constant_codes(const Graph& graph, ValueId v) {
  const Node* d = v == kNone ? nullptr : graph.producer(v);
  if (!d || !d->is("DequantizeLinear") || graph.value(v).uses.size() != 1 || !graph.constant(d->input(0)) || !graph.constant(d->input(1))) return nullptr;
  if (graph.constant(d->input(1))->dtype() != DType::F32) return nullptr;
  return d->input(2) == kNone || graph.constant(d->input(2)) ? d : nullptr;
}

/// A constant, or one behind a DequantizeLinear, that nobody else reads.
bool own_constant(const Graph& graph, ValueId v) {
  if (v == kNone || graph.value(v).uses.size() != 1) return false;
  const Tensor* c = graph.constant(v);
  return c ? c->dtype() == DType::F32 : constant_codes(graph, v) != nullptr;
}

/// DequantizeLinear(codes) of an int32 bias, with a scale for each or one in all.
std::optional<Tensor> bias_values(const Graph& graph, ValueId v) {
  if (const Tensor* c = graph.constant(v)) return c->clone();
  const Node& d = *graph.producer(v);
  const Tensor codes = cast(*graph.constant(d.input(0)), DType::F64);
  const auto scales = expand(*graph.constant(d.input(1)), codes.shape(), d.i("axis", 1), 0);
  if (!scales || codes.rank() != 1) return std::nullopt;
  Tensor out(DType::F32, codes.shape());
  for (int64_t i = 0; i < out.size(); ++i) out.mutable_data<float>()[i] = static_cast<float>(codes.data<double>()[i] * static_cast<double>(scales->data<float>()[i]));
  return out;
}

ValueId bias_of(const Graph& graph, const Node& n) {
  if (!n.is("MatMul")) return own_constant(graph, n.input(2)) && n.f("beta", 1) == 1 ? n.input(2) : kNone;
  const Node* add = graph.sole_consumer(n.outputs[0]);
  if (!add || !add->is("Add")) return kNone;
  const ValueId other = add->input(add->input(0) == n.outputs[0] ? 1 : 0);
  return own_constant(graph, other) ? other : kNone;
}

}  // namespace

std::optional<CodedLayer> coded_layer(const Graph& graph, NodeId id) {
  const Node& n = graph.node(id);
  if (!n.is("Conv") && !n.is("ConvTranspose") && !n.is("Gemm") && !n.is("MatMul")) return std::nullopt;
  const Node* d = constant_codes(graph, n.input(1));
  if (!d || graph.value(d->input(0)).uses.size() != 1) return std::nullopt;
  const Tensor& codes = *graph.constant(d->input(0));
  const Tensor* zero = graph.constant(d->input(2));
  if (!is_integer(codes.dtype()) || bits_of(codes.dtype()) > 8) return std::nullopt;
  CodedLayer l{id, n.input(1), d->input(0), {codes.dtype(), codes.shape(), lowest_code(codes.dtype()), highest_code(codes.dtype()), {}, {}}, kNone, {}};
  const auto scales = expand(*graph.constant(d->input(1)), codes.shape(), d->i("axis", 1), d->i("block_size", 0));
  const auto zeros = zero ? expand(*zero, codes.shape(), d->i("axis", 1), d->i("block_size", 0)) : Tensor::zeros(DType::F32, codes.shape());
  if (!scales || !zeros) return std::nullopt;
  l.grid.scales = values(*scales);
  l.grid.zeros = values(*zeros);
  if (std::any_of(l.grid.scales.begin(), l.grid.scales.end(), [](float s) { return !(s > 0) || !std::isfinite(s); })) return std::nullopt;
  if (const ValueId bias = bias_of(graph, n); bias != kNone)
    if (const auto b = bias_values(graph, bias)) l.bias = bias, l.bias_values = *b;
  return l;
}

void set_codes(GraphEdit& edit, const CodedLayer& layer, const std::vector<int32_t>& codes) {
  edit.set_constant(layer.codes, cast(Tensor::vector(codes).reshaped(layer.grid.shape), layer.grid.dtype));
}

void set_bias(GraphEdit& edit, const CodedLayer& layer, const Tensor& bias) {
  const Graph& graph = edit.graph();
  if (graph.constant(layer.bias)) {
    edit.set_constant(layer.bias, bias);
    return;
  }
  const Node& d = *graph.producer(layer.bias);
  const auto scales = expand(*graph.constant(d.input(1)), bias.shape(), d.i("axis", 1), 0);
  std::vector<int32_t> codes;
  for (int64_t i = 0; i < bias.size(); ++i) {
    const double code = std::nearbyint(static_cast<double>(bias.data<float>()[i]) / static_cast<double>(scales->data<float>()[i]));
    codes.push_back(static_cast<int32_t>(std::clamp(code, -2147483647.0, 2147483647.0)));
  }
  edit.set_input(d.id, 0, edit.add_constant(Tensor::vector(codes)));
}

}  // namespace infopt

#include "recipes/file_layers.h"

#include <algorithm>

#include "calibration/partial_session.h"
#include "lib/base/error.h"
#include "passes/support/layers.h"

namespace infopt {
namespace {

bool one_of(const Node& n, std::initializer_list<const char*> names) {
  return n.domain.empty() && std::any_of(names.begin(), names.end(), [&](const char* name) { return n.op == name; });
}

bool is_qlinear(const Node& n) { return one_of(n, {"QLinearConv", "QLinearMatMul"}); }

/// com.microsoft's product with packed weights.
bool is_packed(const Node& n) { return n.op == "MatMulNBits" && n.domain == "com.microsoft"; }

/// The constant that a value is made from by decoding and moving alone; null where there is none.
const Tensor* source_constant(const Graph& graph, ValueId v) {
  for (int hops = 0; hops < 16 && v != kNone; ++hops) {
    if (const Tensor* t = graph.constant(v)) return t;
    const Node* p = graph.producer(v);
    if (!p || !one_of(*p, {"DequantizeLinear", "Cast", "Mul", "Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze"})) return nullptr;
    v = p->input(0);
  }
  return nullptr;
}

/// An activation that was quantized: its type is of integers, whatever engine reads it.
bool is_dequantized(const Graph& graph, ValueId v) {
  const Node* p = v == kNone ? nullptr : graph.producer(v);
  return p && p->is("DequantizeLinear");
}

LayerForm form_of(const Graph& graph, const Node& n, const std::vector<Observed>& seen) {
  if (is_qlinear(n)) return LayerForm::Int8Static;
  if (one_of(n, {"MatMulInteger", "ConvInteger"})) return LayerForm::Int8Dynamic;
  const bool quantized = is_dequantized(graph, n.input(0)) && is_dequantized(graph, n.input(1));
  const Tensor* weights = source_constant(graph, n.input(1));
  if (weights && is_float(weights->dtype()) && bits_of(weights->dtype()) == 8) return quantized ? LayerForm::Float8 : LayerForm::WeightOnly;
  if (quantized) return LayerForm::Int8Static;
  if (is_packed(n) || (weights && !is_float(weights->dtype()) && bits_of(weights->dtype()) < 8)) return LayerForm::WeightOnly;
  if (weights && !is_float(weights->dtype()) && bits_of(weights->dtype()) <= 8) return LayerForm::Int8Storage;
  const DType type = n.input(0) == kNone ? DType::Undefined : seen[static_cast<size_t>(n.input(0))].dtype;
  return type == DType::F16 ? LayerForm::Float16 : type == DType::BF16 ? LayerForm::BFloat16 : LayerForm::Float32;
}

/// The node with the name and inputs of the float operator that it is in integers.
Node as_float(const Node& n) {
  Node f = n;
  if (is_qlinear(n)) f.inputs = {n.input(0), n.input(3)};
  f.domain.clear();
  f.op = n.op == "MatMulInteger" || is_packed(n) || n.op == "QLinearMatMul" ? "MatMul" : n.op == "ConvInteger" || n.op == "QLinearConv" ? "Conv" : n.op;
  return f;
}

}  // namespace

std::vector<LayerReport> layers_of_file(const Graph& graph, DataSet& data) {
  std::vector<Observed> seen(graph.value_capacity());
  SessionOptions options;
  options.fold = false;
  for (size_t v = 0; v < graph.value_capacity(); ++v) {
    const auto id = static_cast<ValueId>(v);
    if (!graph.value_alive(id)) continue;
    const Tensor& constant = graph.value(id).constant;
    if (constant.defined()) seen[v] = {constant.dtype(), constant.shape()};
    else options.taps.push_back(id);
  }
  data.reset();
  Sample sample;
  if (!data.next(sample)) throw Error(ErrorKind::Malformed, "the data has no samples");
  run_partially(graph, options, sample, [&](ValueId id, const Tensor& t, Layout) { seen[static_cast<size_t>(id)] = {t.dtype(), t.shape()}; });
  std::vector<LayerReport> layers;
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    if (!is_qlinear(n) && !is_packed(n) && !one_of(n, {"MatMulInteger", "ConvInteger", "Conv", "ConvTranspose", "Gemm", "MatMul"})) continue;
    const Node f = as_float(n);
    LayerReport r;
    r.node = graph.label(id);
    r.op = n.op;
    r.form = form_of(graph, n, seen);
    r.reason = "as it stands in the file";
    r.macs = macs_of(graph, f, seen);
    if (is_packed(n)) r.weight_elements = n.i("N", 0) * n.i("K", 0);
    else if (const Tensor* weights = source_constant(graph, f.input(1))) r.weight_elements = weights->size();
    layers.push_back(std::move(r));
  }
  return layers;
}

}  // namespace infopt

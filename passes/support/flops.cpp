#include "passes/support/flops.h"

#include <set>

namespace infopt {
namespace {

/// Where an operator that multiplies has its two factors.
struct Product {
  size_t a = 0, b = 1;
  bool convolution = false, transposed = false;
};

bool product_of(const Node& n, Product& p) {
  if (n.is("Conv") || n.is("ConvInteger")) p.convolution = true;
  else if (n.is("ConvTranspose")) p.convolution = p.transposed = true;
  else if (n.is("QLinearConv")) p = {0, 3, true, false};
  else if (n.is("QLinearMatMul")) p = {0, 3, false, false};
  else if (n.domain == "com.microsoft" && n.op == "MatMulNBits") return true;
  else return n.is("Gemm") || n.is("MatMul") || n.is("MatMulInteger");
  return true;
}

const Shape* shape_of(const Graph& graph, const std::vector<Observed>& seen, ValueId v) {
  if (v == kNone) return nullptr;
  if (const Tensor* t = graph.constant(v)) return &t->shape();
  const Observed& o = seen[static_cast<size_t>(v)];
  return o.dtype == DType::Undefined ? nullptr : &o.shape;
}

/// -1 where shapes aren't known.
int64_t macs(const Graph& graph, const Node& n, const Product& p, const std::vector<Observed>& seen) {
  const Shape *x = shape_of(graph, seen, n.input(p.a)), *w = shape_of(graph, seen, n.input(p.b));
  const Shape* y = n.outputs.empty() ? nullptr : shape_of(graph, seen, n.outputs[0]);
  if (!x || !y || x->empty()) return -1;
  if (n.op == "MatMulNBits") return n.i("K", x->back()) * element_count(*y);
  if (p.convolution) {
    if (!w || w->size() < 2) return -1;
    int64_t each = (*w)[1];
    for (size_t i = 2; i < w->size(); ++i) each *= (*w)[i];
    return each * element_count(p.transposed ? *x : *y);
  }
  const bool turned = n.is("Gemm") && n.i("transA", 0) != 0;
  return (turned ? x->front() : x->back()) * element_count(*y);
}

/// Whether a constant at that input is a parameter. Integers are where they are codes of weights.
bool is_parameter(const Node& n, size_t input, const Tensor& t, const Product* p) {
  const bool coded = n.is("DequantizeLinear") || n.is("QuantizeLinear");
  if (coded) return n.is("DequantizeLinear") && input == 0;
  if (n.op == "MatMulNBits") return input == 1 || (input == 5 && is_float(t.dtype()));
  if (p && (n.op.starts_with("QLinear") || n.op.ends_with("Integer"))) return input == p->b || (n.is("QLinearConv") && input == 8);
  if (n.is("Cast")) return input == 0 && bits_of(t.dtype()) <= 16 && t.rank() > 0;  // storage form
  return is_float(t.dtype());
}

class Counter {
 public:
  void count(const Graph& graph, const std::vector<Observed>& seen, NodeId owner) {
    std::set<ValueId> met;
    for (NodeId id : graph.order()) {
      const Node& n = graph.node(id);
      if (n.is("Constant")) continue;
      CountedNode cost{owner == kNone ? id : owner, 0, 0};
      Product p;
      const bool multiplies = product_of(n, p);
      if (multiplies) {
        cost.macs = macs(graph, n, p, seen);
        if (cost.macs < 0) ++costs.unknown, cost.macs = 0;
      }
      for (size_t i = 0; i < n.inputs.size(); ++i) {
        const Tensor* t = graph.constant(n.inputs[i]);
        if (!t || !is_parameter(n, i, *t, multiplies ? &p : nullptr)) {
          if (t && n.op == "MatMulNBits" && met.insert(n.inputs[i]).second) costs.parameter_bytes += static_cast<int64_t>(t->bytes());
          if (t && n.is("DequantizeLinear") && met.insert(n.inputs[i]).second) costs.parameter_bytes += static_cast<int64_t>(t->bytes());
          continue;
        }
        if (!met.insert(n.inputs[i]).second) continue;
        // Four-bit weights of MatMulNBits lie two to a byte.
        cost.parameters += n.op == "MatMulNBits" && i == 1 ? n.i("N", 0) * n.i("K", 0) : t->size();
        costs.parameter_bytes += static_cast<int64_t>(t->bytes());
      }
      for (ValueId v : n.captures) {  // what bodies read of this graph
        const Tensor* t = graph.constant(v);
        if (!t || !is_float(t->dtype()) || !met.insert(v).second) continue;
        cost.parameters += t->size();
        costs.parameter_bytes += static_cast<int64_t>(t->bytes());
      }
      costs.macs += cost.macs;
      costs.parameters += cost.parameters;
      if (cost.macs || cost.parameters) costs.nodes.push_back(cost);
      for (const auto& body : n.bodies()) count(*body, declared_shapes(*body), owner == kNone ? id : owner);
    }
  }

  GraphCosts costs;
};

}  // namespace

GraphCosts count_costs(const Graph& graph, const std::vector<Observed>& seen) {
  Counter counter;
  counter.count(graph, seen, kNone);
  return std::move(counter.costs);
}

int64_t recurrent_macs(const Graph& graph, const std::vector<Observed>& seen, const Node& n) {
  if (!n.is("LSTM") && !n.is("GRU") && !n.is("RNN")) return 0;
  const Shape *x = shape_of(graph, seen, n.input(0)), *w = shape_of(graph, seen, n.input(1)), *r = shape_of(graph, seen, n.input(2));
  return x && w && r && x->size() == 3 ? (*x)[0] * (*x)[1] * (element_count(*w) + element_count(*r)) : 0;
}

int64_t recurrent_macs(const Graph& graph, const std::vector<Observed>& seen) {
  int64_t macs = 0;
  for (NodeId id : graph.order()) macs += recurrent_macs(graph, seen, graph.node(id));
  return macs;
}

std::vector<Observed> declared_shapes(const Graph& graph) {
  std::vector<Observed> out(graph.value_capacity());
  for (size_t v = 0; v < out.size(); ++v) {
    if (!graph.value_alive(static_cast<ValueId>(v))) continue;
    const Type& type = graph.value(static_cast<ValueId>(v)).type;
    if (const Tensor* t = graph.constant(static_cast<ValueId>(v))) {
      out[v] = {t->dtype(), t->shape()};
      continue;
    }
    if (!type.has_shape || type.dtype == DType::Undefined) continue;
    Shape shape;
    for (const Dim& d : type.shape) shape.push_back(d.size < 0 && shape.empty() ? 1 : d.size);
    bool known = true;
    for (int64_t d : shape) known = known && d >= 0;
    if (known) out[v] = {type.dtype, shape};
  }
  return out;
}

}  // namespace infopt

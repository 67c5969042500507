// fuse_layernorm
//
// before     m = ReduceMean(x);  d = x − m;  v = ReduceMean(d²);  d/√(v + ε) [·γ [+ β]]
// after      LayerNormalization(x, γ, β, axis, epsilon)
// conditions The means are over the same trailing axes and keep them; d² is Pow(d, 2) or d·d, 1/√ a Div, Reciprocal, or Pow(−1/2); ε, γ and β are
//            constant; γ and β have the shape of those axes. Without γ the axes' sizes must be known: it is then ones. Not in double: the
//            operator computes in float.
// formula    y = (x − E[x])/√(E[(x − E[x])²] + ε)·γ + β   (ONNX operator LayerNormalization, opset 17; Ba et al. 2016)
#include <algorithm>

#include "passes/pass.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

struct Norm {
  ValueId x = kNone;
  int64_t axes = 0;  ///< how many, at the end
  double epsilon = 0;
};

/// How many trailing axes a ReduceMean that keeps them averages; 0 where it isn't one.
int64_t trailing_axes(const Graph& graph, const Node& n) {
  if (!n.is("ReduceMean") || n.i("keepdims", 1) == 0) return 0;
  auto axes = axes_of(graph, n, 1);
  if (!axes || axes->empty()) return 0;
  const int64_t rank = rank_of(graph, n.input(0));
  for (int64_t& a : *axes) {
    if (a >= 0 && rank < 0) return 0;
    if (a >= 0) a -= rank;
  }
  std::sort(axes->begin(), axes->end());
  for (size_t i = 0; i < axes->size(); ++i)
    if ((*axes)[i] != static_cast<int64_t>(i) - static_cast<int64_t>(axes->size())) return 0;
  return static_cast<int64_t>(axes->size());
}

/// x and the axes where the value is x less its own mean.
std::optional<Norm> centered(const Graph& graph, ValueId value) {
  const Node* sub = made_by(graph, value, "Sub");
  const Node* mean = sub ? made_by(graph, sub->input(1), "ReduceMean") : nullptr;
  if (!mean || mean->input(0) != sub->input(0)) return std::nullopt;
  const int64_t axes = trailing_axes(graph, *mean);
  return axes ? std::optional(Norm{sub->input(0), axes, 0}) : std::nullopt;
}

/// d where the value is d².
ValueId squared(const Graph& graph, ValueId value) {
  if (const Node* mul = made_only_for(graph, value, "Mul")) return mul->input(0) == mul->input(1) ? mul->input(0) : kNone;
  if (const Node* pow = made_only_for(graph, value, "Pow")) return scalar(graph, pow->input(1)) == 2.0 ? pow->input(0) : kNone;
  return kNone;
}

ValueId beside_constant(const Graph& graph, const Node& n, ValueId& constant) {
  for (size_t side : {size_t{1}, size_t{0}})
    if (n.inputs.size() == 2 && graph.constant(n.input(side))) {
      constant = n.input(side);
      return n.input(1 - side);
    }
  return kNone;
}

/// v where the value is E[d²] + ε of a d like `about`; sets epsilon.
bool variance_of(const Graph& graph, ValueId value, Norm& about) {
  const Node* add = made_only_for(graph, value, "Add");
  ValueId epsilon = kNone;
  const ValueId v = add ? beside_constant(graph, *add, epsilon) : kNone;
  const Node* mean = v == kNone ? nullptr : made_only_for(graph, v, "ReduceMean");
  const auto e = epsilon == kNone ? std::nullopt : scalar(graph, epsilon);
  if (!mean || !e || *e < 0 || trailing_axes(graph, *mean) != about.axes) return false;
  const ValueId d = squared(graph, mean->input(0));
  const auto of = d == kNone ? std::nullopt : centered(graph, d);
  if (!of || of->x != about.x || of->axes != about.axes) return false;
  about.epsilon = *e;
  return true;
}

/// v where the value is √v.
ValueId root(const Graph& graph, ValueId value) {
  if (const Node* sqrt = made_only_for(graph, value, "Sqrt")) return sqrt->input(0);
  if (const Node* pow = made_only_for(graph, value, "Pow")) return scalar(graph, pow->input(1)) == 0.5 ? pow->input(0) : kNone;
  return kNone;
}

/// v where the value is 1/√v.
ValueId inverse_root(const Graph& graph, ValueId value) {
  if (const Node* r = made_only_for(graph, value, "Reciprocal")) return root(graph, r->input(0));
  if (const Node* div = made_only_for(graph, value, "Div")) return scalar(graph, div->input(0)) == 1.0 ? root(graph, div->input(1)) : kNone;
  if (const Node* pow = made_only_for(graph, value, "Pow")) return scalar(graph, pow->input(1)) == -0.5 ? pow->input(0) : kNone;
  return kNone;
}

/// The normalization that the node ends, γ and β apart.
std::optional<Norm> norm_of(const Graph& graph, const Node& n) {
  if (n.is("Div")) {
    auto norm = centered(graph, n.input(0));
    const ValueId v = norm ? root(graph, n.input(1)) : kNone;
    return v != kNone && variance_of(graph, v, *norm) ? norm : std::nullopt;
  }
  if (!n.is("Mul") || n.inputs.size() != 2) return std::nullopt;
  for (size_t side : {size_t{1}, size_t{0}}) {
    auto norm = centered(graph, n.input(1 - side));
    const ValueId v = norm ? inverse_root(graph, n.input(side)) : kNone;
    if (v != kNone && variance_of(graph, v, *norm)) return norm;
  }
  return std::nullopt;
}

/// The constant in the shape of the normalized axes; undefined where it hasn't that many elements, or isn't one.
Tensor fitted(const Graph& graph, ValueId constant, const Norm& norm) {
  const Tensor* t = graph.constant(constant);
  if (!t || !is_float(t->dtype())) return {};
  const Type& x = graph.value(norm.x).type;
  const auto axes = static_cast<size_t>(norm.axes);
  Shape shape = t->shape();
  while (shape.size() > axes && shape[0] == 1) shape.erase(shape.begin());
  if (shape.size() != axes) return {};
  for (size_t i = 0; i < axes; ++i) {
    const int64_t known = x.has_shape && x.shape.size() >= axes ? x.shape[x.shape.size() - axes + i].size : -1;
    if (known != shape[i]) return {};
  }
  return t->reshaped(shape);
}

struct Affine {
  Tensor gain, bias;
  ValueId end;  ///< the value that the whole makes
};

Affine affine_after(const Graph& graph, ValueId y, const Norm& norm) {
  Affine a{{}, {}, y};
  for (const char* op : {"Mul", "Add"}) {
    const Node* next = graph.sole_consumer(a.end);
    if (!next || !next->is(op) || output_of(*next) == kNone) continue;
    ValueId c = kNone;
    if (beside_constant(graph, *next, c) != a.end) continue;
    Tensor t = fitted(graph, c, norm);
    if (!t.defined()) break;
    (op[0] == 'M' ? a.gain : a.bias) = std::move(t);
    a.end = next->outputs[0];
  }
  return a;
}

void fuse_at(GraphEdit& edit, NodeId id) {
  const Graph& graph = edit.graph();
  const Node& n = graph.node(id);
  if (output_of(n) == kNone) return;
  const auto norm = norm_of(graph, n);
  if (!norm) return;
  const DType dtype = dtype_of_value(graph, norm->x);
  if (dtype != DType::F32 && dtype != DType::F16 && dtype != DType::BF16) return;
  Affine affine = affine_after(graph, n.outputs[0], *norm);
  if (!affine.gain.defined()) {
    const auto shape = graph.value(norm->x).type;
    if (!shape.has_shape) return;
    Shape sizes;
    for (size_t i = shape.shape.size() - static_cast<size_t>(norm->axes); i < shape.shape.size(); ++i) sizes.push_back(shape.shape[i].size);
    if (std::any_of(sizes.begin(), sizes.end(), [](int64_t s) { return s < 0; })) return;
    affine.gain = rounded(std::vector<double>(static_cast<size_t>(element_count(sizes)), 1), sizes, dtype);
  }
  std::vector<ValueId> inputs{norm->x, edit.add_constant(affine.gain)};
  if (affine.bias.defined()) inputs.push_back(edit.add_constant(affine.bias));
  edit.note("'" + graph.label(id) + "' ends a LayerNormalization");
  const ValueId y = edit.add({.op = "LayerNormalization", .name = n.name, .attributes = {{"axis", -norm->axes, {}}, {"epsilon", static_cast<float>(norm->epsilon), {}}}}, inputs, id);
  edit.set_type(y, graph.value(affine.end).type);
  replace_and_remove(edit, affine.end, y);
}

void fuse(GraphEdit& edit) {
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order)
    if (edit.graph().alive(id)) fuse_at(edit, id);
}

void run(GraphEdit& edit, PassContext&, const Options&) { each_graph(edit, fuse); }

}  // namespace

PassDef pass_fuse_layernorm() {
  return {"fuse_layernorm", "recognizes LayerNormalization in its pieces", Contract::Rounding, {}, false, 17, run};
}

}  // namespace infopt

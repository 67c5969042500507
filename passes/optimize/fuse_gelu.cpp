// fuse_gelu
//
// before     any product of x, 1 + Erf(x/√2) and ½: x·(½·(1 + Erf(x·0.7071))), (x·(1 + Erf(x/√2)))/2, …;  with `as: operator` also that of x, ½ and
//            1 + Tanh(√(2/π)·(x + 0.044715·x³))
// after      as: pieces (the default)   Mul(Mul(x, Add(Erf(Div(x, √2)), 1)), ½), the one form that engines fuse into a kernel when they load
//            as: operator               Gelu(x), Gelu(x, approximate: tanh)
// conditions Nobody else reads what lies between; the constants are scalars or don't widen x's shape. The operator only where the model's opset
//            has it (20): elsewhere the pieces are written. The form that engines know is left as it is.
// formula    Gelu(x) = x·½·(1 + erf(x/√2))   (ONNX operator Gelu; Hendrycks and Gimpel 2016)
#include <cmath>
#include <numbers>

#include "passes/pass.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

constexpr double kLoose = 1e-3;  // constants that went through float16

bool about(std::optional<double> v, double wanted) { return v && std::fabs(*v - wanted) <= kLoose * std::fabs(wanted); }

/// The factors of a product, constants apart: they are multiplied into `scale`.
struct Product {
  double scale = 1;
  std::vector<ValueId> factors;
};

bool collect(const Graph& graph, const Node& n, Product& product, int depth) {
  const bool div = n.is("Div");
  if ((!div && !n.is("Mul")) || n.inputs.size() != 2 || depth > 3) return false;
  for (size_t side : {size_t{0}, size_t{1}}) {
    const ValueId v = n.input(side);
    if (graph.constant(v)) {
      const auto c = splat(graph, v);
      if (!c || (div && side == 0) || !is_float(graph.constant(v)->dtype()) || !keeps_shape(graph, n.input(1 - side), graph.constant(v)->shape())) return false;
      product.scale *= div ? 1 / *c : *c;
    } else if (div && side == 1) {
      return false;
    } else {
      const Node* inner = only_reader(graph, v) ? graph.producer(v) : nullptr;
      if (!inner || !collect(graph, *inner, product, depth + 1)) product.factors.push_back(v);
    }
  }
  return true;
}

/// v where the value is v plus or times a constant near `wanted` that nobody else reads (Div by its inverse too).
ValueId beside(const Graph& graph, ValueId value, const char* op, double wanted) {
  const Node* n = made_only_for(graph, value, op);
  if (!n && std::string_view(op) == "Mul") {
    n = made_only_for(graph, value, "Div");
    return n && about(splat(graph, n->input(1)), 1 / wanted) && keeps_shape(graph, n->input(0), graph.constant(n->input(1))->shape()) ? n->input(0) : kNone;
  }
  for (size_t side : {size_t{1}, size_t{0}})
    if (n && n->inputs.size() == 2 && about(splat(graph, n->input(side)), wanted) && keeps_shape(graph, n->input(1 - side), graph.constant(n->input(side))->shape()))
      return n->input(1 - side);
  return kNone;
}

/// x where the value is 1 + Erf(x/√2).
ValueId in_erf(const Graph& graph, ValueId value) {
  const ValueId e = beside(graph, value, "Add", 1);
  const Node* erf = e == kNone ? nullptr : made_only_for(graph, e, "Erf");
  return erf ? beside(graph, erf->input(0), "Mul", 1 / std::numbers::sqrt2) : kNone;
}

bool cube_of(const Graph& graph, ValueId value, ValueId x) {
  if (const Node* pow = made_only_for(graph, value, "Pow")) return pow->input(0) == x && scalar(graph, pow->input(1)) == 3.0;
  const Node* mul = made_only_for(graph, value, "Mul");
  if (!mul || mul->inputs.size() != 2) return false;
  for (size_t side : {size_t{0}, size_t{1}}) {
    const Node* square = mul->input(side) == x ? made_only_for(graph, mul->input(1 - side), "Mul") : nullptr;
    if (square && square->input(0) == x && square->input(1) == x) return true;
  }
  return false;
}

/// Whether the value is 1 + Tanh(√(2/π)·(x + 0.044715·x³)).
bool in_tanh(const Graph& graph, ValueId value, ValueId x) {
  const ValueId t = beside(graph, value, "Add", 1);
  const Node* tanh = t == kNone ? nullptr : made_only_for(graph, t, "Tanh");
  const ValueId inner = tanh ? beside(graph, tanh->input(0), "Mul", std::sqrt(2 / std::numbers::pi)) : kNone;
  const Node* sum = inner == kNone ? nullptr : made_only_for(graph, inner, "Add");
  if (!sum || sum->inputs.size() != 2) return false;
  for (size_t side : {size_t{0}, size_t{1}}) {
    const ValueId cubic = sum->input(side) == x ? beside(graph, sum->input(1 - side), "Mul", 0.044715) : kNone;
    if (cubic != kNone && cube_of(graph, cubic, x)) return true;
  }
  return false;
}

enum class Kind { None, Erf, Tanh };

/// Which kind the node is the last operator of, and of what.
Kind gelu_of(const Graph& graph, const Node& n, ValueId& x) {
  Product product;
  if (output_of(n) == kNone || !collect(graph, n, product, 0)) return Kind::None;
  if (product.factors.size() != 2 || !about(product.scale, 0.5)) return Kind::None;
  for (size_t side : {size_t{0}, size_t{1}}) {
    x = product.factors[side];
    if (in_erf(graph, product.factors[1 - side]) == x) return Kind::Erf;
    if (in_tanh(graph, product.factors[1 - side], x)) return Kind::Tanh;
  }
  return Kind::None;
}

/// The forms that engines look for: Div by √2, and ½ outermost or at x.
bool well_known(const Graph& graph, const Node& n) {
  auto halves = [&](const Node& mul, ValueId& other) {
    for (size_t side : {size_t{0}, size_t{1}})
      if (scalar(graph, mul.input(side)) == 0.5) {
        other = mul.input(1 - side);
        return true;
      }
    return false;
  };
  auto erf_by_div = [&](ValueId v) {
    const ValueId e = beside(graph, v, "Add", 1);
    const Node* erf = e == kNone ? nullptr : made_by(graph, e, "Erf");
    return erf && made_by(graph, erf->input(0), "Div");
  };
  if (!n.is("Mul")) return false;
  ValueId product = kNone, x = kNone;
  const Node* outer = &n;
  if (halves(n, product)) outer = made_by(graph, product, "Mul");
  if (!outer) return false;
  for (size_t side : {size_t{0}, size_t{1}}) {
    if (!erf_by_div(outer->input(side))) continue;
    const Node* half = made_by(graph, outer->input(1 - side), "Mul");
    return outer != &n || (half && halves(*half, x));
  }
  return false;
}

ValueId write_pieces(GraphEdit& edit, const Node& n, ValueId x, DType dtype, const Type& type) {
  auto number = [&](double v) { return edit.add_constant(rounded({v}, {}, dtype)); };
  auto step = [&](const char* op, ValueId a, ValueId b) {
    const ValueId y = edit.add({op}, b == kNone ? std::vector<ValueId>{a} : std::vector<ValueId>{a, b}, n.id);
    edit.set_type(y, type);
    return y;
  };
  const ValueId erf = step("Erf", step("Div", x, number(std::numbers::sqrt2)), kNone);
  return step("Mul", step("Mul", x, step("Add", erf, number(1))), number(0.5));
}

void fuse(GraphEdit& edit, bool as_operator) {
  const Graph& graph = edit.graph();
  const std::vector<NodeId> order = graph.order();
  for (NodeId id : order) {
    if (!graph.alive(id)) continue;
    const Node& n = graph.node(id);
    ValueId x = kNone;
    const Kind kind = gelu_of(graph, n, x);
    const DType dtype = dtype_of_value(graph, x);
    if (kind == Kind::None || !is_float(dtype)) continue;
    const bool one = as_operator && graph.opset() >= 20;
    if (!one && (kind == Kind::Tanh || well_known(graph, n))) {
      edit.note("'" + graph.label(id) + "' is a Gelu, left in its pieces for the engine to fuse");
      continue;
    }
    edit.note("'" + graph.label(id) + "' is a Gelu");
    ValueId y = kNone;
    if (one) {
      GraphEdit::NewNode spec{.op = "Gelu", .name = n.name};
      if (kind == Kind::Tanh) spec.attributes.push_back({"approximate", std::string("tanh"), {}});
      y = edit.add(std::move(spec), {x}, id);
      edit.set_type(y, graph.value(n.outputs[0]).type);
    } else {
      y = write_pieces(edit, n, x, dtype, graph.value(n.outputs[0]).type);
    }
    replace_and_remove(edit, n.outputs[0], y);
  }
}

void run(GraphEdit& edit, PassContext&, const Options& options) {
  const bool as_operator = options.text("as") == "operator";
  each_graph(edit, [&](GraphEdit& each) { fuse(each, as_operator); });
}

}  // namespace

PassDef pass_fuse_gelu() {
  return {"fuse_gelu", "recognizes Gelu in its pieces, and writes it as engines know it", Contract::Rounding,
          {{"as", "pieces: the form that engines fuse; operator: ONNX's Gelu where the model's opset has it (20)", std::string("pieces"), {"pieces", "operator"}}}, false, 0, run};
}

}  // namespace infopt

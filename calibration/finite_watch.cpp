#include "calibration/finite_watch.h"

#include <algorithm>
#include <cmath>

#include "lib/base/error.h"
#include "lib/base/finite.h"

namespace infopt {
namespace {

bool is_product(const Node& n) {
  for (const char* op : {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN"})
    if (n.is(op)) return true;
  return false;
}

}  // namespace

NotFinite not_finite(const Tensor& tensor) {
  NotFinite found;
  if (!tensor.defined() || !is_float(tensor.dtype()) || first_nonfinite(tensor) < 0) return found;
  for (double v : to_vector<double>(tensor)) {
    found.nan |= std::isnan(v);
    found.plus_infinity |= v == HUGE_VAL;
    found.minus_infinity |= v == -HUGE_VAL;
  }
  return found;
}

std::string name_of_value(const Graph& graph, ValueId id) {
  const Value& v = graph.value(id);
  if (!v.name.empty()) return "tensor '" + v.name + "'";
  return v.producer == kNone ? "a tensor" : "the output of " + graph.label(v.producer);
}

std::vector<ValueId> FiniteWatch::values(const Graph& graph) {
  std::vector<ValueId> out;
  for (size_t v = 0; v < graph.value_capacity(); ++v) {
    const auto id = static_cast<ValueId>(v);
    if (!graph.value_alive(id) || graph.value(id).producer == kNone || graph.value(id).constant.defined()) continue;
    const DType type = graph.value(id).type.dtype;
    if (type == DType::Undefined || is_float(type)) out.push_back(id);
  }
  return out;
}

bool FiniteWatch::excused(const Value& value) const {
  const Node& n = graph_.node(value.producer);
  if (n.is("Cast") || n.is("ConstantOfShape") || n.is("Constant") || !n.bodies().empty()) return true;
  if (std::any_of(value.uses.begin(), value.uses.end(), [&](const Use& u) { return u.index >= 0 && (graph_.node(u.node).is("IsNaN") || graph_.node(u.node).is("IsInf")); })) return true;
  return std::any_of(n.inputs.begin(), n.inputs.end(), [&](ValueId v) {
    if (v == kNone) return false;
    const Tensor* constant = graph_.constant(v);
    return tainted_[static_cast<size_t>(v)] || (constant && first_nonfinite(*constant) >= 0);
  });
}

void FiniteWatch::see(ValueId id, const NotFinite& found) {
  if (!found.any()) return;
  tainted_[static_cast<size_t>(id)] = true;
  const Value& value = graph_.value(id);
  if (value.producer == kNone || excused(value)) return;
  if (!found.nan && !found.plus_infinity && !is_product(graph_.node(value.producer))) return;
  throw Error(ErrorKind::Malformed, name_of_value(graph_, id) + " has a NaN or an infinite element");
}

}  // namespace infopt

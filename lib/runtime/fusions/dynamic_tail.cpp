#include "lib/runtime/fusions/dynamic_tail.h"

#include <algorithm>

namespace infopt {
namespace {

/// Where the columns run: along this axis of the weights, and along the result's axis so far from its end.
struct Columns {
  int64_t count = 0;
  int64_t from_end = 0;
};

/// A constant of one float, or of one for each column.
std::vector<float> column_constant(PlanView& view, ValueId value, const Columns& columns, size_t& rank) {
  const Tensor* t = view.constant(value);
  if (columns.count == 0 || !t || t->dtype() != DType::F32 || t->rank() > columns.from_end + 2) return {};
  const bool each = t->size() == columns.count &&
                    (columns.count == 1 || (t->rank() > columns.from_end && t->dim(-1 - columns.from_end) == columns.count));
  if (t->size() != 1 && !each) return {};
  rank = std::max(rank, t->shape().size());
  std::vector<float> out(t->data<float>(), t->data<float>() + t->size());
  out.resize(static_cast<size_t>(columns.count), out[0]);
  return out;
}

/// The one of two operands that isn't `known`.
ValueId other_operand(const Node& node, ValueId known) { return node.inputs[0] == known ? node.inputs[1] : node.inputs[0]; }

/// The activations' scale, one that DynamicQuantizeLinear makes, times constants of the weights.
bool read_scales(PlanView& view, ValueId value, const Columns& columns, DynamicTail& tail) {
  const Node* both = view.producer(value);
  if (!both || !both->is("Mul") || both->inputs.size() != 2) return false;
  for (ValueId v : both->inputs) {
    tail.scales = column_constant(view, v, columns, tail.rank);
    tail.scale = other_operand(*both, v);
    if (!tail.scales.empty()) break;
  }
  const Node* dynamic = view.producer(tail.scale);
  return !tail.scales.empty() && dynamic && dynamic->is("DynamicQuantizeLinear") && view.graph().value(tail.scale).output_index == 1;
}

/// Columns of the weights, where they are constant codes that the operator takes.
std::optional<Columns> columns_of(PlanView& view, const Node& core) {
  const Tensor* weights = view.constant(core.input(1));
  if (!weights || (weights->dtype() != DType::I8 && weights->dtype() != DType::U8)) return std::nullopt;
  if (core.is("MatMulInteger")) return weights->rank() == 2 ? std::optional(Columns{weights->dim(1), 0}) : std::nullopt;
  return weights->rank() >= 3 && weights->rank() <= 5 ? std::optional(Columns{weights->dim(0), weights->rank() - 2}) : std::nullopt;
}

}  // namespace

std::optional<ScaledSums> scaled_sums(PlanView& view, const Node& mul, const char* op) {
  if (!mul.is("Mul") || mul.inputs.size() != 2) return std::nullopt;
  for (ValueId v : mul.inputs) {
    const Node* cast = view.only_for_one(v);
    if (!cast || !cast->is("Cast") || cast->i("to", 0) != 1) continue;
    const Node* core = view.only_for_one(cast->input(0));
    if (core && core->is(op)) return ScaledSums{core, cast, &mul, other_operand(mul, v)};
  }
  return std::nullopt;
}

bool column_zeros(PlanView& view, ValueId value, int64_t n, std::vector<int32_t>& zeros) {
  if (value == kNone) return true;
  const Tensor* t = view.constant(value);
  if (!t || (t->dtype() != DType::U8 && t->dtype() != DType::I8) || t->rank() > 1 || (t->size() != 1 && t->size() != n)) return false;
  for (int64_t z : to_vector<int64_t>(*t)) zeros.push_back(static_cast<int32_t>(z));
  zeros.resize(static_cast<size_t>(n), zeros.empty() ? 0 : zeros[0]);
  if (std::all_of(zeros.begin(), zeros.end(), [](int32_t z) { return z == 0; })) zeros.clear();
  return true;
}

std::optional<DynamicTail> dynamic_tail(PlanView& view, const Node& node, const char* op) {
  DynamicTail tail;
  const Node* at = &node;
  if (as_bounds(view, *at, tail.bounds)) {
    tail.covers.push_back(at->id);
    at = view.only_for_one(at->input(0));
  }
  std::optional<ScaledSums> scaled;
  ValueId bias = kNone;
  if (at && at->is("Add") && at->inputs.size() == 2) {
    for (ValueId v : at->inputs) {
      const Node* mul = view.only_for_one(v);
      if (!mul || !(scaled = scaled_sums(view, *mul, op))) continue;
      bias = other_operand(*at, v);
      tail.covers.push_back(at->id);
      break;
    }
  } else if (at) {
    scaled = scaled_sums(view, *at, op);
  }
  if (!scaled) return std::nullopt;
  tail.core = scaled->core;
  const auto columns = columns_of(view, *tail.core);
  if (!columns || !read_scales(view, scaled->scales, *columns, tail)) return std::nullopt;
  if (bias != kNone && (tail.bias = column_constant(view, bias, *columns, tail.rank)).empty()) return std::nullopt;
  if (!column_zeros(view, tail.core->input(3), columns->count, tail.zeros)) return std::nullopt;
  // The zero point: none, a constant, or the quantizer's own; one for each row is possible, too.
  const ValueId zero = tail.core->input(2);
  const Tensor* fixed = view.constant(zero);
  const bool own = zero != kNone && view.producer(zero) == view.producer(tail.scale) && view.graph().value(zero).output_index == 2;
  if (zero != kNone && !(fixed && fixed->size() == 1) && !own) return std::nullopt;
  tail.covers.insert(tail.covers.end(), {scaled->scale->id, scaled->cast->id, tail.core->id});
  std::erase(tail.covers, node.id);
  return tail;
}

DynamicEpilogue::DynamicEpilogue(const DynamicTail& tail, float scale) : scales(tail.scales) {
  for (float& s : scales) s = scale * s;
  epilogue.output = DType::F32;
  epilogue.scale = scales.data();
  epilogue.float_bias = tail.bias.empty() ? nullptr : tail.bias.data();
  if (tail.bounds.kind == PostActivation::Clip) epilogue.low = tail.bounds.low, epilogue.high = tail.bounds.high;
}

}  // namespace infopt

// What can be said of a value before a run: from declared types, constants and the operators that lead to it.
#pragma once
#include "lib/runtime/fusion.h"

namespace infopt {

/// True only where the value surely has this type, a float's.
bool has_type(PlanView& view, ValueId value, DType type);
bool is_float32(PlanView& view, ValueId value);
/// The value's rank, -1 where it isn't known.
int64_t rank_of(PlanView& view, ValueId value);
/// The one float32 (on a device a 16-bit float too) that a constant of at most two axes holds.
std::optional<float> scalar_constant(PlanView& view, ValueId value);
/// The other of two inputs.
inline ValueId other_input(const Node& node, size_t i) { return node.inputs[1 - i]; }
/// Mul or Add with two inputs, Sub, Div…
inline bool is_binary(const Node* node, std::string_view op) { return node && node->is(op) && node->inputs.size() == 2; }

}  // namespace infopt

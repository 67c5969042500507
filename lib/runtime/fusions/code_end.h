// A QuantizeLinear that the kernel before it can do: it then writes codes where it would have written floats.
#pragma once
#include <optional>

#include "lib/runtime/fusion.h"

namespace infopt {

/// Nothing where the node isn't a QuantizeLinear with one constant scale to 8-bit codes.
std::optional<CodeEnd> code_end(PlanView& view, const Node& node);

/// Whether a kernel at the node's place can make what the node reads: whoever else reads it stands behind the node. `kept`: somebody does.
bool makes_input(PlanView& view, const Node& node, bool& kept);

}  // namespace infopt

// An activation as exported, in one node or in pieces.
#pragma once
#include <optional>
#include <vector>

#include "lib/runtime/fusion.h"

namespace infopt {

/// f(x) read backwards: x, f, and the nodes before the last that compute it.
struct Activated {
  ValueId x = kNone;
  PostActivation post;
  std::vector<const Node*> covers = {};
};

/// Bounds, Gelu, SiLU, or the pieces of the last two, that end with this node.
std::optional<Activated> activation_of(PlanView& view, const Node& node);
/// Nobody but the last node and those covered reads x.
bool only_inside(PlanView& view, const Activated& a, const Node& last);

}  // namespace infopt

// The rules, in the order in which they are tried: what covers most stands first.
#pragma once
#include "lib/runtime/fusion.h"

namespace infopt {

std::optional<FusedStep> fuse_activation(PlanView& view, const Node& node);

inline constexpr FusionRule kFusionRules[] = {fuse_activation};

}  // namespace infopt

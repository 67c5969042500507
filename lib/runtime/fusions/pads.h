// Pads that a convolution can take upon itself.
#pragma once
#include <vector>

#include "lib/runtime/fusion.h"

namespace infopt {

/// What a Pad with constant mode and constant pads puts around the `spatial` axes, and around no other: before each axis, then behind each.
/// Empty where the node is anything else. Says nothing of the value that it puts there.
std::vector<int64_t> spatial_pads(PlanView& view, const Node& pad, size_t spatial);
/// The same for pads of float32 zeros.
std::vector<int64_t> zero_pads(PlanView& view, const Node& pad, size_t spatial);

}  // namespace infopt

// What Pad and CenterCropPad do to each axis, for every device's kernels.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/tensor.h"

namespace infopt {

enum class PadMode { Constant, Reflect, Edge, Wrap };
/// Throws Error(Malformed) for a name that isn't one.
PadMode pad_mode(const std::string& name);

/// By axis: elements cut off in front (negative pads), how many are left, and what is put before and behind those.
struct PadPlan {
  Shape cut, kept, begin, end;
  Shape shape;  ///< of the result
};
/// `pads`: those before each of `axes`, then those behind. Throws Error(Malformed) where lists don't fit or too much is cut off.
PadPlan plan_pad(const Shape& shape, const std::vector<int64_t>& pads, std::vector<int64_t> axes, PadMode mode);
/// The pads of CenterCropPad to `target` along the axes.
std::vector<int64_t> center_pads(const Shape& shape, const std::vector<int64_t>& axes, const std::vector<int64_t>& target);
std::vector<int64_t> all_axes(int64_t rank);

}  // namespace infopt

#include "lib/runtime/fusions/pads.h"

#include <algorithm>

namespace infopt {

std::vector<int64_t> spatial_pads(PlanView& view, const Node& pad, size_t spatial) {
  if (!pad.is("Pad") || pad.s("mode", "constant") != "constant" || pad.input(3) != kNone) return {};
  std::vector<int64_t> all = pad.ints("pads");
  if (pad.input(1) != kNone) {
    const Tensor* pads = view.constant(pad.input(1));
    if (!pads || pads->dtype() != DType::I64) return {};
    all = to_vector<int64_t>(*pads);
  }
  const size_t rank = spatial + 2;
  if (all.size() != 2 * rank || all[0] || all[1] || all[rank] || all[rank + 1]) return {};
  std::vector<int64_t> out(all.begin() + 2, all.begin() + static_cast<int64_t>(rank));
  out.insert(out.end(), all.begin() + static_cast<int64_t>(rank) + 2, all.end());
  return std::any_of(out.begin(), out.end(), [](int64_t p) { return p < 0; }) ? std::vector<int64_t>() : out;
}

std::vector<int64_t> zero_pads(PlanView& view, const Node& pad, size_t spatial) {
  if (pad.f("value", 0) != 0) return {};
  if (pad.input(2) != kNone) {
    const Tensor* value = view.constant(pad.input(2));
    if (!value || value->size() != 1 || value->dtype() != DType::F32 || value->data<float>()[0] != 0) return {};
  }
  return spatial_pads(view, pad, spatial);
}

}  // namespace infopt

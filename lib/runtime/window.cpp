#include "lib/runtime/window.h"

#include <algorithm>

#include "lib/base/error.h"

namespace infopt {
namespace {

std::vector<int64_t> sized(const std::vector<int64_t>& given, size_t count, int64_t otherwise, int64_t least, const char* what) {
  if (given.empty()) return std::vector<int64_t>(count, otherwise);
  if (given.size() != count) throw Error(ErrorKind::Malformed, std::string(what) + " has " + std::to_string(given.size()) + " entries, " + std::to_string(count) + " are needed");
  for (int64_t v : given)
    if (v < least || v > (int64_t{1} << 31)) throw Error(ErrorKind::Malformed, std::string(what) + " has an entry of " + std::to_string(v));
  return given;
}

}  // namespace

WindowAttributes WindowAttributes::of(const Node& node) {
  return {node.ints("kernel_shape"), node.ints("strides"), node.ints("dilations"), node.ints("pads"), node.s("auto_pad", "NOTSET"), node.i("ceil_mode", 0) != 0};
}

Window resolve_window(const WindowAttributes& attributes, const Shape& spatial, const Shape& kernel) {
  const size_t n = spatial.size();
  Window w;
  w.kernel = sized(kernel, n, 1, 1, "kernel_shape");
  w.strides = sized(attributes.strides, n, 1, 1, "strides");
  w.dilations = sized(attributes.dilations, n, 1, 1, "dilations");
  const auto pads = sized(attributes.pads, 2 * n, 0, -(int64_t{1} << 31), "pads");
  w.pads_begin.assign(pads.begin(), pads.begin() + static_cast<int64_t>(n));
  w.pads_end.assign(pads.begin() + static_cast<int64_t>(n), pads.end());
  const bool same = attributes.auto_pad == "SAME_UPPER" || attributes.auto_pad == "SAME_LOWER";
  for (size_t i = 0; i < n; ++i) {
    const int64_t extent = (w.kernel[i] - 1) * w.dilations[i] + 1;
    if (same) {
      const int64_t out = (spatial[i] + w.strides[i] - 1) / w.strides[i];
      const int64_t total = std::max<int64_t>(0, (out - 1) * w.strides[i] + extent - spatial[i]);
      w.pads_begin[i] = attributes.auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
      w.pads_end[i] = total - w.pads_begin[i];
    } else if (attributes.auto_pad == "VALID") {
      w.pads_begin[i] = w.pads_end[i] = 0;
    }
    const int64_t room = spatial[i] + w.pads_begin[i] + w.pads_end[i] - extent;
    if (room < 0) throw Error(ErrorKind::Malformed, "a window of " + std::to_string(extent) + " doesn't fit an axis of " + std::to_string(spatial[i]) + " with its pads");
    int64_t out = room / w.strides[i] + 1;
    if (attributes.ceil_mode && !same) {
      out = (room + w.strides[i] - 1) / w.strides[i] + 1;
      if ((out - 1) * w.strides[i] >= spatial[i] + w.pads_begin[i]) --out;  // a window that starts in the pad behind gives nothing
    }
    w.out.push_back(out);
  }
  return w;
}

}  // namespace infopt

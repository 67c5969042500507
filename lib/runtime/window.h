// The geometry that convolutions and poolings share: kernel, strides, dilations and pads along the spatial axes.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/ir/graph.h"

namespace infopt {

/// The attributes as the node has them; empty lists where it leaves them out.
struct WindowAttributes {
  std::vector<int64_t> kernel, strides, dilations, pads;
  std::string auto_pad;
  bool ceil_mode = false;
  static WindowAttributes of(const Node& node);
};

/// One entry for each spatial axis.
struct Window {
  std::vector<int64_t> kernel, strides, dilations, pads_begin, pads_end, out;
};

/// Fills in defaults, resolves auto_pad and computes the output's spatial sizes as ONNX's Conv and pooling say.
/// `spatial` are the input's. Throws Error(Malformed) where lists have the wrong length or a window doesn't fit.
Window resolve_window(const WindowAttributes& attributes, const Shape& spatial, const Shape& kernel);

}  // namespace infopt

// What the kernels of convolutions check and compute of shapes.
#pragma once
#include <algorithm>
#include <string>

#include "lib/base/error.h"
#include "lib/base/tensor.h"
#include "lib/runtime/window.h"

namespace infopt {

inline void check_conv_ranks(const Shape& x, const Shape& weights) {
  if (x.size() < 3 || x.size() > 5 || weights.size() != x.size())
    throw Error(x.size() > 5 ? ErrorKind::Unsupported : ErrorKind::Malformed, "a convolution of " + to_string(x) + " with weights " + to_string(weights));
}

inline void check_conv_channels(const Shape& x, const Shape& weights, const Tensor& bias, int64_t groups, int64_t in_channels, int64_t out_channels) {
  const bool divides = groups > 0 && in_channels % groups == 0 && out_channels % groups == 0;
  if (!divides || x[1] != in_channels)
    throw Error(ErrorKind::Malformed, "an input of " + to_string(x) + " doesn't fit weights of " + to_string(weights) + " in " + std::to_string(groups) + " groups");
  if (bias.defined() && bias.shape() != Shape{out_channels}) throw Error(ErrorKind::Malformed, "the bias has shape " + to_string(bias.shape()) + ", not [" + std::to_string(out_channels) + "]");
}

/// ConvTranspose's window: the spatial axes of its result and the pads that they mean, with which (in − 1)·stride + extent − pads is out:
/// what is added behind counts as a negative pad. `extra`: output_padding; `wanted`: output_shape; empty where they are left out.
inline Window transposed_window(const WindowAttributes& attributes, const std::vector<int64_t>& extra, const std::vector<int64_t>& wanted, const Shape& spatial, const Shape& kernel) {
  const size_t n = spatial.size();
  const auto at = [&](const std::vector<int64_t>& v, size_t i, int64_t otherwise, size_t least) {
    if (!v.empty() && v.size() < least) throw Error(ErrorKind::Malformed, "an attribute has fewer entries than there are spatial axes");
    return v.empty() ? otherwise : v[i];
  };
  Window w;
  w.kernel = kernel;
  const bool same = attributes.auto_pad == "SAME_UPPER" || attributes.auto_pad == "SAME_LOWER";
  for (size_t i = 0; i < n; ++i) {
    const int64_t in = spatial[i], stride = at(attributes.strides, i, 1, n), dilation = at(attributes.dilations, i, 1, n), behind = at(extra, i, 0, n);
    if (stride < 1 || dilation < 1 || in < 1) throw Error(ErrorKind::Malformed, "a stride, dilation or axis below 1");
    const int64_t full = stride * (in - 1) + behind + (kernel[i] - 1) * dilation + 1;
    int64_t begin = at(attributes.pads, i, 0, 2 * n), out = full - begin - (attributes.pads.empty() ? 0 : attributes.pads[n + i]);
    if (!wanted.empty() || same) {
      out = wanted.empty() ? in * stride : at(wanted, wanted.size() - std::min(n, wanted.size()) + i, 0, n);
      const int64_t total = std::max<int64_t>(0, full - out);  // what is asked for beyond lies behind
      begin = attributes.auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
    }
    if (out < 1) throw Error(ErrorKind::Malformed, "its pads leave nothing of the output");
    w.strides.push_back(stride);
    w.dilations.push_back(dilation);
    w.pads_begin.push_back(begin);
    w.pads_end.push_back(full - behind - begin - out);
    w.out.push_back(out);
  }
  return w;
}

}  // namespace infopt

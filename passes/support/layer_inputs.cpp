#include "passes/support/layer_inputs.h"

#include "lib/base/error.h"
#include "lib/ops/conv.h"

namespace infopt {
namespace {

/// Of one axis's taps. An output o reads i = o·stride + t·dilation − begin; transposed, an input i adds to o of the same form.
std::vector<double> shares_along(const Window& w, size_t axis, int64_t in, bool transposed) {
  const int64_t steps = transposed ? in : w.out[axis], size = transposed ? w.out[axis] : in;
  std::vector<double> shares;
  for (int64_t t = 0; t < w.kernel[axis]; ++t) {
    int64_t inside = 0;
    for (int64_t s = 0; s < steps; ++s) {
      const int64_t at = s * w.strides[axis] + t * w.dilations[axis] - w.pads_begin[axis];
      inside += at >= 0 && at < size;
    }
    shares.push_back(static_cast<double>(inside) / static_cast<double>(w.out[axis]));
  }
  return shares;
}

}  // namespace

std::vector<double> tap_shares(const Graph& graph, const Layer& layer, const Shape& input) {
  const Shape& weights = graph.constant(layer.weights)->shape();
  if (!layer.convolution || input.size() != weights.size() || input.size() < 3) return {};
  const Shape spatial(input.begin() + 2, input.end()), kernel(weights.begin() + 2, weights.end());
  const Node& n = graph.node(layer.node);
  std::vector<double> shares{1};
  try {
    const WindowAttributes attributes = WindowAttributes::of(n);
    const Window w = layer.transposed ? transposed_window(attributes, n.ints("output_padding"), n.ints("output_shape"), spatial, kernel) : resolve_window(attributes, spatial, kernel);
    for (size_t axis = 0; axis < spatial.size(); ++axis) {
      std::vector<double> next;
      for (double outer : shares)
        for (double inner : shares_along(w, axis, spatial[axis], layer.transposed)) next.push_back(outer * inner);
      shares = std::move(next);
    }
  } catch (const Error&) {
    return {};
  }
  return shares;
}

LayerInputs inputs_of(const Graph& graph, const Layer& layer, const Observed& seen, const TensorStatistics* statistics, const std::vector<double>& factors) {
  LayerInputs out;
  out.shares = tap_shares(graph, layer, seen.shape);
  const auto channels = static_cast<size_t>(layer.in * layer.groups);
  if (!statistics || statistics->channel_sum.size() != channels) return out;
  for (size_t c = 0; c < channels; ++c) out.means.push_back(statistics->mean(c) / (factors.empty() ? 1 : factors[c]));
  return out;
}

}  // namespace infopt

// Scales and shifts per channel, and putting them into the weights and bias of the operator before or after them.
#pragma once
#include <optional>
#include <vector>

#include "lib/ir/edit.h"

namespace infopt {

/// y[c] = x[c]·scale[c] + shift[c] along axis 1.
struct Affine {
  std::vector<double> scale, shift;
};

/// What a BatchNormalization (in inference, its parameters constant) does to its input.
std::optional<Affine> batch_normalization(const Graph& graph, const Node& node);
/// What a BatchNormalization, or an Add, Sub, Mul or Div with a constant, does to `x`, of `rank` axes and `channels` channels; empty where
/// that isn't affine per channel or the shape changes.
std::optional<Affine> affine_of(const Graph& graph, const Node& node, ValueId x, int64_t rank, int64_t channels);

/// The number of output channels of a Conv, ConvTranspose, or Gemm with constant floating weights and a constant bias (or none); 0 where
/// it isn't one.
int64_t absorbing_channels(const Graph& graph, const Node& node);
/// Axes of its output.
int64_t output_rank(const Graph& graph, const Node& node);

/// The operator gives out y·scale + shift of what it gave. In double, rounded once. False, and nothing done, where
/// that isn't finite, or weights would change that other nodes read too.
bool scale_outputs(GraphEdit& edit, NodeId node, const Affine& affine);
/// The Conv takes x where it took x·scale + shift. The shift must be 0 where there are pads. False as above.
bool scale_inputs(GraphEdit& edit, NodeId conv, const Affine& affine);

}  // namespace infopt

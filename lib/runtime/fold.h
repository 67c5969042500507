// Nodes that give the same in every run, computed once when a plan is made: decoded weights, shape arithmetic.
#pragma once
#include <vector>

#include "lib/ops/op.h"

namespace infopt {

/// The node's outputs from these inputs, in plain layout; empty tensors where an optional one is left out. For kernels without bodies.
std::vector<Tensor> run_alone(const Kernel& kernel, const Node& node, const std::vector<Tensor>& inputs);

/// The outputs of a node whose inputs are all known; empty where they can't be computed now (the kernel refuses: the run will
/// say why). Only for kernels without bodies and without chance.
std::vector<Tensor> compute_constant(const Kernel& kernel, const Node& node, const std::vector<Tensor>& inputs);

}  // namespace infopt

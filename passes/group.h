// Mixed precision by group: which nodes a recipe's rule means, and what it wants of them.
#pragma once
#include <optional>
#include <string>
#include <vector>

namespace infopt {

/// A rule of a recipe's `groups`. A node belongs to the first rule of which every given condition fits.
struct GroupRule {
  std::string name;
  // Conditions
  std::vector<std::string> nodes;  ///< globs (* and ?) over node names or weight names
  std::vector<std::string> ops;    ///< operator types
  std::vector<std::string> roles;  ///< attention, ffn, embedding, head, normalization, convolution
  std::optional<double> depth_from, depth_to;  ///< share of the way through the graph's weighted nodes, in [0, 1]
  // What it wants: int8, (weights only: uint8, int4, uint4, int2, uint2,) (activations only: int16, uint16,) float8, float16, bfloat16, float32; empty leaves it to the step.
  std::string weights, activations;
  std::string form;  ///< auto, static, dynamic, storage, float; empty leaves it to the step
  std::optional<double> sparsity;  ///< share of the weights that pruning takes away; 0 keeps all; empty leaves it to the step
};

}  // namespace infopt

// Which Fn an elementwise node is, and the ways in which kernels run one.
#pragma once
#include <functional>
#include <optional>
#include <vector>

#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/element.h"

namespace infopt::cuda {

/// A function of input 0 alone, with its numbers.
struct UnaryFunction {
  Fn fn = Fn::Load;
  float p = 0, q = 0;
  bool integers = false;  ///< it takes integers too
};
/// Nothing where the node is none, or (Clip) where its numbers are inputs that `constant` doesn't know.
std::optional<UnaryFunction> unary_function(const Node& node, int64_t opset, const std::function<const Tensor*(size_t)>& constant);
/// Functions of numbers (Add, PRelu…) of inputs 0 and 1; of Min, Max and Sum, one of the steps.
std::optional<Fn> binary_function(const Node& node);

/// Input 0 mapped into output 0 of the type `to`, in the layout that it has.
void map_input(CudaContext& context, Compute compute, const std::vector<Step>& steps, DType to, StoreOptions options = {});
/// Inputs [0, count), which must be of one type, broadcast into output 0.
void run_broadcast(CudaContext& context, size_t count, const std::vector<Step>& steps, bool gives_bool);

/// Throws Error(Unsupported) where a declared type of the node's inputs or outputs is one that no device holds.
void refuse_strings(const KernelSpec& spec);

}  // namespace infopt::cuda

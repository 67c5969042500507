// A node without a kernel of its own, run through the body that ONNX defines for it.
#pragma once
#include <memory>

#include "lib/ops/op.h"

namespace infopt {

class Plan;
/// `parent` is the plan that the node stands in.
std::unique_ptr<Kernel> make_expanded(std::shared_ptr<Graph> body, const Plan* parent);

}  // namespace infopt

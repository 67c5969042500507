// A node without a kernel of its own, run through the body that ONNX defines for it.
#pragma once
#include <memory>

#include "lib/ops/op.h"
#include "lib/runtime/session.h"

namespace infopt {

class Plan;
/// `parent` is the plan that the node stands in; of the options, the device's count.
std::unique_ptr<Kernel> make_expanded(std::shared_ptr<Graph> body, const Plan* parent, SessionOptions options = {});

}  // namespace infopt

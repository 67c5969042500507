// A node without a kernel of its own, run through a graph that stands for it.
#pragma once
#include <memory>

#include "lib/ops/op.h"
#include "lib/runtime/session.h"

namespace infopt {

class Plan;
/// `parent` is the plan that the node stands in; of the options, fuse, fold and the device count. `what` is what the kernel says of itself.
std::unique_ptr<Kernel> make_expanded(std::shared_ptr<Graph> body, const Plan* parent, SessionOptions options, std::string what);

}  // namespace infopt

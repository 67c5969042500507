#include "lib/runtime/cuda/backend.h"

namespace infopt::cuda {
std::unique_ptr<Kernel> make_chain(const Graph&, FusedChain) { return nullptr; }
}  // namespace infopt::cuda

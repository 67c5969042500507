// A build without CUDA: `open_cuda` says so.
#include "lib/runtime/cuda/backend.h"

namespace infopt {
void install_cuda() {}
}  // namespace infopt

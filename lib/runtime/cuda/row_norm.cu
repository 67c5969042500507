#include "lib/runtime/cuda/backend.h"

namespace infopt::cuda {
std::unique_ptr<Kernel> make_row_norm(FusedRowNorm) { return nullptr; }
}  // namespace infopt::cuda

#include "lib/runtime/cuda/attention_half_kernel.h"

namespace infopt::cuda {
void attend_codes_by_tensor_cores(Stream& stream, DType type, const AttentionTask& task) { attend_tiles_as<true>(stream, type, task); }
}  // namespace infopt::cuda

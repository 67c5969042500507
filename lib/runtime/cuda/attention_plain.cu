#include "lib/runtime/cuda/attention_plain_kernel.h"

namespace infopt::cuda {
void attend_plainly(Stream& stream, DType type, const AttentionTask& task) { attend_plainly_as<false>(stream, type, task); }
}  // namespace infopt::cuda

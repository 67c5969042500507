#include "lib/runtime/cuda/int8_gemm_kernel.h"

namespace infopt::cuda {
void launch_unsigned_product(Stream& stream, const Int8Product& p, int64_t groups, int64_t granule) { launch_int8_product<true>(stream, p, groups, granule); }
}  // namespace infopt::cuda

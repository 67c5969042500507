#include "lib/runtime/cuda/attention_half_kernel.h"

namespace infopt::cuda {
namespace {

/// Rows in whole packs of eight elements.
bool in_packs(const HeadMatrix& m, int64_t columns, size_t element) {
  bool packs = reinterpret_cast<uintptr_t>(m.data) % (8 * element) == 0 && columns % 8 == 0 && m.column == 1 && m.row % 8 == 0;
  for (int64_t stride : m.lead) packs = packs && stride % 8 == 0;
  return packs;
}

}  // namespace

bool tensor_cores_take(DType type, const AttentionTask& t) {
  const bool half_float = type == DType::F16 || type == DType::BF16, k_coded = t.k_codes.type != DType::Undefined, v_coded = t.v_codes.type != DType::Undefined;
  return half_float && k_coded == v_coded && t.depth > 0 && t.depth <= 128 && t.value_depth <= 128 && in_packs(t.q, t.depth, 2) && in_packs(t.k, t.depth, k_coded ? 1 : 2) &&
         in_packs(t.v, t.value_depth, v_coded ? 1 : 2);
}

void attend_by_tensor_cores(Stream& stream, DType type, const AttentionTask& task) { attend_tiles_as<false>(stream, type, task); }

}  // namespace infopt::cuda

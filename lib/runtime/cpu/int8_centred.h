// 8-bit weights less their zero points, which needs nine bits, as sums of int8: what kernels that know no zero points multiply with.
#pragma once
#include <cstdint>
#include <vector>

namespace infopt::cpu {

/// weights[columns][depth], raised by 128 where `is_unsigned`; zeros: one a column, null: 0, in the weights' own type.
/// weight − zero = parts[0] + parts[1] + …, each [columns][depth]; as few as will do, at least one.
std::vector<std::vector<int8_t>> centred_parts(const uint8_t* weights, bool is_unsigned, const int32_t* zeros, int64_t columns,
                                               int64_t depth);

}  // namespace infopt::cpu

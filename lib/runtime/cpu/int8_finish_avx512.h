// The ends of the AVX-512 kernels: from rows of int32 sums to what is stored. The same operations as finish_int8_row's.
#pragma once
#include <cstdint>

#include "lib/runtime/cpu/int8_kernels.h"

#define INFOPT_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))

namespace infopt::cpu::avx512 {

/// Rows of sums, V·16 lanes each, 64-byte aligned; overwritten.
struct Rows {
  int32_t* sums;
  int64_t count;
  const int32_t* row_sums;
  void* dst;
  const void* residual;
  int64_t stride;  ///< of dst and residual, in elements
};

template <int V> void finish_rows(const Rows& rows, const Int8Panel& panel, const Int8Finish& finish);
extern template void finish_rows<1>(const Rows&, const Int8Panel&, const Int8Finish&);
extern template void finish_rows<2>(const Rows&, const Int8Panel&, const Int8Finish&);
extern template void finish_rows<3>(const Rows&, const Int8Panel&, const Int8Finish&);
extern template void finish_rows<4>(const Rows&, const Int8Panel&, const Int8Finish&);

/// Needs AVX-512 VBMI.
void lookup_vbmi(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t* table);

}  // namespace infopt::cpu::avx512

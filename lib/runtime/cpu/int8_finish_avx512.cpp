#include "lib/runtime/cpu/int8_finish_avx512.h"

#if defined(__x86_64__)
namespace infopt::cpu::avx512 {
namespace {

void look_up_rows(const Rows& rows, int64_t columns, const uint8_t* table) {
  uint8_t* dst = static_cast<uint8_t*>(rows.dst);
  for (int64_t r = 0; r < rows.count; ++r) int8_avx512_kernels().lookup(dst + r * rows.stride, dst + r * rows.stride, columns, table);
}

// The lower bound is applied to the bytes: rounding is monotone, so the order of rounding and clamping doesn't show. What is below int32's
// range, or not a number, converts to its least value and so becomes the lower bound, too.
template <int V> INFOPT_AVX512 void finish_bytes(const Rows& rows, const Int8Panel& panel, const Int8Finish& finish) {
  const Bytes bytes = bytes_of(panel, finish, finish.low, finish.high, finish.e->zero);
  const __m512 high = _mm512_set1_ps(finish.high);
  __m512 scale[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) scale[v] = _mm512_load_ps(panel.scale + v * kInt8Lanes);
  uint8_t* dst = static_cast<uint8_t*>(rows.dst);
  for (int64_t r = 0; r < rows.count; ++r) {
    __m512i codes[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(rows.sums + (r * V + v) * kInt8Lanes)), scale[v]);
      codes[v] = _mm512_cvtps_epi32(_mm512_min_ps(high, value));
    }
    store_bytes<V>(dst + r * rows.stride, pack<V>(codes, bytes), panel.columns);
  }
}

template <int V> INFOPT_AVX512 void finish_bytes_residual(const Rows& rows, const Int8Panel& panel, const Int8Finish& finish) {
  const Int8Epilogue& e = *finish.e;
  const Bytes bytes = bytes_of(panel, finish, finish.low2, finish.high2, e.zero2);
  const __m512 low = _mm512_set1_ps(finish.low), high = _mm512_set1_ps(finish.high), high2 = _mm512_set1_ps(finish.high2);
  const __m512 ratio = _mm512_set1_ps(e.ratio), residual_ratio = _mm512_set1_ps(e.residual_ratio);
  const int32_t flip = e.residual_dtype == DType::I8 ? 0x80 : 0;
  const __m512i flips = _mm512_set1_epi32(flip), residual_zero = _mm512_set1_epi32(e.residual_zero + flip);
  const uint8_t* residual = static_cast<const uint8_t*>(rows.residual);
  uint8_t* dst = static_cast<uint8_t*>(rows.dst);
  for (int64_t r = 0; r < rows.count; ++r) {
    __m512i codes[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const __mmask16 mask = lane_mask(panel.columns - v * kInt8Lanes);
      const __m512i sums = _mm512_load_si512(rows.sums + (r * V + v) * kInt8Lanes);
      __m512 q = _mm512_max_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_load_ps(panel.scale + v * kInt8Lanes)), low);
      q = _mm512_roundscale_ps(_mm512_min_ps(q, high), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      const __m512i raw = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, residual + r * rows.stride + v * kInt8Lanes));
      const __m512 other = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_xor_si512(raw, flips), residual_zero));
      const __m512 w = _mm512_add_ps(_mm512_mul_ps(q, ratio), _mm512_mul_ps(other, residual_ratio));
      codes[v] = _mm512_cvtps_epi32(_mm512_min_ps(high2, w));
    }
    store_bytes<V>(dst + r * rows.stride, pack<V>(codes, bytes), panel.columns);
  }
}

template <int V> INFOPT_AVX512 void finish_floats(const Rows& rows, const Int8Panel& panel, const Int8Finish& finish) {
  const Int8Epilogue& e = *finish.e;
  const __m512 low = _mm512_set1_ps(finish.low), high = _mm512_set1_ps(finish.high);
  const __m512 low2 = _mm512_set1_ps(finish.low2), high2 = _mm512_set1_ps(finish.high2);
  const float* residual = static_cast<const float*>(rows.residual);
  float* dst = static_cast<float*>(rows.dst);
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const __mmask16 mask = lane_mask(panel.columns - v * kInt8Lanes);
    const __m512 scale = _mm512_load_ps(panel.scale + v * kInt8Lanes);
    const __m512 bias = e.float_bias ? _mm512_maskz_loadu_ps(mask, e.float_bias + panel.first + v * kInt8Lanes) : _mm512_setzero_ps();
    for (int64_t r = 0; r < rows.count; ++r) {
      const int64_t place = r * rows.stride + v * kInt8Lanes;
      __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(rows.sums + (r * V + v) * kInt8Lanes)), scale);
      if (e.float_bias) value = _mm512_add_ps(value, bias);
      value = _mm512_min_ps(_mm512_max_ps(value, low), high);
      if (e.residual) {
        value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, residual + place));
        value = _mm512_min_ps(_mm512_max_ps(value, low2), high2);
      }
      if (mask == 0xFFFF) _mm512_storeu_ps(dst + place, value);
      else _mm512_mask_storeu_ps(dst + place, mask, value);
    }
  }
}

}  // namespace

template <int V> void finish_rows(const Rows& rows, const Int8Panel& panel, const Int8Finish& finish) {
  const Int8Epilogue& e = *finish.e;
  const bool plain = !panel.weight_zero && !(finish.bytes && e.float_bias), natural = !panel.shuffled || V == 1;
  if (finish.bytes && plain && !e.residual) finish_bytes<V>(rows, panel, finish);
  else if (finish.bytes && plain && natural) finish_bytes_residual<V>(rows, panel, finish);
  else if (e.output == DType::F32 && plain && natural) return finish_floats<V>(rows, panel, finish);
  else {
    for (int64_t r = 0; r < rows.count; ++r) {
      const int64_t place = r * rows.stride;
      finish_int8_lanes(finish, panel, rows.row_sums ? rows.row_sums[r] : 0, rows.sums + r * V * kInt8Lanes, int8_place(rows.residual, place, finish),
                        int8_place(rows.dst, place, finish));
    }
    return;
  }
  if (e.table) look_up_rows(rows, panel.columns, e.table);
}

template void finish_rows<1>(const Rows&, const Int8Panel&, const Int8Finish&);
template void finish_rows<2>(const Rows&, const Int8Panel&, const Int8Finish&);
template void finish_rows<3>(const Rows&, const Int8Panel&, const Int8Finish&);
template void finish_rows<4>(const Rows&, const Int8Panel&, const Int8Finish&);

__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi"))) void lookup_vbmi(const uint8_t* x, uint8_t* y, int64_t n,
                                                                                                     const uint8_t* table) {
  const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
  const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
  for (int64_t i = 0; i < n; i += 64) {
    const __mmask64 mask = n - i >= 64 ? ~0ull : (1ull << (n - i)) - 1;
    const __m512i codes = _mm512_maskz_loadu_epi8(mask, x + i);
    const __m512i below = _mm512_permutex2var_epi8(t0, codes, t1), above = _mm512_permutex2var_epi8(t2, codes, t3);
    const __m512i found = _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), below, above);
    if (mask == ~0ull) _mm512_storeu_si512(y + i, found);
    else _mm512_mask_storeu_epi8(y + i, mask, found);
  }
}

}  // namespace infopt::cpu::avx512
#endif

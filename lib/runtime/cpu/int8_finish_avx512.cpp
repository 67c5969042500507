#include "lib/runtime/cpu/int8_finish_avx512.h"

#if defined(__x86_64__)
namespace infopt::cpu::avx512 {
namespace {

// The lower bound is applied to the bytes: rounding is monotone, so the order of rounding and clamping doesn't show. What is below int32's
// range, or not a number, converts to its least value and so becomes the lower bound, too.
template <int V>
INFOPT_AVX512 void finish_bytes(const Rows& rows, const Int8Panel& panel, const Int8Finish& finish) {
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

template <int V>
INFOPT_AVX512 void finish_floats(const Rows& rows, const Int8Panel& panel, const Int8Finish& finish) {
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

void look_up_rows(void* dst, int64_t count, int64_t stride, int64_t columns, const Int8Finish& finish) {
  if (!finish.e->table) return;
  uint8_t* codes = static_cast<uint8_t*>(dst);
  if (stride == columns) columns *= count, count = 1;
  for (int64_t r = 0; r < count; ++r) int8_avx512_kernels().lookup(codes + r * stride, codes + r * stride, columns, finish.e->table);
}

template <int V>
void finish_rows(const Rows& rows, const Int8Panel& panel, const Int8Finish& finish) {
  const Int8Epilogue& e = *finish.e;
  const bool natural = !panel.shuffled || V == 1;
  if (finish.bytes && !e.float_bias && !e.residual) {
    finish_bytes<V>(rows, panel, finish);
    return look_up_rows(rows.dst, rows.count, rows.stride, panel.columns, finish);
  }
  if (e.output == DType::F32 && natural) return finish_floats<V>(rows, panel, finish);
  Int8Panel done = panel;
  done.weight_zero = nullptr;
  for (int64_t r = 0; r < rows.count; ++r) {
    const int64_t place = r * rows.stride;
    finish_int8_lanes(finish, done, 0, rows.sums + r * V * kInt8Lanes, int8_place(rows.residual, place, finish),
                      int8_place(rows.dst, place, finish));
  }
}

template void finish_rows<1>(const Rows&, const Int8Panel&, const Int8Finish&);
template void finish_rows<2>(const Rows&, const Int8Panel&, const Int8Finish&);
template void finish_rows<3>(const Rows&, const Int8Panel&, const Int8Finish&);
template void finish_rows<4>(const Rows&, const Int8Panel&, const Int8Finish&);

__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi"))) void lookup_vbmi(const uint8_t* x, uint8_t* y,
                                                                                                     int64_t n, const uint8_t* table) {
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

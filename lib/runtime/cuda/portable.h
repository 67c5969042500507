// What a .cu file includes: CUDA C++ from nvcc, or its emulation on the host. Kernels are written in what both know: no libraries of
// CUDA's headers, 16-bit and 8-bit floats through the functions below, shared memory of a size known at launch through shared_memory().
#pragma once
#include "lib/base/dtype.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#define INFOPT_DEVICE __device__ __forceinline__
#define INFOPT_UNROLL _Pragma("unroll")
#else
#include <cmath>

#include "lib/base/float8.h"
#include "lib/runtime/cuda/emulation.h"
#define INFOPT_DEVICE inline
#define INFOPT_UNROLL
#endif

namespace infopt::cuda {

/// The block's shared memory of the size that launch() was given, aligned to 16 bytes at least.
template <class T> INFOPT_DEVICE T* shared_memory() {
#if defined(__CUDACC__)
  extern __shared__ __align__(128) unsigned char infopt_shared[];
  return reinterpret_cast<T*>(infopt_shared);
#else
  return reinterpret_cast<T*>(emulation::here().shared);
#endif
}

/// 8-bit floats, held as their bits.
struct float8_e4m3 { uint8_t bits; };
struct float8_e5m2 { uint8_t bits; };

#if defined(__CUDACC__)
INFOPT_DEVICE float load_float(half h) { return __half2float(__ushort_as_half(h.bits)); }
INFOPT_DEVICE float load_float(bfloat16 b) { return __bfloat162float(__ushort_as_bfloat16(b.bits)); }
INFOPT_DEVICE float load_float(float8_e4m3 v) { return __half2float(__half(__nv_cvt_fp8_to_halfraw(v.bits, __NV_E4M3))); }
INFOPT_DEVICE float load_float(float8_e5m2 v) { return __half2float(__half(__nv_cvt_fp8_to_halfraw(v.bits, __NV_E5M2))); }
INFOPT_DEVICE void store_float(half& to, float v) { to.bits = __half_as_ushort(__float2half_rn(v)); }
INFOPT_DEVICE void store_float(bfloat16& to, float v) { to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(v)); }
INFOPT_DEVICE void store_float(float8_e4m3& to, float v) { to.bits = __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3); }
INFOPT_DEVICE void store_float(float8_e5m2& to, float v) { to.bits = __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E5M2); }
#else
inline float load_float(half h) { return to_float(h); }
inline float load_float(bfloat16 b) { return to_float(b); }
inline float load_float(float8_e4m3 v) { return decode_small_float(DType::F8E4M3FN, v.bits); }
inline float load_float(float8_e5m2 v) { return decode_small_float(DType::F8E5M2, v.bits); }
inline void store_float(half& to, float v) { to = to_half(v); }
inline void store_float(bfloat16& to, float v) { to = to_bfloat16(v); }
inline void store_float(float8_e4m3& to, float v) { to.bits = encode_small_float(DType::F8E4M3FN, v); }
inline void store_float(float8_e5m2& to, float v) { to.bits = encode_small_float(DType::F8E5M2, v); }
#endif
INFOPT_DEVICE float load_float(float v) { return v; }
INFOPT_DEVICE float load_float(double v) { return static_cast<float>(v); }
INFOPT_DEVICE void store_float(float& to, float v) { to = v; }
INFOPT_DEVICE void store_float(double& to, float v) { to = v; }

/// Rounded half to even and clamped to T's range (an 8-bit integer), as QuantizeLinear does; NaN gives 0.
template <class T> INFOPT_DEVICE T saturate_round(float v, int zero) {
  const int low = static_cast<T>(-1) > static_cast<T>(0) ? 0 : -128, high = low + 255;
  const int q = __float2int_rn(fminf(fmaxf(v, -1e6f), 1e6f)) + zero;
  return static_cast<T>(q < low ? low : q > high ? high : q);
}

/// The sum, or the largest, of what a warp's lanes hold, in every lane. All 32 lanes must take part.
template <class T> INFOPT_DEVICE T warp_sum(T v) {
  for (int by = 16; by > 0; by /= 2) v += __shfl_xor_sync(0xffffffffu, v, by);
  return v;
}
INFOPT_DEVICE float warp_max(float v) {
  for (int by = 16; by > 0; by /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, by));
  return v;
}
INFOPT_DEVICE float warp_min(float v) {
  for (int by = 16; by > 0; by /= 2) v = fminf(v, __shfl_xor_sync(0xffffffffu, v, by));
  return v;
}

}  // namespace infopt::cuda

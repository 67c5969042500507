// CUDA's execution model on the host, so that kernels run and are tested without a GPU: blocks one by one, a block's threads as fibers,
// true barriers and warp shuffles. Kernels see what CUDA C++ gives them: threadIdx and so on, __syncthreads, __shfl_*_sync, atomics.
// What it holds kernels to: every buffer ends at a page that can't be touched, fresh memory and shared memory are poisoned with 0xFF
// (NaN, −1), threads that meet at no common barrier end the kernel with an error.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>

namespace infopt::cuda::emulation {

struct Index3 { unsigned x = 0, y = 0, z = 0; };

/// The kernel's place in its grid, for the fiber that runs now.
struct Here {
  Index3 thread, block, block_size, grid_size;
  unsigned lane = 0, warp = 0;
  std::byte* shared = nullptr;
};
inline constinit thread_local Here* place = nullptr;
inline Here& here() { return *place; }

/// Waits for the block's other threads that still run.
void block_barrier();
/// The sum of `value` over the block's threads that still run, after a barrier (for __syncthreads_or and the like).
int block_sum(int value);
/// Waits for the warp's threads.
void warp_barrier();
/// Puts 8 bytes for the warp to read, waits for it, and returns lane `from`'s.
uint64_t warp_exchange(uint64_t bits, unsigned from);
/// As warp_exchange, with up to 64 bytes a lane: the first of 32 places of 64 bytes, which stay as they are until this lane's next but one exchange.
const std::byte* warp_deposit(const void* data, size_t bytes);
/// cp.async: done when the thread waits for its group; until then the place holds poison.
void async_copy(void* to, const void* from, size_t bytes, size_t given);
void async_commit();
/// Until all but the thread's last `pending` groups are there.
void async_wait(unsigned pending);
/// Something that a GPU would stop at: the kernel ends with an error.
void report_fault(const char* what);
/// One bit for each lane of the warp that still runs: whether its predicate holds.
uint32_t warp_ballot(bool predicate);

/// Runs the body as every thread of every block. Throws Error(Defect) where threads wait for a barrier that others never reach.
/// `shared` bytes are each block's own, poisoned before it begins.
void run_grid(Index3 grid, Index3 block, size_t shared, const std::function<void()>& body, const char* name);

/// Blocks run from the last to the first instead: results must not depend on it.
void reverse_block_order(bool reverse);

template <class T> T shuffle(T value, unsigned from) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = warp_exchange(bits, from);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace infopt::cuda::emulation

// What CUDA C++ has without a header. Only .cu files and the headers that they alone include may see this.
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static thread_local
#define __align__(n) alignas(n)
#define threadIdx (::infopt::cuda::emulation::here().thread)
#define blockIdx (::infopt::cuda::emulation::here().block)
#define blockDim (::infopt::cuda::emulation::here().block_size)
#define gridDim (::infopt::cuda::emulation::here().grid_size)

inline void __syncthreads() { infopt::cuda::emulation::block_barrier(); }
inline int __syncthreads_or(int p) { return infopt::cuda::emulation::block_sum(p != 0) != 0; }
inline int __syncthreads_count(int p) { return infopt::cuda::emulation::block_sum(p != 0); }
inline void __syncwarp(unsigned = 0xffffffffu) { infopt::cuda::emulation::warp_barrier(); }
inline uint32_t __ballot_sync(unsigned, int p) { return infopt::cuda::emulation::warp_ballot(p != 0); }
inline int __any_sync(unsigned, int p) { return infopt::cuda::emulation::warp_ballot(p != 0) != 0; }
template <class T> T __shfl_sync(unsigned, T v, int from) { return infopt::cuda::emulation::shuffle(v, static_cast<unsigned>(from) & 31u); }
template <class T> T __shfl_xor_sync(unsigned, T v, int mask) { return infopt::cuda::emulation::shuffle(v, infopt::cuda::emulation::here().lane ^ static_cast<unsigned>(mask)); }
template <class T> T __shfl_down_sync(unsigned, T v, unsigned by) {
  const unsigned lane = infopt::cuda::emulation::here().lane;
  return infopt::cuda::emulation::shuffle(v, lane + by < 32u ? lane + by : lane);
}
template <class T> T __shfl_up_sync(unsigned, T v, unsigned by) {
  const unsigned lane = infopt::cuda::emulation::here().lane;
  return infopt::cuda::emulation::shuffle(v, lane >= by ? lane - by : lane);
}

// Fibers take turns only at barriers, and blocks run one by one: plain operations are atomic.
template <class T> T atomicAdd(T* at, std::type_identity_t<T> v) { const T old = *at; *at = static_cast<T>(old + v); return old; }
template <class T> T atomicMin(T* at, std::type_identity_t<T> v) { const T old = *at; if (v < old) *at = v; return old; }
template <class T> T atomicMax(T* at, std::type_identity_t<T> v) { const T old = *at; if (old < v) *at = v; return old; }
template <class T> T atomicOr(T* at, std::type_identity_t<T> v) { const T old = *at; *at = old | v; return old; }
template <class T> T atomicExch(T* at, std::type_identity_t<T> v) { const T old = *at; *at = v; return old; }
template <class T> T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> v) { const T old = *at; if (old == expected) *at = v; return old; }
inline void __threadfence() {}

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
/// Rounded down: exact where the product of two floats is one double, as it always is.
inline float __fmaf_rd(float a, float b, float c) {
  const double p = static_cast<double>(a) * static_cast<double>(b), s = p + static_cast<double>(c);
  const double back = s - p, lost = (p - (s - back)) + (static_cast<double>(c) - back);  // s + lost is the sum
  const float r = static_cast<float>(s);
  const double rounded = static_cast<double>(r);
  return rounded > s || (rounded == s && lost < 0) ? std::nextafter(r, -std::numeric_limits<float>::infinity()) : r;
}
inline int __float2int_rn(float v) {  // saturates, NaN gives 0
  if (v != v) return 0;
  if (v >= 2147483648.0f) return std::numeric_limits<int>::max();
  return v <= -2147483648.0f ? std::numeric_limits<int>::min() : static_cast<int>(std::nearbyint(v));
}
inline uint32_t __float_as_uint(float v) { uint32_t u; std::memcpy(&u, &v, 4); return u; }
inline int __float_as_int(float v) { int i; std::memcpy(&i, &v, 4); return i; }
inline float __int_as_float(int i) { float v; std::memcpy(&v, &i, 4); return v; }
inline float __uint_as_float(uint32_t u) { float v; std::memcpy(&v, &u, 4); return v; }
inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }
template <class T> T __ldg(const T* p) { return *p; }
/// The sum of four products of bytes, and c; it wraps.
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 32; i += 8) c = static_cast<int>(static_cast<uint32_t>(c) + static_cast<uint32_t>(static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i)));
  return c;
}
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>((uint64_t{a} * b) >> 32); }
inline int __clz(int v) { return v ? __builtin_clz(static_cast<unsigned>(v)) : 32; }
inline int __popc(unsigned v) { return __builtin_popcount(v); }

struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

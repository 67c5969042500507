// The instructions that CUDA C++ has no functions for: tensor cores (mma), loads of their operands (ldmatrix), copies to shared memory that
// don't wait (cp.async). All PTX is here, each piece beside its twin for the emulation, which follows the layouts that the PTX manual documents.
//
// All 32 lanes take part. With g = lane / 4 and t = lane % 4, a lane of mma m16n8 holds of A the rows g and g + 8, of B the column g, of C and
// D the elements (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1). A 32-bit register of A or B holds neighbours along k, the first lowest:
//   8-bit codes, k 32:    A {(g, 4t…), (g + 8, 4t…), (g, 16 + 4t…), (g + 8, 16 + 4t…)}, B {4t…, 16 + 4t…}
//   16-bit floats, k 16:  A {(g, 2t…), (g + 8, 2t…), (g, 8 + 2t…), (g + 8, 8 + 2t…)}, B {2t…, 8 + 2t…}
#pragma once
#include <type_traits>

#include "lib/runtime/cuda/portable.h"

namespace infopt::cuda {

#if defined(__CUDACC__)
INFOPT_DEVICE unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

/// Four 8x8 matrices of 16-bit elements (or 8 rows of 16 bytes) from shared memory: lane i says where row i % 8 of matrix i / 8 begins; register
/// j is of matrix j, row lane / 4, bytes 4·(lane % 4)….
INFOPT_DEVICE void load_matrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
/// The same, each 8x8 matrix of 16-bit elements transposed: register j is of matrix j, its column lane / 4, rows 2·(lane % 4)….
INFOPT_DEVICE void load_transposed_matrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

/// Copies Bytes (4, 8 or 16, both places aligned to them) to shared memory; only `given` of them are read, the others become 0.
template <int Bytes> INFOPT_DEVICE void copy_async(void* to, const void* from, int given = Bytes) {
  if constexpr (Bytes == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(given) : "memory");
  else asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(from), "n"(Bytes), "r"(given) : "memory");
}
/// Ends a group of this thread's copies.
INFOPT_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Until all but the thread's last Pending groups are there; for other threads' copies a barrier must follow.
template <int Pending> INFOPT_DEVICE void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory"); }

/// d += a·b for 8-bit codes, k 32: a of either sign, b signed. Sums wrap.
template <bool Unsigned> INFOPT_DEVICE void mma_codes(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (Unsigned)
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/// d += a·b for half or bfloat16, k 16, sums in float32.
template <class T> INFOPT_DEVICE void mma_floats(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<T, half>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#else
/// All lanes' values, after each has given its own.
template <class T> struct WarpValues {
  static_assert(sizeof(T) <= 64);
  const std::byte* places;
  explicit WarpValues(const T& own) : places(emulation::warp_deposit(&own, sizeof own)) {}
  T operator[](unsigned lane) const {
    T v;
    std::memcpy(&v, places + 64 * lane, sizeof v);
    return v;
  }
};

inline void load_matrices(uint32_t (&r)[4], const void* row) {
  const WarpValues<const void*> rows(row);
  const unsigned lane = emulation::here().lane;
  if (reinterpret_cast<uintptr_t>(row) % 16) emulation::report_fault("loads a matrix from rows that aren't aligned");
  for (unsigned j = 0; j < 4; ++j) std::memcpy(&r[j], static_cast<const std::byte*>(rows[8 * j + lane / 4]) + 4 * (lane % 4), 4);
}
inline void load_transposed_matrices(uint32_t (&r)[4], const void* row) {
  const WarpValues<const void*> rows(row);
  const unsigned lane = emulation::here().lane;
  if (reinterpret_cast<uintptr_t>(row) % 16) emulation::report_fault("loads a matrix from rows that aren't aligned");
  for (unsigned j = 0; j < 4; ++j) {
    uint16_t pair[2];
    for (unsigned i = 0; i < 2; ++i) std::memcpy(&pair[i], static_cast<const std::byte*>(rows[8 * j + 2 * (lane % 4) + i]) + 2 * (lane / 4), 2);
    std::memcpy(&r[j], pair, 4);
  }
}

template <int Bytes> inline void copy_async(void* to, const void* from, int given = Bytes) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
  emulation::async_copy(to, from, Bytes, static_cast<size_t>(given));
}
inline void commit_copies() { emulation::async_commit(); }
template <int Pending> inline void wait_copies() { emulation::async_wait(Pending); }

namespace emulation {
struct Fragments { uint32_t a[4], b[2]; };
/// The row and column of 32 codes that make one element of D.
template <bool Unsigned> int dot_codes(const uint32_t* a, const uint32_t* b) {
  using Code = std::conditional_t<Unsigned, uint8_t, int8_t>;
  Code x[32];
  int8_t y[32];
  std::memcpy(x, a, 32);
  std::memcpy(y, b, 32);
  int sum = 0;
  for (int i = 0; i < 32; ++i) sum += static_cast<int16_t>(x[i]) * static_cast<int16_t>(y[i]);
  return sum;
}
}  // namespace emulation

template <bool Unsigned> inline void mma_codes(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const WarpValues<emulation::Fragments> all({{a[0], a[1], a[2], a[3]}, {b0, b1}});
  const unsigned g = emulation::here().lane / 4, t = emulation::here().lane % 4;
  uint32_t rows[2][8], columns[2][8];
  for (unsigned i = 0; i < 4; ++i) {
    const emulation::Fragments row = all[4 * g + i], left = all[8 * t + i], right = all[8 * t + 4 + i];
    for (unsigned half = 0; half < 2; ++half) {
      for (unsigned r = 0; r < 2; ++r) rows[r][4 * half + i] = row.a[2 * half + r];
      columns[0][4 * half + i] = left.b[half];
      columns[1][4 * half + i] = right.b[half];
    }
  }
  for (unsigned i = 0; i < 4; ++i) d[i] = static_cast<int>(static_cast<uint32_t>(d[i]) + static_cast<uint32_t>(emulation::dot_codes<Unsigned>(rows[i / 2], columns[i % 2])));
}

namespace emulation {
struct FloatFragments { float a[4][2], b[2][2]; };
}  // namespace emulation

template <class T> inline void mma_floats(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const auto value = [](uint32_t word, int i) {
    T v;
    v.bits = static_cast<uint16_t>(word >> 16 * i);
    return load_float(v);
  };
  emulation::FloatFragments own;
  for (int i = 0; i < 2; ++i) {
    for (int r = 0; r < 4; ++r) own.a[r][i] = value(a[r], i);
    own.b[0][i] = value(b0, i);
    own.b[1][i] = value(b1, i);
  }
  const WarpValues<emulation::FloatFragments> all(own);
  const unsigned g = emulation::here().lane / 4, t = emulation::here().lane % 4;
  for (unsigned i = 0; i < 4; ++i) {
    const emulation::FloatFragments row = all[4 * g + i], left = all[8 * t + i], right = all[8 * t + 4 + i];
    for (unsigned half = 0; half < 2; ++half)
      for (unsigned j = 0; j < 2; ++j) {
        d[0] += row.a[2 * half][j] * left.b[half][j];
        d[1] += row.a[2 * half][j] * right.b[half][j];
        d[2] += row.a[2 * half + 1][j] * left.b[half][j];
        d[3] += row.a[2 * half + 1][j] * right.b[half][j];
      }
  }
}
#endif

}  // namespace infopt::cuda

// The choice of an instruction set, and the kernels that need none.
#include "lib/runtime/cpu/int8_kernels.h"

#include <atomic>
#include <cstring>

#include "lib/base/error.h"
#include "lib/base/simd.h"

namespace infopt::cpu {
namespace {

/// lanes[i] += the four products of x and weights[i][0..4).
INFOPT_SIMD void add_products(int32_t* sums, const uint8_t* x, const int8_t* weights, int64_t lanes) {
  const int32_t x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
  for (int64_t i = 0; i < lanes; ++i) {
    const int32_t product = x0 * weights[4 * i] + x1 * weights[4 * i + 1] + x2 * weights[4 * i + 2] + x3 * weights[4 * i + 3];
    sums[i] = static_cast<int32_t>(static_cast<uint32_t>(sums[i]) + static_cast<uint32_t>(product));
  }
}

INFOPT_SIMD void add_lane_products(int32_t* sums, const uint8_t* x, const int8_t* weights, int64_t lanes) {
  for (int64_t i = 0; i < lanes; ++i) {
    const int32_t product = x[4 * i] * weights[4 * i] + x[4 * i + 1] * weights[4 * i + 1] + x[4 * i + 2] * weights[4 * i + 2] +
                            x[4 * i + 3] * weights[4 * i + 3];
    sums[i] = static_cast<int32_t>(static_cast<uint32_t>(sums[i]) + static_cast<uint32_t>(product));
  }
}

void product(const Int8Tile& tile, const Int8Panel& panel, const Int8Finish& finish) {
  const int64_t lanes = panel.vectors * kInt8Lanes;
  for (int64_t r = 0; r < tile.count; ++r) {
    alignas(64) int32_t sums[kInt8Panel];
    std::memcpy(sums, panel.start, static_cast<size_t>(lanes) * sizeof(int32_t));
    const int8_t* weights = panel.weights;
    for (int64_t t = 0; t < tile.tap_count; ++t) {
      const uint8_t* row = tile.rows[r] + tile.shift + tile.taps[t];
      for (int64_t s = 0; s < tile.steps; ++s, weights += 4 * lanes) add_products(sums, row + 4 * s, weights, lanes);
    }
    finish_int8_lanes(finish, panel, tile.row_sums ? tile.row_sums[r] : 0, sums, int8_place(tile.residual, r * tile.stride, finish),
                      int8_place(tile.dst, r * tile.stride, finish));
  }
}

void depthwise(const Int8DepthwiseLine& line, const Int8Panel& panel, const Int8Finish& finish) {
  const int64_t lanes = panel.vectors * kInt8Lanes;
  for (int64_t x = 0; x < line.count; ++x) {
    alignas(64) int32_t sums[kInt8Panel];
    std::memcpy(sums, panel.start, static_cast<size_t>(lanes) * sizeof(int32_t));
    for (int64_t t = 0; t < line.tap_count; ++t)
      add_lane_products(sums, line.src + x * line.pixel_stride + line.taps[t], panel.weights + 4 * t * lanes, lanes);
    finish_int8_lanes(finish, panel, 0, sums, int8_place(line.residual, x * line.stride, finish),
                      int8_place(line.dst, x * line.stride, finish));
  }
}

void interleave(const Int8Interleave& job) {
  const int64_t lanes = job.vectors * kInt8Lanes;
  for (int64_t x = 0; x < job.count; ++x) {
    uint8_t* dst = job.dst + x * job.dst_stride;
    for (int64_t p = 0; p < lanes; ++p) {
      const int64_t channel = int8_lane_order(job.vectors, p);
      for (int64_t t = 0; t < 4; ++t) dst[4 * p + t] = channel < job.channels ? job.sources[t][x * job.stride + channel] : 0;
    }
  }
}

void lookup(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t* table) {
  for (int64_t i = 0; i < n; ++i) y[i] = table[x[i]];
}

INFOPT_SIMD int32_t sum_bytes(const uint8_t* x, int64_t n) {
  uint32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  return static_cast<int32_t>(sum);
}

void sum_rows(const Int8Tile& tile, int64_t run_bytes, int32_t* sums) {
  for (int64_t r = 0; r < tile.count; ++r) {
    sums[r] = 0;
    for (int64_t t = 0; t < tile.tap_count; ++t) sums[r] += sum_bytes(tile.rows[r] + tile.shift + tile.taps[t], run_bytes);
  }
}

const Int8Kernels* kernels_of(Int8Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Int8Isa::Avx512Vnni: return &int8_avx512_kernels();
    case Int8Isa::Avx2: return &int8_avx2_kernels();
#endif
    default: return &int8_portable_kernels();
  }
}

const Int8Kernels* best() {
  for (const Int8Isa isa : {Int8Isa::Avx512Vnni, Int8Isa::Avx2})
    if (has_int8_isa(isa)) return kernels_of(isa);
  return kernels_of(Int8Isa::Portable);
}

std::atomic<const Int8Kernels*>& chosen() {
  static std::atomic<const Int8Kernels*> kernels = best();
  return kernels;
}

}  // namespace

INFOPT_SIMD void flip_bytes(const uint8_t* x, uint8_t* y, int64_t n, uint8_t flip) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] ^ flip;
}

const Int8Kernels& int8_portable_kernels() {
  static constexpr Int8Kernels kernels{product, depthwise, interleave, nullptr, nullptr, lookup, sum_rows};
  return kernels;
}

const Int8Kernels& int8_kernels() { return *chosen().load(std::memory_order_relaxed); }

bool has_int8_isa(Int8Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Int8Isa::Avx512Vnni:
      return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512f");
    case Int8Isa::Avx2: return __builtin_cpu_supports("avx2");
    default: return true;
  }
#else
  return isa == Int8Isa::Portable;
#endif
}

void use_int8_isa(Int8Isa isa) {
  if (!has_int8_isa(isa)) throw Error(ErrorKind::Unsupported, "this processor lacks the instruction set");
  chosen().store(kernels_of(isa), std::memory_order_relaxed);
}

}  // namespace infopt::cpu

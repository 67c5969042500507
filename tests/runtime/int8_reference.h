// The formulas of lib/runtime/cpu/int8_epilogue.h, one element at a time, and random cases to put to them.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "lib/base/dtype.h"
#include "lib/runtime/cpu/int8_epilogue.h"
#include "lib/runtime/cpu/int8_kernels.h"

namespace infopt::cpu {

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  int64_t in(int64_t low, int64_t high) { return low + static_cast<int64_t>(engine_() % static_cast<uint64_t>(high - low + 1)); }
  bool chance(int64_t one_of) { return in(1, one_of) == 1; }
  float real(float low, float high) { return low + (high - low) * static_cast<float>(in(0, 1 << 20)) / static_cast<float>(1 << 20); }
  template <class T>
  T pick(std::initializer_list<T> of) {
    return of.begin()[in(0, static_cast<int64_t>(of.size()) - 1)];
  }
  /// Bytes of every value, the extremes often.
  std::vector<uint8_t> bytes(int64_t n) {
    std::vector<uint8_t> v(static_cast<size_t>(n));
    for (uint8_t& b : v) b = chance(4) ? pick<uint8_t>({0, 127, 128, 255}) : static_cast<uint8_t>(in(0, 255));
    return v;
  }

 private:
  std::mt19937_64 engine_;
};

inline int32_t code_value(uint8_t byte, DType t) { return t == DType::I8 ? static_cast<int8_t>(byte) : byte; }
inline int32_t least_of(DType t) { return t == DType::I8 ? -128 : 0; }
inline int32_t random_zero(Random& r, DType t) { return static_cast<int32_t>(r.in(0, 255)) + least_of(t); }

inline int32_t saturated(float v, int32_t zero, DType t) {
  const double q = std::nearbyint(static_cast<double>(v)) + zero;
  return static_cast<int32_t>(std::clamp<double>(q, least_of(t), least_of(t) + 255));
}

/// An epilogue with the memory it points to.
struct EpilogueCase {
  Int8Epilogue e;
  std::vector<float> scale, float_bias;
  std::vector<int32_t> bias;
  std::vector<uint8_t> table, residual;  ///< residual: one element for each of the output

  /// For `columns` columns, `elements` outputs and sums of about ±`size`.
  EpilogueCase(Random& r, int64_t columns, int64_t elements, double size) {
    e.output = r.pick({DType::U8, DType::U8, DType::I8, DType::F32, DType::I32});
    const bool bytes = e.output == DType::U8 || e.output == DType::I8;
    const float to_range = static_cast<float>((bytes ? 150.0 : 3.0) / std::max(size, 1.0));
    for (int64_t i = 0; i < columns; ++i) scale.push_back(to_range * r.real(0.3f, 1.5f));
    if (r.chance(20)) scale[0] = 1e20f;  // far beyond int32
    if (r.chance(2))
      for (int64_t i = 0; i < columns; ++i) bias.push_back(static_cast<int32_t>(r.real(-1, 1) * static_cast<float>(size)));
    if (r.chance(4))
      for (int64_t i = 0; i < columns; ++i) float_bias.push_back(r.real(-40, 40));
    if (r.chance(2)) e.low = r.pick({0.0f, -20.5f, 3.25f});
    if (r.chance(3)) e.high = r.pick({90.0f, 6.5f, 30.7f});
    e.zero = bytes ? random_zero(r, e.output) : 0;
    if (e.output != DType::I32 && r.chance(3)) add_residual(r, bytes, elements);
    if (bytes && r.chance(5)) table = r.bytes(256);
    e.scale = scale.data();
    e.bias = bias.empty() ? nullptr : bias.data();
    e.float_bias = float_bias.empty() ? nullptr : float_bias.data();
    e.table = table.empty() ? nullptr : table.data();
  }
  EpilogueCase(const EpilogueCase&) = delete;

  /// What is stored for `sum` (without the bias) in column n of output element `at`.
  void store(int64_t sum, int64_t n, int64_t at, uint8_t* to) const {
    const size_t c = static_cast<size_t>(n);
    const int32_t total = static_cast<int32_t>(static_cast<uint32_t>(sum + (e.bias ? e.bias[c] : 0)));
    if (e.output == DType::I32) {
      std::memcpy(to, &total, 4);
      return;
    }
    float v = static_cast<float>(total) * e.scale[c];
    if (e.float_bias) v = v + e.float_bias[c];
    v = std::min(std::max(v, e.low), e.high);
    if (e.output == DType::F32) {
      if (e.residual) {
        float r;
        std::memcpy(&r, residual.data() + 4 * at, 4);
        v = std::min(std::max(v + r, e.low2), e.high2);
      }
      std::memcpy(to, &v, 4);
      return;
    }
    int32_t q = saturated(v, e.zero, e.output);
    if (e.residual) {
      const int32_t r = code_value(residual[static_cast<size_t>(at)], e.residual_dtype);
      const float left = static_cast<float>(q - e.zero) * e.ratio, right = static_cast<float>(r - e.residual_zero) * e.residual_ratio;
      q = saturated(std::min(std::max(left + right, e.low2), e.high2), e.zero2, e.output);
    }
    *to = e.table ? e.table[static_cast<uint8_t>(q)] : static_cast<uint8_t>(q);
  }
  std::string describe() const {
    return std::string(name_of(e.output)) + (e.residual ? " residual " + std::string(name_of(e.residual_dtype)) : "") +
           (e.table ? " table" : "") + (e.bias ? " bias" : "") + (e.float_bias ? " float bias" : "");
  }

 private:
  void add_residual(Random& r, bool bytes, int64_t elements) {
    e.residual = true;
    e.residual_dtype = bytes ? r.pick({DType::U8, DType::I8}) : DType::F32;
    e.residual_zero = random_zero(r, e.residual_dtype);
    e.zero2 = bytes ? random_zero(r, e.output) : 0;
    e.ratio = r.real(0.2f, 2);
    e.residual_ratio = r.real(0.2f, 2);
    if (r.chance(2)) e.low2 = r.pick({0.0f, -1.5f});
    if (r.chance(3)) e.high2 = r.pick({100.0f, 0.5f});
    if (bytes) {
      residual = r.bytes(elements);
      return;
    }
    residual.resize(static_cast<size_t>(4 * elements));
    for (int64_t i = 0; i < elements; ++i) {
      const float v = r.real(-4, 4);
      std::memcpy(residual.data() + 4 * i, &v, 4);
    }
  }
};

/// Every instruction set that this processor has.
inline std::vector<Int8Isa> int8_isas() {
  std::vector<Int8Isa> isas;
  for (const Int8Isa isa : {Int8Isa::Portable, Int8Isa::Avx2, Int8Isa::Avx512Vnni})
    if (has_int8_isa(isa)) isas.push_back(isa);
  return isas;
}

/// Cuts of [0, n), some empty.
inline std::vector<int64_t> random_cuts(Random& r, int64_t n) {
  std::vector<int64_t> cuts{0, n};
  for (int64_t i = r.in(0, 3); i > 0; --i) cuts.push_back(r.in(0, n));
  std::sort(cuts.begin(), cuts.end());
  return cuts;
}

}  // namespace infopt::cpu

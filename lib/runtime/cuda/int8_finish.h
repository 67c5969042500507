// What integer kernels do with their sums, on the device: cpu/int8_epilogue.h's operations in its order, so that the bits are the CPU's.
#pragma once
#include <vector>

#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/portable.h"
#include "lib/runtime/fused_ops.h"

namespace infopt::cuda {

/// An epilogue as kernels take it. Arrays have one entry for each column of the output.
struct Int8End {
  enum Kind { Int32, Float, Codes } kind = Codes;
  const float *scale = nullptr, *float_bias = nullptr;  ///< float_bias: null where there is none
  const int32_t* bias = nullptr;                        ///< with everything that zero points known beforehand contribute
  const int32_t* weight_zero = nullptr;                 ///< times the row's sum is subtracted; null where all are 0
  const float* run_scale = nullptr;                     ///< one that multiplies all of `scale`; null: none
  const uint8_t* run_zero = nullptr;                    ///< the activations' zero point, where the run knows it, and what it is multiplied with
  const int32_t* run_zero_factor = nullptr;
  bool run_zero_signed = false, is_signed = false, residual = false, residual_signed = false;
  float low = 0, high = 0, low2 = 0, high2 = 0, ratio = 1, residual_ratio = 1;
  int32_t zero = 0, zero2 = 0, residual_zero = 0;
  const void* residual_data = nullptr;
  const uint8_t* table = nullptr;
};

INFOPT_DEVICE int code_of_byte(uint32_t byte, bool is_signed) { return is_signed ? static_cast<int8_t>(byte) : static_cast<int>(byte & 255u); }
INFOPT_DEVICE float clamp_as_cpu(float v, float low, float high) {
  v = v > low ? v : low;
  return v < high ? v : high;
}
INFOPT_DEVICE int wrapped_add(int a, int b) { return static_cast<int>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b)); }
INFOPT_DEVICE int wrapped_multiply(int a, int b) { return static_cast<int>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b)); }

/// One column's parameters.
struct Int8Column {
  float scale = 0, float_bias = 0;
  int32_t bias = 0, weight_zero = 0;
};
INFOPT_DEVICE Int8Column load_column(const Int8End& e, int64_t n) {
  Int8Column c;
  if (e.kind != Int8End::Int32) c.scale = e.run_scale ? __fmul_rn(*e.run_scale, __ldg(e.scale + n)) : __ldg(e.scale + n);
  if (e.float_bias) c.float_bias = __ldg(e.float_bias + n);
  if (e.bias) c.bias = __ldg(e.bias + n);
  if (e.weight_zero) c.weight_zero = __ldg(e.weight_zero + n);
  if (e.run_zero) c.bias = wrapped_add(c.bias, wrapped_multiply(code_of_byte(*e.run_zero, e.run_zero_signed), __ldg(e.run_zero_factor + n)));
  return c;
}

/// The sum with its bias.
INFOPT_DEVICE int biased(const Int8Column& c, int sum) { return wrapped_add(sum, c.bias); }
/// Scaled and bounded.
INFOPT_DEVICE float scaled(const Int8End& e, const Int8Column& c, int sum) {
  float v = __fmul_rn(static_cast<float>(biased(c, sum)), c.scale);
  if (e.float_bias) v = __fadd_rn(v, c.float_bias);
  return clamp_as_cpu(v, e.low, e.high);
}
INFOPT_DEVICE float with_residual(const Int8End& e, float v, int64_t at) {
  return e.residual ? clamp_as_cpu(__fadd_rn(v, static_cast<const float*>(e.residual_data)[at]), e.low2, e.high2) : v;
}
/// The first rounding's code, as a byte.
INFOPT_DEVICE uint32_t first_code(const Int8End& e, const Int8Column& c, int sum) { return static_cast<uint32_t>(__float2int_rn(scaled(e, c, sum)) + e.zero) & 255u; }
/// What becomes of it with the residual's code and the table.
INFOPT_DEVICE uint32_t last_code(const Int8End& e, const uint8_t* table, uint32_t q, uint32_t r) {
  if (e.residual) {
    const float left = __fmul_rn(static_cast<float>(code_of_byte(q, e.is_signed) - e.zero), e.ratio);
    const float right = __fmul_rn(static_cast<float>(code_of_byte(r, e.residual_signed) - e.residual_zero), e.residual_ratio);
    q = static_cast<uint32_t>(__float2int_rn(clamp_as_cpu(__fadd_rn(left, right), e.low2, e.high2)) + e.zero2) & 255u;
  }
  return e.table ? table[q] : q;
}

/// Stores V neighbouring columns' sums (without bias) of a row; `at` is the first one's element, a multiple of V.
template <int V> INFOPT_DEVICE void store_sums(const Int8End& e, const int (&sums)[V], int64_t at, int64_t n, void* to) {
  uint32_t word = 0, residual = 0;
  if (e.kind == Int8End::Codes && e.residual) {
    const auto* r = static_cast<const uint8_t*>(e.residual_data) + at;
    if constexpr (V == 4) residual = *reinterpret_cast<const uint32_t*>(r);
    else residual = *r;
  }
INFOPT_UNROLL
  for (int i = 0; i < V; ++i) {
    const Int8Column c = load_column(e, n + i);
    if (e.kind == Int8End::Int32) static_cast<int*>(to)[at + i] = biased(c, sums[i]);
    else if (e.kind == Int8End::Float) static_cast<float*>(to)[at + i] = with_residual(e, scaled(e, c, sums[i]), at + i);
    else word |= last_code(e, e.table, first_code(e, c, sums[i]), residual >> 8 * i & 255u) << 8 * i;
  }
  if (e.kind != Int8End::Codes) return;
  auto* byte = static_cast<uint8_t*>(to) + at;
  if constexpr (V == 4) *reinterpret_cast<uint32_t*>(byte) = word;
  else *byte = static_cast<uint8_t>(word);
}

/// An epilogue with its arrays on the device.
class Int8Ending {
 public:
  Int8Ending() = default;
  /// `shift`: added to the bias of each column (what zero points contribute); `weight_zeros`: empty where the kernel needs none. Both copied.
  Int8Ending(std::shared_ptr<const IntegerEpilogue> end, int64_t columns, const std::vector<int32_t>& shift, const std::vector<int32_t>& weight_zeros);
  Int8End get(CudaRun& run) const;
  const cpu::Int8Epilogue& epilogue() const { return end_->epilogue; }
  DType output() const { return end_->output; }

 private:
  std::shared_ptr<const IntegerEpilogue> end_;
  OnDevice scale_, float_bias_, bias_, weight_zero_, table_;
};

/// To float32: one scale for each column, biases (or none), bounds. Without scales: int32 sums.
std::shared_ptr<const IntegerEpilogue> plain_end(std::vector<float> scales, std::vector<float> bias, const PostActivation& bounds);
/// A scale and a zero point that the run computes, both one number; `zero` may be null. Throw Error(Malformed) where they are anything else.
void set_run_scale(Int8End& end, const Tensor& scale);
void set_run_zero(Int8End& end, const Tensor& zero);

/// What the epilogue says of the residual and of Tensors: bytes where the output is 8-bit.
inline size_t bytes_of_output(const Int8End& e) { return e.kind == Int8End::Codes ? 1 : 4; }

}  // namespace infopt::cuda

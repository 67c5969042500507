// What each Fn (lib/runtime/cuda/element.h) computes, for eight elements at once.
#pragma once
#include "lib/runtime/cuda/element.h"
#include "lib/runtime/cuda/element_memory.h"

namespace infopt::cuda {

inline constexpr int kWide = 8;  ///< elements that a thread computes at once

template <class W> INFOPT_DEVICE bool below_zero(W v) {
  if constexpr (std::is_signed_v<W>) return v < W(0);
  else return false;
}
/// Arithmetic of integers wraps.
template <class W> INFOPT_DEVICE W wrapping_sub(W a, W b) {
  if constexpr (std::is_floating_point_v<W>) return a - b;
  else return static_cast<W>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
}
template <class W> INFOPT_DEVICE W wrapping_add(W a, W b) {
  if constexpr (std::is_floating_point_v<W>) return a + b;
  else return static_cast<W>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
template <class W> INFOPT_DEVICE W wrapping_mul(W a, W b) {
  if constexpr (std::is_floating_point_v<W>) return a * b;
  else return static_cast<W>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}
template <class W> INFOPT_DEVICE W negative(W v) {
  if constexpr (std::is_floating_point_v<W>) return -v;
  else return wrapping_sub(W(0), v);
}
template <class W> INFOPT_DEVICE W magnitude(W v) {
  if constexpr (std::is_floating_point_v<W>) return std::fabs(v);
  else return below_zero(v) ? negative(v) : v;
}
/// One by zero is 0.
template <class W> INFOPT_DEVICE W divide(W a, W b) {
  if constexpr (std::is_floating_point_v<W>) return a / b;
  else if (b == W(0)) return W(0);
  else if constexpr (std::is_signed_v<W>) return b == W(-1) ? wrapping_sub(W(0), a) : a / b;
  else return a / b;
}
template <class W> INFOPT_DEVICE W remainder_of(W a, W b) {
  if constexpr (std::is_floating_point_v<W>) return std::fmod(a, b);
  else if constexpr (std::is_signed_v<W>) return b == W(0) || b == W(-1) ? W(0) : a % b;
  else return b == W(0) ? W(0) : a % b;
}
/// With the divisor's sign.
template <class W> INFOPT_DEVICE W floor_remainder(W a, W b) {
  const W r = remainder_of(a, b);
  if constexpr (std::is_floating_point_v<W>) {
    if (r == W(0)) return std::copysign(r, b);
    return (r < W(0)) != (b < W(0)) ? r + b : r;
  } else {
    return r != W(0) && below_zero(r) != below_zero(b) ? r + b : r;
  }
}
template <class W> INFOPT_DEVICE W power(W base, W exponent) {
  if constexpr (std::is_floating_point_v<W>) {
    return std::pow(base, exponent);
  } else {
    if (below_zero(exponent)) {
      if (base == W(1)) return 1;
      if (base == static_cast<W>(-1)) return (exponent & 1) ? base : W(1);
      return 0;
    }
    W result = 1;
    for (auto left = static_cast<uint64_t>(exponent); left; left >>= 1) {
      if (left & 1) result = wrapping_mul(result, base);
      base = wrapping_mul(base, base);
    }
    return result;
  }
}
template <class W> INFOPT_DEVICE W clamp_to(W v, W low, W high) {
  const W raised = v < low ? low : v;
  return raised > high ? high : raised;
}
template <class W> INFOPT_DEVICE W sigmoid(W v) { return W(1) / (W(1) + std::exp(-v)); }
template <class W> INFOPT_DEVICE W softplus(W v) { return (v > W(0) ? v : W(0)) + std::log1p(std::exp(-std::fabs(v))); }
template <class W> INFOPT_DEVICE W mish(W v) {
  const W e = std::exp(v > W(20) ? W(20) : v), n = e * (e + W(2));
  return v > W(20) ? v : v < W(-1e30) ? W(-0.0) : v * (n / (n + W(2)));
}
template <class W> INFOPT_DEVICE W gelu(W v) {
  const W y = W(0.5) * v * (W(1) + std::erf(v * W(0.70710678118654752440)));
  return v < W(-1e30) ? W(-0.0) : y;
}
template <class W> INFOPT_DEVICE W gelu_tanh(W v) { return v * sigmoid(W(1.5957691216057308) * (v + W(0.044715) * (v * v * v))); }
template <class W> INFOPT_DEVICE W root(W v) { return v == -W(__int_as_float(0x7f800000)) ? -v : std::sqrt(v) + W(0); }

/// Functions of many instructions: one element after another, turned through the same places so that they stay in registers.
template <class W, class F> INFOPT_DEVICE void one_by_one(W (&a)[kWide], W (&b)[kWide], F f) {
  INFOPT_ROLL for (int k = 0; k < kWide; ++k) {
    const W v = f(a[0], b[0]), first = b[0];
    INFOPT_UNROLL for (int i = 0; i + 1 < kWide; ++i) a[i] = a[i + 1], b[i] = b[i + 1];
    a[kWide - 1] = v, b[kWide - 1] = first;
  }
}

#define INFOPT_EACH(expression)                       \
  {                                                   \
    INFOPT_UNROLL for (int i = 0; i < kWide; ++i) {   \
      const W v = a[i];                               \
      a[i] = static_cast<W>(expression);              \
    }                                                 \
    return;                                           \
  }
#define INFOPT_SLOWLY(expression) return one_by_one(a, b, [=](W v, [[maybe_unused]] W w) { return static_cast<W>(expression); });

/// Functions that floats alone have.
template <class W> INFOPT_DEVICE void apply_float(Fn fn, W p, W q, W (&a)[kWide], W (&b)[kWide]) {
  switch (fn) {
    case Fn::Ceil: INFOPT_EACH(std::ceil(v))
    case Fn::Floor: INFOPT_EACH(std::floor(v))
    case Fn::Round: INFOPT_EACH(std::rint(v))
    case Fn::Sqrt: INFOPT_EACH(std::sqrt(v))
    case Fn::Reciprocal: INFOPT_EACH(W(1) / v)
    case Fn::Exp: INFOPT_EACH(std::exp(v))
    case Fn::Log: INFOPT_EACH(std::log(v))
    case Fn::Erf: INFOPT_EACH(std::erf(v))
    case Fn::Tanh: INFOPT_EACH(std::tanh(v))
    case Fn::Sin: INFOPT_SLOWLY(std::sin(v))
    case Fn::Cos: INFOPT_SLOWLY(std::cos(v))
    case Fn::Tan: INFOPT_SLOWLY(std::tan(v))
    case Fn::Asin: INFOPT_SLOWLY(std::asin(v))
    case Fn::Acos: INFOPT_SLOWLY(std::acos(v))
    case Fn::Atan: INFOPT_SLOWLY(std::atan(v))
    case Fn::Sinh: INFOPT_SLOWLY(std::sinh(v))
    case Fn::Cosh: INFOPT_SLOWLY(std::cosh(v))
    case Fn::Asinh: INFOPT_SLOWLY(std::asinh(v))
    case Fn::Acosh: INFOPT_SLOWLY(std::acosh(v))
    case Fn::Atanh: INFOPT_SLOWLY(std::atanh(v))
    case Fn::LeakyRelu: INFOPT_EACH(v < W(0) ? p * v : v)
    case Fn::Elu: INFOPT_EACH(v < W(0) ? p * std::expm1(v) : v)
    case Fn::Selu: INFOPT_EACH(v > W(0) ? q * v : q * (p * std::expm1(v)))
    case Fn::Celu: INFOPT_EACH(v < W(0) ? p * std::expm1(v / p) : v)
    case Fn::ThresholdedRelu: INFOPT_EACH(v > p || v != v ? v : W(0))
    case Fn::Sigmoid: INFOPT_EACH(sigmoid(v))
    case Fn::Softplus: INFOPT_EACH(softplus(v))
    case Fn::Softsign: INFOPT_EACH(v / (W(1) + std::fabs(v)))
    case Fn::Gelu: INFOPT_EACH(gelu(v))
    case Fn::GeluTanh: INFOPT_EACH(gelu_tanh(v))
    case Fn::Mish: INFOPT_EACH(mish(v))
    case Fn::Swish: INFOPT_EACH(v * sigmoid(p * v))
    case Fn::Clip: INFOPT_EACH(clamp_to(v, p, q))
    case Fn::HardSigmoid: INFOPT_EACH(clamp_to(p * v + q, W(0), W(1)))
    case Fn::HardSwish: INFOPT_EACH(v * clamp_to(v * W(1.0 / 6) + W(0.5), W(0), W(1)))
    case Fn::Shrink: INFOPT_EACH(v < -p ? v + q : v > p ? v - q : v != v ? v : W(0))
    case Fn::Root: INFOPT_EACH(root(v))
    case Fn::IsInf: INFOPT_EACH(std::fabs(v) == W(__int_as_float(0x7f800000)) && (v > W(0) ? q : p) != W(0))
    default: return;
  }
}

/// Functions that integers alone have.
template <class W> INFOPT_DEVICE void apply_integer(Fn fn, int width, W (&a)[kWide], W (&b)[kWide]) {
  switch (fn) {
    case Fn::BitwiseNot: INFOPT_EACH(~v)
    case Fn::And: INFOPT_EACH(v & b[i])
    case Fn::Or: INFOPT_EACH(v | b[i])
    case Fn::Xor: INFOPT_EACH(v ^ b[i])
    case Fn::ShiftLeft: INFOPT_EACH(static_cast<uint64_t>(b[i]) < static_cast<uint64_t>(width) ? static_cast<uint64_t>(v) << b[i] : 0)
    case Fn::ShiftRight: INFOPT_EACH(static_cast<uint64_t>(b[i]) < static_cast<uint64_t>(width) ? v >> b[i] : below_zero(v) ? static_cast<W>(-1) : W(0))
    default: return;
  }
}

/// a = fn(a, b). `c` is what Select decides by.
template <class W> INFOPT_DEVICE void apply(Fn fn, W p, W q, W (&a)[kWide], W (&b)[kWide], const W (&c)[kWide]) {
  switch (fn) {
    case Fn::Load: INFOPT_EACH(((void)v, b[i]))
    case Fn::Add: INFOPT_EACH(wrapping_add(v, b[i]))
    case Fn::Sub: INFOPT_EACH(wrapping_sub(v, b[i]))
    case Fn::Mul: INFOPT_EACH(wrapping_mul(v, b[i]))
    case Fn::Div: INFOPT_EACH(divide(v, b[i]))
    case Fn::DivOrZero: INFOPT_EACH(b[i] == W(0) ? W(0) : divide(v, b[i]))
    case Fn::Max: INFOPT_EACH(v > b[i] || v != v ? v : b[i])
    case Fn::Min: INFOPT_EACH(v < b[i] || v != v ? v : b[i])
    case Fn::PRelu: INFOPT_EACH(below_zero(v) ? wrapping_mul(v, b[i]) : v)
    case Fn::FloorMod: INFOPT_SLOWLY(floor_remainder(v, w))
    case Fn::TruncMod: INFOPT_SLOWLY(remainder_of(v, w))
    case Fn::Pow: INFOPT_SLOWLY(power(v, w))
    case Fn::Equal: INFOPT_EACH(v == b[i] ? W(1) : W(0))
    case Fn::Less: INFOPT_EACH(v < b[i] ? W(1) : W(0))
    case Fn::LessOrEqual: INFOPT_EACH(v <= b[i] ? W(1) : W(0))
    case Fn::Greater: INFOPT_EACH(v > b[i] ? W(1) : W(0))
    case Fn::GreaterOrEqual: INFOPT_EACH(v >= b[i] ? W(1) : W(0))
    case Fn::Not: INFOPT_EACH(v == W(0) ? W(1) : W(0))
    case Fn::Select: INFOPT_EACH(c[i] != W(0) ? v : b[i])
    case Fn::Abs: INFOPT_EACH(magnitude(v))
    case Fn::Neg: INFOPT_EACH(negative(v))
    case Fn::Sign: INFOPT_EACH(v == W(0) || v != v ? v : below_zero(v) ? static_cast<W>(-1) : W(1))
    case Fn::Relu: INFOPT_EACH(below_zero(v) ? W(0) : v)
    case Fn::Square: INFOPT_EACH(wrapping_mul(v, v))
    case Fn::Cube: INFOPT_EACH(wrapping_mul(wrapping_mul(v, v), v))
    case Fn::IsNaN: INFOPT_EACH(v != v ? W(1) : W(0))
    default: break;
  }
  if constexpr (std::is_floating_point_v<W>) apply_float(fn, p, q, a, b);
  else apply_integer(fn, static_cast<int>(q), a, b);
}

#undef INFOPT_EACH
#undef INFOPT_SLOWLY

}  // namespace infopt::cuda

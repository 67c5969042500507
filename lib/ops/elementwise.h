// Shared by the operators that map each element by itself. They take any layout and hand it on.
#pragma once
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "lib/base/error.h"
#include "lib/ops/op.h"

namespace infopt {

/// y = f(x; a, b) for n floats; x and y may be the same array.
using FloatLoop = void (*)(const float* x, float* y, int64_t n, float a, float b);
using DoubleFunction = double (*)(double x, double a, double b);

/// One function with its two parameters: `f32` for float32 and, by way of it, for the 16-bit floats; `f64` for float64.
struct FloatMap {
  FloatLoop f32 = nullptr;
  DoubleFunction f64 = nullptr;
  float a = 0, b = 0;
};

/// Input 0 mapped into output 0. Throws Error(Unsupported) where the element type isn't a float.
void run_map(KernelContext& context, const FloatMap& map);
std::unique_ptr<Kernel> make_map(FloatMap map);
/// The same for floats; `run` knows other types besides.
std::unique_ptr<Kernel> make_map(FloatMap map, KernelFunction run);

[[noreturn]] void refuse_type(DType dtype);

/// Defines a FloatLoop of the element `v` and the parameters `a` and `b`.
#define INFOPT_FLOAT_LOOP(loop_name, expression)                                                                                      \
  INFOPT_SIMD void loop_name(const float* x, float* y, int64_t n, [[maybe_unused]] float a, [[maybe_unused]] float b) {               \
    _Pragma("GCC ivdep") for (int64_t i = 0; i < n; ++i) {                                                                            \
      const float v = x[i];                                                                                                           \
      y[i] = (expression);                                                                                                            \
    }                                                                                                                                 \
  }

/// f.template operator()<T>() for an integer type. Throws Error(Unsupported) for another.
template <class F> auto visit_integer(DType dtype, F&& f) {
  switch (dtype) {
    case DType::U8: return f.template operator()<uint8_t>();
    case DType::I8: return f.template operator()<int8_t>();
    case DType::U16: return f.template operator()<uint16_t>();
    case DType::I16: return f.template operator()<int16_t>();
    case DType::I32: return f.template operator()<int32_t>();
    case DType::I64: return f.template operator()<int64_t>();
    case DType::U32: return f.template operator()<uint32_t>();
    case DType::U64: return f.template operator()<uint64_t>();
    default: refuse_type(dtype);
  }
}

/// The same for an integer type, float32 or float64.
template <class F> auto visit_number(DType dtype, F&& f) {
  if (dtype == DType::F32) return f.template operator()<float>();
  if (dtype == DType::F64) return f.template operator()<double>();
  return visit_integer(dtype, f);
}

inline bool is_16_bit_float(DType dtype) { return dtype == DType::F16 || dtype == DType::BF16; }

/// Input 0 mapped by f(T) -> R into output 0 of the type `to`, in the input's layout. Throws Error(Unsupported) where it isn't of T.
template <class T, class R, class F> void map_elements(KernelContext& context, DType to, F f) {
  Layout layout;
  const Tensor& input = context.in_any(0, layout);
  if (input.dtype() != dtype_of<T>) refuse_type(input.dtype());
  const T* x = input.data<T>();
  const int64_t n = input.size();
  Shape shape = input.shape();
  Tensor& output = std::is_same_v<T, R> ? context.out_reusing(0, 0, to, std::move(shape), layout) : context.out(0, to, std::move(shape), layout);
  R* y = reinterpret_cast<R*>(output.mutable_raw());
  for (int64_t i = 0; i < n; ++i) y[i] = f(x[i]);
}

/// The axis counted from the front. Throws Error(Malformed) where it isn't in [-rank, rank).
int64_t normalize_axis(int64_t axis, int64_t rank);

}  // namespace infopt

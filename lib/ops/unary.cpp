// Abs, Neg, Exp, Sin…: functions of one element without parameters, and the tests of one element.
#include <cmath>
#include <type_traits>

#include "lib/base/float_math.h"
#include "lib/base/simd.h"
#include "lib/ops/elementwise.h"

namespace infopt {
namespace {

INFOPT_FLOAT_LOOP(abs_loop, std::fabs(v))
INFOPT_FLOAT_LOOP(neg_loop, -v)
INFOPT_FLOAT_LOOP(ceil_loop, std::ceil(v))
INFOPT_FLOAT_LOOP(floor_loop, std::floor(v))
INFOPT_FLOAT_LOOP(round_loop, round_even_f(v))
INFOPT_FLOAT_LOOP(sqrt_loop, std::sqrt(v))
INFOPT_FLOAT_LOOP(reciprocal_loop, 1.0f / v)
INFOPT_FLOAT_LOOP(exp_loop, exp_f(v))
INFOPT_FLOAT_LOOP(log_loop, log_f(v))
INFOPT_FLOAT_LOOP(erf_loop, erf_f(v))
INFOPT_FLOAT_LOOP(tanh_loop, tanh_f(v))
INFOPT_FLOAT_LOOP(sign_loop, v > 0.0f ? 1.0f : (v < 0.0f ? -1.0f : v))

/// A loop over a function of the C library.
template <float (*f)(float)> void library_loop(const float* x, float* y, int64_t n, float, float) {
  for (int64_t i = 0; i < n; ++i) y[i] = f(x[i]);
}
template <double (*f)(double)> double library(double x, double, double) { return f(x); }

#define INFOPT_LIBRARY(function) {library_loop<static_cast<float (*)(float)>(std::function)>, library<static_cast<double (*)(double)>(std::function)>}

struct Entry {
  const char* op;
  FloatMap map;
};

const Entry kEntries[] = {
    {"Abs", {abs_loop, library<std::fabs>}},
    {"Neg", {neg_loop, [](double x, double, double) { return -x; }}},
    {"Ceil", {ceil_loop, library<std::ceil>}},
    {"Floor", {floor_loop, library<std::floor>}},
    {"Round", {round_loop, library<std::nearbyint>}},
    {"Sqrt", {sqrt_loop, library<std::sqrt>}},
    {"Reciprocal", {reciprocal_loop, [](double x, double, double) { return 1.0 / x; }}},
    {"Exp", {exp_loop, library<std::exp>}},
    {"Log", {log_loop, library<std::log>}},
    {"Erf", {erf_loop, library<std::erf>}},
    {"Tanh", {tanh_loop, library<std::tanh>}},
    {"Sign", {sign_loop, [](double x, double, double) { return x > 0 ? 1.0 : x < 0 ? -1.0 : x; }}},
    {"Sin", INFOPT_LIBRARY(sin)},
    {"Cos", INFOPT_LIBRARY(cos)},
    {"Tan", INFOPT_LIBRARY(tan)},
    {"Asin", INFOPT_LIBRARY(asin)},
    {"Acos", INFOPT_LIBRARY(acos)},
    {"Atan", INFOPT_LIBRARY(atan)},
    {"Sinh", INFOPT_LIBRARY(sinh)},
    {"Cosh", INFOPT_LIBRARY(cosh)},
    {"Asinh", INFOPT_LIBRARY(asinh)},
    {"Acosh", INFOPT_LIBRARY(acosh)},
    {"Atanh", INFOPT_LIBRARY(atanh)},
};

/// 'A'bs, 'N'eg and 'S'ign of integers, with the wrap of two's complement.
template <class T> T map_integer(char what, T x) {
  using U = std::make_unsigned_t<T>;
  const T negative = static_cast<T>(static_cast<U>(U(0) - static_cast<U>(x)));
  switch (what) {
    case 'A': return x < T(0) ? negative : x;
    case 'N': return negative;
    default: return static_cast<T>(x > T(0) ? T(1) : x < T(0) ? static_cast<T>(-1) : T(0));
  }
}

std::unique_ptr<Kernel> make_unary(const KernelSpec& spec) {
  for (const Entry& entry : kEntries) {
    if (spec.node.op != entry.op) continue;
    const std::string_view op = entry.op;
    const char integer = op == "Abs" ? 'A' : op == "Neg" ? 'N' : op == "Sign" ? 'S' : '-';
    return make_map(entry.map, [map = entry.map, integer](KernelContext& context) {
      Layout layout;
      const DType dtype = context.in_any(0, layout).dtype();
      if (integer == '-' || !is_integer(dtype)) return run_map(context, map);
      visit_integer(dtype, [&]<class T>() { map_elements<T, T>(context, dtype, [integer](T x) { return map_integer(integer, x); }); });
    });
  }
  throw Error(ErrorKind::Defect, "no kernel is listed for " + spec.node.op);
}

std::unique_ptr<Kernel> make_not(const KernelSpec&) {
  return make_kernel([](KernelContext& context) { map_elements<bool, bool>(context, DType::Bool, [](bool x) { return !x; }); });
}

std::unique_ptr<Kernel> make_bitwise_not(const KernelSpec&) {
  return make_kernel([](KernelContext& context) {
    Layout layout;
    const DType dtype = context.in_any(0, layout).dtype();
    visit_integer(dtype, [&]<class T>() { map_elements<T, T>(context, dtype, [](T x) { return static_cast<T>(~x); }); });
  });
}

/// A test of a floating element, told by its value in double.
template <class F> void test_floats(KernelContext& context, F test) {
  Layout layout;
  const Tensor& x = context.in_any(0, layout);
  switch (x.dtype()) {
    case DType::F32: return map_elements<float, bool>(context, DType::Bool, test);
    case DType::F64: return map_elements<double, bool>(context, DType::Bool, test);
    case DType::F16: return map_elements<half, bool>(context, DType::Bool, [test](half h) { return test(to_float(h)); });
    case DType::BF16: return map_elements<bfloat16, bool>(context, DType::Bool, [test](bfloat16 h) { return test(to_float(h)); });
    default: break;
  }
  if (!is_float(x.dtype())) refuse_type(x.dtype());
  const std::vector<float> values = to_vector<float>(x);
  bool* y = context.out(0, DType::Bool, Shape(x.shape()), layout).mutable_data<bool>();
  for (size_t i = 0; i < values.size(); ++i) y[i] = test(values[i]);
}

std::unique_ptr<Kernel> make_is_nan(const KernelSpec&) {
  return make_kernel([](KernelContext& context) { test_floats(context, [](auto x) { return x != x; }); });
}

std::unique_ptr<Kernel> make_is_inf(const KernelSpec& spec) {
  const bool negative = spec.node.i("detect_negative", 1) != 0, positive = spec.node.i("detect_positive", 1) != 0;
  return make_kernel([=](KernelContext& context) {
    test_floats(context, [=](auto x) { return std::isinf(x) && (x > 0 ? positive : negative); });
  });
}

}  // namespace

std::vector<OpDef> op_unary() {
  std::vector<OpDef> ops;
  for (const Entry& entry : kEntries) ops.push_back({.name = entry.op, .cpu = make_unary});
  ops.push_back({.name = "Not", .cpu = make_not});
  ops.push_back({.name = "BitwiseNot", .cpu = make_bitwise_not});
  ops.push_back({.name = "IsNaN", .cpu = make_is_nan});
  ops.push_back({.name = "IsInf", .cpu = make_is_inf});
  return ops;
}

}  // namespace infopt

// Add, Sub, Mul, Div, Mod, Pow, PRelu, and Sum, Mean, Min, Max of any number of operands. Integers wrap; dividing one by zero gives 0.
#include <cmath>
#include <type_traits>

#include "lib/base/simd.h"
#include "lib/ops/broadcast.h"
#include "lib/ops/elementwise.h"

namespace infopt {
namespace {

INFOPT_BINARY_LOOP(add_loop, a + b)
INFOPT_BINARY_LOOP(sub_loop, a - b)
INFOPT_BINARY_LOOP(mul_loop, a * b)
INFOPT_BINARY_LOOP(div_loop, a / b)
INFOPT_BINARY_LOOP(prelu_loop, a < 0.0f ? a * b : a)
INFOPT_BINARY_LOOP(max_loop, (a > b || a != a) ? a : b)
INFOPT_BINARY_LOOP(min_loop, (a < b || a != a) ? a : b)

/// Arithmetic that wraps: done in the unsigned type, at least as wide as unsigned so that no promotion to int overflows.
template <class T> using Wrap = std::conditional_t<sizeof(T) < sizeof(unsigned), unsigned, std::make_unsigned_t<T>>;

template <class T> constexpr bool kFloating = std::is_floating_point_v<T>;

struct Add {
  template <class T> T operator()(T a, T b) const {
    if constexpr (kFloating<T>) return a + b;
    else return static_cast<T>(static_cast<Wrap<T>>(a) + static_cast<Wrap<T>>(b));
  }
};
struct Sub {
  template <class T> T operator()(T a, T b) const {
    if constexpr (kFloating<T>) return a - b;
    else return static_cast<T>(static_cast<Wrap<T>>(a) - static_cast<Wrap<T>>(b));
  }
};
struct Mul {
  template <class T> T operator()(T a, T b) const {
    if constexpr (kFloating<T>) return a * b;
    else return static_cast<T>(static_cast<Wrap<T>>(a) * static_cast<Wrap<T>>(b));
  }
};
struct Div {
  template <class T> T operator()(T a, T b) const {
    if constexpr (kFloating<T>) return a / b;
    else if (b == T(0)) return 0;
    else if constexpr (std::is_signed_v<T>) return b == T(-1) ? Sub{}(T(0), a) : static_cast<T>(a / b);
    else return static_cast<T>(a / b);
  }
};
struct PRelu {
  template <class T> T operator()(T a, T b) const { return a < T(0) ? Mul{}(a, b) : a; }
};
struct Max {
  template <class T> T operator()(T a, T b) const { return a > b || a != a ? a : b; }
};
struct Min {
  template <class T> T operator()(T a, T b) const { return a < b || a != a ? a : b; }
};

/// The remainder with the divisor's sign.
struct FloorMod {
  template <class T> T operator()(T a, T b) const {
    if constexpr (kFloating<T>) {
      T r = std::fmod(a, b);
      if (r == T(0)) return std::copysign(r, b);
      return (r < T(0)) != (b < T(0)) ? r + b : r;
    } else if constexpr (std::is_signed_v<T>) {
      if (b == T(0) || b == T(-1)) return 0;
      const T r = static_cast<T>(a % b);
      return r != 0 && (r < 0) != (b < 0) ? static_cast<T>(r + b) : r;
    } else {
      return b == T(0) ? T(0) : static_cast<T>(a % b);
    }
  }
};
/// The remainder with the dividend's sign.
struct TruncMod {
  template <class T> T operator()(T a, T b) const {
    if constexpr (kFloating<T>) return std::fmod(a, b);
    else if constexpr (std::is_signed_v<T>) return b == T(0) || b == T(-1) ? T(0) : static_cast<T>(a % b);
    else return b == T(0) ? T(0) : static_cast<T>(a % b);
  }
};

struct Power {
  template <class T> T operator()(T base, T exponent) const {
    if constexpr (kFloating<T>) {
      return std::pow(base, exponent);
    } else {
      if (exponent < T(0)) {
        if (base == T(1)) return 1;
        if (base == static_cast<T>(-1)) return (exponent & 1) ? base : T(1);
        return 0;
      }
      T result = 1;
      for (auto left = static_cast<std::make_unsigned_t<T>>(exponent); left; left = static_cast<std::make_unsigned_t<T>>(left >> 1)) {
        if (left & 1) result = Mul{}(result, base);
        base = Mul{}(base, base);
      }
      return result;
    }
  }
};

/// The loop of F for any number, with `f32` for float32 where there is one.
template <class F, BinaryLoop f32 = nullptr> BinaryLoop number_loop(DType dtype) {
  if (dtype == DType::F32 && f32) return f32;
  if (dtype != DType::F32 && dtype != DType::F64 && !is_integer(dtype)) return nullptr;
  return visit_number(dtype, []<class T>() -> BinaryLoop { return binary_loop<T, T, F>; });
}

constexpr BinaryOp kAdd{number_loop<Add, add_loop>}, kSub{number_loop<Sub, sub_loop>}, kMul{number_loop<Mul, mul_loop>},
    kDiv{number_loop<Div, div_loop>}, kPRelu{number_loop<PRelu, prelu_loop>}, kMax{number_loop<Max, max_loop>}, kMin{number_loop<Min, min_loop>},
    kFloorMod{number_loop<FloorMod>}, kTruncMod{number_loop<TruncMod>}, kPower{number_loop<Power>};

/// Before opset 7 an attribute said whether to broadcast, and another at which axis the second operand's first one lies (by default
/// the last axes lie on one another). Without it the shapes are equal, and NumPy's rule does no harm.
bool broadcasts_at_axis(const KernelSpec& spec) { return spec.opset < 7 && spec.node.i("broadcast", 0) && spec.node.find("axis"); }

/// op(a, b) with b's first axis at a's `axis`.
void run_at_axis(KernelContext& context, const BinaryOp& op, int64_t axis) {
  const DType dtype = context.in(0).dtype(), wide = is_16_bit_float(dtype) ? DType::F32 : dtype;
  if (context.in(1).dtype() != dtype) refuse_type(context.in(1).dtype());
  const BinaryLoop loop = op.loop(wide);
  if (!loop) refuse_type(dtype);
  const Tensor a = cast(context.in(0), wide);
  const int64_t behind = a.rank() - normalize_axis(axis, a.rank()) - context.in(1).rank();
  if (behind < 0) throw Error(ErrorKind::Malformed, "shape " + to_string(context.in(1).shape()) + " doesn't fit " + to_string(a.shape()) + " at axis " + std::to_string(axis));
  Shape aligned = context.in(1).shape();
  aligned.insert(aligned.end(), static_cast<size_t>(behind), 1);
  const Tensor b = cast(context.in(1), wide).reshaped(aligned);
  Tensor y(wide, broadcast_shape(a.shape(), b.shape()));
  run_binary_loop(loop, {wide, a.raw(), a.shape()}, {wide, b.raw(), b.shape()}, y.shape(), y.mutable_raw(), wide);
  context.set(0, cast(y, dtype));
}

/// Before opset 7 a slope for each channel lies at axis 1.
std::unique_ptr<Kernel> make_old_prelu(const KernelSpec&) {
  return make_kernel([](KernelContext& context) {
    const bool by_channel = context.in(1).size() > 1 && context.in(1).rank() == 1 && context.in(0).rank() > 1;
    if (by_channel) run_at_axis(context, kPRelu, 1);
    else run_binary(context, kPRelu);
  });
}

template <const BinaryOp& op> std::unique_ptr<Kernel> make_binary(const KernelSpec& spec) {
  if (broadcasts_at_axis(spec)) return make_kernel([axis = spec.node.i("axis", 0)](KernelContext& context) { run_at_axis(context, op, axis); });
  return make_binary_kernel(op);
}
template <const BinaryOp& op> std::unique_ptr<Kernel> make_folded(const KernelSpec& spec) {
  if (spec.node.inputs.size() == 2) return make_binary_kernel(op);
  return make_kernel([](KernelContext& context) { run_folded(context, op); });
}

std::unique_ptr<Kernel> make_mod(const KernelSpec& spec) {
  return spec.node.i("fmod", 0) ? make_binary<kTruncMod>(spec) : make_binary<kFloorMod>(spec);
}

std::unique_ptr<Kernel> make_mean(const KernelSpec&) {
  return make_kernel([](KernelContext& context) {
    const size_t count = context.inputs();
    if (count == 1) return run_folded(context, kAdd);
    const DType dtype = context.in(0).dtype();
    if (!is_float(dtype)) refuse_type(dtype);
    const DType wide = dtype == DType::F64 ? DType::F64 : DType::F32;
    Shape shape = context.in(0).shape();
    for (size_t i = 1; i < count; ++i) shape = broadcast_shape(shape, context.in(i).shape());
    Tensor total = Tensor::zeros(wide, shape);
    for (size_t i = 0; i < count; ++i) {
      const Tensor next = cast(context.in(i), wide);
      run_binary_loop(kAdd.loop(wide), {wide, total.raw(), shape}, {wide, next.raw(), next.shape()}, shape, total.mutable_raw(), wide);
    }
    const Tensor divisor = cast(Tensor::scalar(static_cast<double>(count)), wide);
    run_binary_loop(kDiv.loop(wide), {wide, total.raw(), shape}, {wide, divisor.raw(), {}}, shape, total.mutable_raw(), wide);
    context.set(0, cast(total, dtype));
  });
}

INFOPT_FLOAT_LOOP(square_loop, v * v)
INFOPT_FLOAT_LOOP(cube_loop, v * v * v)
INFOPT_FLOAT_LOOP(root_loop, v == -std::numeric_limits<float>::infinity() ? -v : std::sqrt(v) + 0.0f)

/// x to a power that is one common number, by multiplication; null where that isn't faster.
FloatLoop simple_power(double exponent) {
  return exponent == 2 ? square_loop : exponent == 3 ? cube_loop : exponent == 0.5 ? root_loop : nullptr;
}

/// Base and exponent of different types: the result has the base's. Integers to a float power go by way of double.
void run_mixed_power(KernelContext& context) {
  const Tensor &base = context.in(0), &exponent = context.in(1);
  const DType dtype = base.dtype();
  const bool by_double = is_integer(dtype) && is_float(exponent.dtype());
  const DType wide = by_double || dtype == DType::F64 ? DType::F64 : is_integer(dtype) ? DType::I64 : DType::F32;
  const Tensor a = cast(base, wide), b = cast(exponent, wide);
  Tensor y(wide, broadcast_shape(a.shape(), b.shape()));
  run_binary_loop(kPower.loop(wide), {wide, a.raw(), a.shape()}, {wide, b.raw(), b.shape()}, y.shape(), y.mutable_raw(), wide);
  context.set(0, cast(y, dtype));
}

std::unique_ptr<Kernel> make_pow(const KernelSpec& spec) {
  if (broadcasts_at_axis(spec)) return make_binary<kPower>(spec);
  return make_kernel([](KernelContext& context) {
    Layout layout;
    const Tensor& base = context.in_any(0, layout);
    const Tensor& exponent = context.in_any(1, layout);
    if (exponent.size() == 1 && exponent.rank() <= base.rank() && (base.dtype() == DType::F32 || is_16_bit_float(base.dtype())))
      if (const FloatLoop loop = simple_power(to_scalar<double>(exponent))) return run_map(context, {loop, nullptr});
    if (base.dtype() == exponent.dtype()) return run_binary(context, kPower);
    run_mixed_power(context);
  });
}

}  // namespace

std::vector<OpDef> op_arithmetic() {
  return {
      {.name = "Add", .since = 6, .cpu = make_binary<kAdd>},     {.name = "Sub", .since = 6, .cpu = make_binary<kSub>},
      {.name = "Mul", .since = 6, .cpu = make_binary<kMul>},     {.name = "Div", .since = 6, .cpu = make_binary<kDiv>},
      {.name = "PRelu", .since = 7, .cpu = make_binary<kPRelu>}, {.name = "PRelu", .until = 6, .cpu = make_old_prelu},
      {.name = "Mod", .cpu = make_mod},
      {.name = "Pow", .since = 6, .cpu = make_pow},              {.name = "Sum", .since = 6, .cpu = make_folded<kAdd>},
      {.name = "Min", .since = 6, .cpu = make_folded<kMin>},     {.name = "Max", .since = 6, .cpu = make_folded<kMax>},
      {.name = "Mean", .since = 6, .cpu = make_mean},
  };
}

}  // namespace infopt

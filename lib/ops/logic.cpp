// Comparisons, logic on booleans, and bitwise operators.
#include <string>
#include <type_traits>

#include "lib/ops/broadcast.h"
#include "lib/ops/elementwise.h"

namespace infopt {
namespace {

struct Equal {
  template <class T> bool operator()(T a, T b) const { return a == b; }
};
struct Less {
  template <class T> bool operator()(T a, T b) const { return a < b; }
};
struct LessOrEqual {
  template <class T> bool operator()(T a, T b) const { return a <= b; }
};
struct Greater {
  template <class T> bool operator()(T a, T b) const { return a > b; }
};
struct GreaterOrEqual {
  template <class T> bool operator()(T a, T b) const { return a >= b; }
};
struct And {
  bool operator()(bool a, bool b) const { return a && b; }
};
struct Or {
  bool operator()(bool a, bool b) const { return a || b; }
};
struct Xor {
  bool operator()(bool a, bool b) const { return a != b; }
};
struct BitwiseAnd {
  template <class T> T operator()(T a, T b) const { return static_cast<T>(a & b); }
};
struct BitwiseOr {
  template <class T> T operator()(T a, T b) const { return static_cast<T>(a | b); }
};
struct BitwiseXor {
  template <class T> T operator()(T a, T b) const { return static_cast<T>(a ^ b); }
};
/// Shifts by the type's width or more, or by a negative number, leave only copies of the sign bit, or zeros.
template <class T> bool in_width(T shift) {
  return shift >= T(0) && static_cast<uint64_t>(shift) < 8 * sizeof(T);
}
struct ShiftLeft {
  template <class T> T operator()(T a, T b) const { return in_width(b) ? static_cast<T>(static_cast<uint64_t>(a) << b) : T(0); }
};
struct ShiftRight {
  template <class T> T operator()(T a, T b) const { return in_width(b) ? static_cast<T>(a >> b) : a < T(0) ? static_cast<T>(-1) : T(0); }
};

template <class F> BinaryLoop comparison_loop(DType dtype) {
  if (dtype == DType::Bool) return binary_loop<bool, bool, F>;
  if (dtype != DType::F32 && dtype != DType::F64 && !is_integer(dtype)) return nullptr;
  return visit_number(dtype, []<class T>() -> BinaryLoop { return binary_loop<T, bool, F>; });
}
template <class F> BinaryLoop logic_loop(DType dtype) { return dtype == DType::Bool ? BinaryLoop(binary_loop<bool, bool, F>) : nullptr; }
template <class F> BinaryLoop bitwise_loop(DType dtype) {
  if (!is_integer(dtype)) return nullptr;
  return visit_integer(dtype, []<class T>() -> BinaryLoop { return binary_loop<T, T, F>; });
}
template <BinaryLoop (*loop)(DType), bool gives_bool> std::unique_ptr<Kernel> make_binary(const KernelSpec&) {
  return make_kernel([](KernelContext& context) { run_binary(context, {loop, gives_bool}); });
}

std::unique_ptr<Kernel> make_bit_shift(const KernelSpec& spec) {
  const std::string direction = spec.node.s("direction", "");
  if (direction == "LEFT") return make_binary<bitwise_loop<ShiftLeft>, false>(spec);
  if (direction == "RIGHT") return make_binary<bitwise_loop<ShiftRight>, false>(spec);
  throw Error(ErrorKind::Malformed, "BitShift's direction is '" + direction + "', not LEFT or RIGHT");
}

void compare_strings(KernelContext& context) {
  const Tensor &a = context.in(0), &b = context.in(1);
  if (b.dtype() != DType::String) throw Error(ErrorKind::Malformed, "strings are compared with " + std::string(name_of(b.dtype())));
  const Shape shape = broadcast_shape(a.shape(), b.shape());
  // The positions of the elements broadcast as the elements would.
  std::vector<int64_t> a_at(static_cast<size_t>(a.size())), b_at(static_cast<size_t>(b.size()));
  for (size_t i = 0; i < a_at.size(); ++i) a_at[i] = static_cast<int64_t>(i);
  for (size_t i = 0; i < b_at.size(); ++i) b_at[i] = static_cast<int64_t>(i);
  struct First {
    int64_t operator()(int64_t x, int64_t) const { return x; }
  };
  struct Second {
    int64_t operator()(int64_t, int64_t y) const { return y; }
  };
  const Operand left{DType::I64, reinterpret_cast<const std::byte*>(a_at.data()), a.shape()};
  const Operand right{DType::I64, reinterpret_cast<const std::byte*>(b_at.data()), b.shape()};
  Tensor from_a(DType::I64, shape), from_b(DType::I64, shape);
  run_binary_loop(binary_loop<int64_t, int64_t, First>, left, right, shape, from_a.mutable_raw(), DType::I64);
  run_binary_loop(binary_loop<int64_t, int64_t, Second>, left, right, shape, from_b.mutable_raw(), DType::I64);
  bool* y = context.out(0, DType::Bool, shape).mutable_data<bool>();
  const int64_t *i = from_a.data<int64_t>(), *j = from_b.data<int64_t>();
  for (int64_t k = 0; k < from_a.size(); ++k) y[k] = a.strings()[static_cast<size_t>(i[k])] == b.strings()[static_cast<size_t>(j[k])];
}

std::unique_ptr<Kernel> make_equal(const KernelSpec&) {
  return make_kernel([](KernelContext& context) {
    Layout layout;
    if (context.in_any(0, layout).dtype() == DType::String) return compare_strings(context);
    run_binary(context, {comparison_loop<Equal>, true});
  });
}

}  // namespace

std::vector<OpDef> op_logic() {
  return {
      {.name = "Equal", .since = 7, .cpu = make_equal},
      {.name = "Less", .since = 7, .cpu = make_binary<comparison_loop<Less>, true>},
      {.name = "Greater", .since = 7, .cpu = make_binary<comparison_loop<Greater>, true>},
      {.name = "LessOrEqual", .cpu = make_binary<comparison_loop<LessOrEqual>, true>},
      {.name = "GreaterOrEqual", .cpu = make_binary<comparison_loop<GreaterOrEqual>, true>},
      {.name = "And", .since = 7, .cpu = make_binary<logic_loop<And>, true>},
      {.name = "Or", .since = 7, .cpu = make_binary<logic_loop<Or>, true>},
      {.name = "Xor", .since = 7, .cpu = make_binary<logic_loop<Xor>, true>},
      {.name = "BitwiseAnd", .cpu = make_binary<bitwise_loop<BitwiseAnd>, false>},
      {.name = "BitwiseOr", .cpu = make_binary<bitwise_loop<BitwiseOr>, false>},
      {.name = "BitwiseXor", .cpu = make_binary<bitwise_loop<BitwiseXor>, false>},
      {.name = "BitShift", .cpu = make_bit_shift},
  };
}

}  // namespace infopt

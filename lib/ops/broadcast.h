// NumPy's broadcasting for operators of several operands, in whichever layout the operands agree on.
#pragma once
#include <vector>

#include "lib/ops/op.h"

namespace infopt {

/// The shape that both broadcast to. Throws Error(Malformed) where they don't.
Shape broadcast_shape(const Shape& a, const Shape& b);

/// Operands as they lie in memory: `shape` lists the dimensions outermost first, channels last where the layout says so.
struct Operand {
  DType dtype = DType::Undefined;
  const std::byte* data = nullptr;
  Shape shape;
};

struct Operands {
  std::vector<Operand> list;
  Layout layout = Layout::Plain;
  Shape shape;     ///< of the result, logical
  Shape physical;  ///< of the result, as it will lie
};

/// Inputs [0, count) of the node. They stay channels-last where each is so, or reads the same in either layout (a scalar, one
/// value a channel, one value a pixel); else all are taken plain.
Operands collect_operands(KernelContext& context, size_t count);

/// An element-wise loop nest with unit or zero strides inside: dimensions of the result, merged where all operands allow it, and
/// for each operand its stride in elements by dimension. At least one dimension, the innermost last.
struct Loops {
  Shape sizes;
  std::vector<std::vector<int64_t>> strides;
};
Loops plan_loops(const Shape& result, const std::vector<Shape>& operands);

/// The two innermost loops of a binary operation. Steps are 0 or 1; rows of the result follow each other.
struct BinaryRows {
  int64_t rows = 1, n = 0;
  int64_t a_row = 0, b_row = 0;  ///< elements from one row to the next
  int64_t a_step = 1, b_step = 1;
};
using BinaryLoop = void (*)(const void* a, const void* b, void* y, const BinaryRows& rows);

/// y = loop(a, b) over the broadcast shape `result`, which is the operands' own; `bits` are those of y's elements, at least 8.
/// y may be a's or b's memory where that operand has the result's shape.
void run_binary_loop(BinaryLoop loop, const Operand& a, const Operand& b, const Shape& result, std::byte* y, DType y_dtype);

/// What a binary operator does: the loop for an element type (null where it has none). 16-bit floats go by way of float32.
struct BinaryOp {
  BinaryLoop (*loop)(DType dtype) = nullptr;
  bool gives_bool = false;
};
/// Inputs 0 and 1, which must be of one type, into output 0.
void run_binary(KernelContext& context, const BinaryOp& op);
/// The kernel of run_binary; `run`: in its stead, where more than two inputs or other cases are known besides.
std::unique_ptr<Kernel> make_binary_kernel(const BinaryOp& op, KernelFunction run = {});
/// All inputs, folded from the left: op(op(in0, in1), in2)…. The result is plain where there are more than two.
void run_folded(KernelContext& context, const BinaryOp& op);

/// f(a[i], b[i]) for any type.
template <class T, class R, class F> void binary_loop(const void* pa, const void* pb, void* py, const BinaryRows& r) {
  const F f{};
  for (int64_t row = 0; row < r.rows; ++row) {
    const T* a = static_cast<const T*>(pa) + row * r.a_row;
    const T* b = static_cast<const T*>(pb) + row * r.b_row;
    R* y = static_cast<R*>(py) + row * r.n;
    for (int64_t i = 0; i < r.n; ++i) y[i] = f(a[i * r.a_step], b[i * r.b_step]);
  }
}

/// Defines a BinaryLoop of float32 elements `a` and `b` that is vectorized for each case of steps.
#define INFOPT_BINARY_LOOP(loop_name, expression)                                                     \
  INFOPT_SIMD void loop_name(const void* pa, const void* pb, void* py, const BinaryRows& r) {         \
    const int64_t n = r.n, rows = r.rows, a_row = r.a_row, b_row = r.b_row;                           \
    const bool a_moves = r.a_step != 0, b_moves = r.b_step != 0;                                      \
    for (int64_t row = 0; row < rows; ++row) {                                                        \
      const float* as = static_cast<const float*>(pa) + row * a_row;                                  \
      const float* bs = static_cast<const float*>(pb) + row * b_row;                                  \
      float* y = static_cast<float*>(py) + row * n;                                                   \
      if (a_moves && b_moves) {                                                                       \
        _Pragma("GCC ivdep") for (int64_t i = 0; i < n; ++i) {                                        \
          const float a = as[i], b = bs[i];                                                           \
          y[i] = (expression);                                                                        \
        }                                                                                             \
      } else if (a_moves) {                                                                           \
        const float b = *bs;                                                                          \
        _Pragma("GCC ivdep") for (int64_t i = 0; i < n; ++i) {                                        \
          const float a = as[i];                                                                      \
          y[i] = (expression);                                                                        \
        }                                                                                             \
      } else {                                                                                        \
        const float a = *as;                                                                          \
        _Pragma("GCC ivdep") for (int64_t i = 0; i < n; ++i) {                                        \
          const float b = b_moves ? bs[i] : *bs;                                                      \
          y[i] = (expression);                                                                        \
        }                                                                                             \
      }                                                                                               \
    }                                                                                                 \
  }

}  // namespace infopt

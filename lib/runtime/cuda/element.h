// Elementwise arithmetic as little programs: one kernel interprets them, for single operators and for chains of them alike.
#pragma once
#include <cstdint>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/ops/broadcast.h"
#include "lib/runtime/cuda/runtime.h"

namespace infopt::cuda {

/// Functions of an accumulator `a`, another value `b`, and the numbers p and q. Comparisons and tests give 0 or 1.
enum class Fn : uint8_t {
  Load,  ///< b
  Hold,  ///< a as it is; b goes to the register
  Abs, Neg, Ceil, Floor, Round, Sqrt, Reciprocal, Exp, Log, Erf, Tanh, Sign, Sin, Cos, Tan, Asin, Acos, Atan, Sinh, Cosh, Asinh, Acosh, Atanh,
  Relu, LeakyRelu, Elu, Selu, Celu, ThresholdedRelu, Sigmoid, Softplus, Softsign, Gelu, GeluTanh, Mish, Swish, Clip, HardSigmoid, HardSwish, Shrink,
  Square, Cube, Root, IsNaN,
  IsInf,  ///< p: negative ones count, q: positive ones do
  Not, BitwiseNot,
  Add, Sub, Mul, Div,
  DivOrZero,  ///< 0 where b is 0
  PRelu, Max, Min, FloorMod, TruncMod, Pow, Equal, Less, LessOrEqual, Greater, GreaterOrEqual, And, Or, Xor,
  ShiftLeft, ShiftRight,  ///< q: the type's width in bits
  Select,                 ///< a where the register `third` isn't 0, else b
};

/// What b is.
enum class From : uint8_t { Nothing, Number, Register, Operand, Same };

inline constexpr uint8_t kNowhere = 255;
inline constexpr int kMostOperands = 16, kMostSteps = 64, kMostRegisters = 6, kMostDims = 8;

struct Step {
  Fn fn = Fn::Load;
  From from = From::Nothing;
  uint8_t index = 0;        ///< of the register or operand
  uint8_t keep = kNowhere;  ///< the register that the result goes to as well
  uint8_t third = 0;
  bool swapped = false;     ///< a and b change places first
  float p = 0, q = 0;       ///< p: the Number too
};

inline Step load(uint8_t operand) { return {.from = From::Operand, .index = operand}; }
inline Step with_operand(Fn fn, uint8_t operand, float q = 0) { return {.fn = fn, .from = From::Operand, .index = operand, .q = q}; }
inline Step with_number(Fn fn, float number) { return {.fn = fn, .from = From::Number, .p = number}; }

/// In what the steps compute; each operand is converted to it.
enum class Compute : uint8_t { Float, Double, Integer, Unsigned };
/// float32 for all floats up to it, int64 for bools and integers, uint64 for uint64.
Compute compute_for(DType dtype);

/// How values are stored, where Cast says so.
struct StoreOptions {
  bool saturate = true;   ///< 8-bit floats: past the largest
  uint8_t rounding = 0;   ///< float8_e8m0: lib/ops/small_floats.h's ScaleRounding
};

/// The steps for each element of the shape `result` (as it lies in memory); the accumulator's last value goes to y, converted to `to`.
/// Operands broadcast to the result. Throws Error(Unsupported) where there are too many operands, or too many axes that don't merge.
void run_elements(Stream& stream, Compute compute, const std::vector<Step>& steps, const std::vector<Operand>& operands, const Shape& result, DType to, void* y, StoreOptions options = {});

inline Operand operand_of(const Tensor& t) { return {t.dtype(), t.raw(), t.shape()}; }

}  // namespace infopt::cuda

// What the fusion rules find, as values: each device makes its kernel of them, so that there is one rule book for all.
#pragma once
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/ops/op.h"
#include "lib/ops/quantize_linear.h"
#include "lib/runtime/cpu/int8_elementwise.h"
#include "lib/runtime/cpu/int8_epilogue.h"
#include "lib/runtime/fusions/attention_operands.h"
#include "lib/runtime/window.h"

namespace infopt {

/// A float convolution with constant weights. Inputs of its kernel: x, and the residual if there is one.
struct FusedConv {
  WindowAttributes window;
  std::vector<int64_t> extra;  ///< pads of a Pad before it: those before each spatial axis, then those behind; empty without
  int64_t groups = 1;
  PostActivation post;         ///< None, Clip or HardSwish, after the residual
  Tensor weights, bias;        ///< bias: one for each output channel, or undefined
  bool residual = false;
  bool alone = false;          ///< no neighbour joins it: null where the node's own kernel does as well
};

/// x·W + bias, then the activation. `matrix`: x must have two axes.
struct FusedProduct {
  Tensor weights;  ///< [k,n], [n,k] where it is transposed
  bool transposed = false;
  Tensor bias;     ///< [1,n], or undefined
  PostActivation post;
  bool matrix = false;
  bool alone = false;  ///< as in FusedConv
};

/// 8-bit codes of a result, to the bit those of the QuantizeLinear with one constant scale that stands behind it.
struct CodeEnd {
  DType type = DType::U8;        ///< U8, I8, F8E4M3FN or F8E5M2; it saturates
  float scale = 1, zero = 0;
  DType precision = DType::F32;  ///< to which the quotient is rounded first: F32, F16 or BF16
};

/// Normalization over the last axis: layer normalization where it is centered, else by the root mean square. Inputs: x, and what is added to
/// it first where `adds`. Outputs: the rows, or where `codes` says so their codes, and then what is kept besides, each at its place.
struct FusedRowNorm {
  Tensor gain, bias;  ///< bias may be undefined
  float epsilon = 0;
  bool centered = false;
  bool adds = false, keeps_sum = false;
  size_t sum_output = 0;
  std::optional<CodeEnd> codes = {};
  bool keeps_rows = false;  ///< beside the codes
  size_t rows_output = 0;
};

/// Softmax to codes.
struct FusedSoftmax {
  int64_t axis = -1;
  bool matrix = false;  ///< the tensor is split in two at the axis, as before opset 13
  CodeEnd codes;
};

/// An input that is codes of 8 bits, read as DequantizeLinear would: an input with its scale stands behind all others, then one with its zero point.
struct CodedInput {
  QuantizeOptions options;  ///< without blocks
  bool has_zero = false;
};

/// ONNX's Attention with coded keys or values, no past and no present. Inputs: the operator's seven, then for K and V as CodedInput says.
struct CodedAttention {
  AttentionOptions options;
  std::optional<CodedInput> k, v;
};

/// Inputs: q, k, v, the mask if there is one, what Where keeps if there is one, then for k and v as CodedInput says. A perm says in which order
/// an operand's axes are read (k as depth × keys).
struct FusedAttention {
  std::vector<int64_t> q_perm, k_perm, v_perm, out_perm;  ///< empty: as they are
  float scale = 1, instead = 0;
  bool has_mask = false, has_keep = false, keep_if = true, keep_last = true;
  bool nan_is_zero = false;  ///< a query whose weights are NaN gives 0
  std::optional<CodedInput> k_codes = {}, v_codes = {};
};

/// Elementwise nodes that feed one another. A member's operands count the chain's inputs first, then the members before it.
struct FusedChain {
  struct Member {
    NodeId node = kNone;
    std::vector<size_t> operands;
    std::vector<Tensor> constants;  ///< the node's inputs behind its operands (Clip's bounds); undefined where left out
  };
  std::vector<Member> members;
  size_t inputs = 0;
  std::vector<Tensor> known = {};  ///< the chain's inputs that are the same in every run; undefined where they aren't
  int64_t opset = 0;
  std::optional<CodeEnd> codes = {};  ///< the last member's result is written as codes
};

/// 8-bit codes: real = (code − zero)·scale.
struct CodeStep {
  DType dtype = DType::U8;
  float scale = 1;
  int32_t zero = 0;
};

/// What an integer convolution or product does with its sums; the arrays that `epilogue` points to are this object's.
struct IntegerEpilogue {
  cpu::Int8Epilogue epilogue;
  std::vector<float> scale, float_bias;
  std::vector<int32_t> bias;
  std::array<uint8_t, 256> table{};
  DType output = DType::U8;  ///< of what is stored: the table's where there is one
};

/// Inputs: the codes, and the residual's if there is one.
struct IntegerConv {
  WindowAttributes window;
  int64_t groups = 1;
  CodeStep input;
  Tensor weights;              ///< codes [m, c/groups, spatial…]
  std::vector<int32_t> zeros;  ///< of the weights, one for each m; empty where all are 0
  std::shared_ptr<const IntegerEpilogue> end;
};

struct IntegerProduct {
  CodeStep input;
  Tensor weights;              ///< codes [k,n], [n,k] where it is transposed
  bool transposed = false;
  std::vector<int32_t> zeros;  ///< of the weights, one for each n; empty where all are 0
  std::shared_ptr<const IntegerEpilogue> end;
  bool matrix = false;
};

/// x in float32 or codes with a scale that the run knows: (Σ (a − za)·(w − zw[n]))·scale·scales[n] + bias[n], bounded; in float32.
/// Inputs: codes, their scale, their zero point if there is one.
struct DynamicProduct {
  Tensor weights;              ///< codes [k,n]
  std::vector<int32_t> zeros;
  std::vector<float> scales, bias;  ///< one for each n; bias may be empty
  PostActivation bounds;
  bool has_zero = false;
  size_t rank = 0;             ///< of the constants: a result of fewer axes gets axes of 1 in front
};

/// A convolution of codes whose scale and zero point the run knows, to float32 as DynamicProduct; inputs: codes, their scale, their zero point if there is one.
/// Without `scales`: the int32 sums alone; inputs: codes, their zero point.
struct DynamicConv {
  WindowAttributes window;
  int64_t groups = 1;
  Tensor weights;              ///< codes [m, c/groups, spatial…]
  std::vector<int32_t> zeros;  ///< one for each m; empty where all are 0
  std::vector<float> scales, bias;
  PostActivation bounds;
  bool has_zero = false;
};

/// A product of two tensors of codes, neither of them constant. Inputs: both, and where the run knows their scales these, then zero points.
struct CodeProduct {
  CodeStep a, b;                               ///< where `end` is there
  std::shared_ptr<const IntegerEpilogue> end;  ///< of one column, which stands for all; null: scales are inputs 2 and 3, the result is float32
  size_t a_zero = 0, b_zero = 0;               ///< the inputs that are zero points; 0: none
  PostActivation bounds;                       ///< without `end`
};

/// x·(code − zero)·scale + bias, x in float32, float16 or bfloat16, the weights in 4 or 8 bits with a scale for each block along k.
struct LowBitProduct {
  int bits = 4;
  int64_t k = 0, n = 0, block = 0;  ///< block: k or more where a column has one scale
  Tensor codes;                     ///< U8 [n,k], one code a byte; signed ones plus half of their range
  Tensor scales;                    ///< [n, blocks], F32, F16 or BF16
  Tensor zeros;                     ///< U8 [n, blocks], likewise shifted; undefined: half of the range
  Tensor bias;                      ///< n of x's type, or undefined
  DType type = DType::F32;          ///< of x and the result
  bool matrix = false;              ///< x must have two axes
};

/// (Σ x·w)·scale·scales[n] + bias[n], x and w float8 (E4M3FN), sums in float32.
struct Float8Product {
  Tensor weights;             ///< [k,n], [n,k] where it is transposed
  bool transposed = false;
  float scale = 1;
  std::vector<float> scales;  ///< one for each n, 1 the largest; empty where all are 1
  Tensor bias;                ///< n of the result's type, or undefined
  DType type = DType::F32;    ///< of the result: F32, F16 or BF16
  bool matrix = false;        ///< x must have two axes
};

struct IntegerTable {
  CodeStep from, to;
  std::array<uint8_t, 256> entries{};
  size_t rank = 0;  ///< a tensor of fewer axes gets axes of 1 in front
};

struct IntegerBinary {
  cpu::Int8Binary how;
  bool product = false;  ///< else the sum
};

struct IntegerPool {
  enum Kind { Max, Average, Global } kind = Max;
  WindowAttributes window;
  bool include_pad = false;
  CodeStep input, output;
};

/// A device's kernels for them. Each may answer null, or throw Error(Unsupported) with the reason: the nodes then run one by one.
class FusedKernels {
 public:
  virtual ~FusedKernels() = default;
  virtual std::unique_ptr<Kernel> conv(FusedConv) const { return nullptr; }
  virtual std::unique_ptr<Kernel> product(FusedProduct) const { return nullptr; }
  virtual std::unique_ptr<Kernel> row_norm(FusedRowNorm) const { return nullptr; }
  virtual std::unique_ptr<Kernel> softmax(FusedSoftmax) const { return nullptr; }
  virtual std::unique_ptr<Kernel> attention(FusedAttention) const { return nullptr; }
  virtual std::unique_ptr<Kernel> attention_operator(CodedAttention) const { return nullptr; }
  virtual std::unique_ptr<Kernel> chain(const Graph&, FusedChain) const { return nullptr; }
  virtual std::unique_ptr<Kernel> integer_conv(IntegerConv) const { return nullptr; }
  virtual std::unique_ptr<Kernel> integer_product(IntegerProduct) const { return nullptr; }
  virtual std::unique_ptr<Kernel> dynamic_product(DynamicProduct) const { return nullptr; }
  virtual std::unique_ptr<Kernel> dynamic_conv(DynamicConv) const { return nullptr; }
  virtual std::unique_ptr<Kernel> code_product(CodeProduct) const { return nullptr; }
  virtual std::unique_ptr<Kernel> low_bit_product(LowBitProduct) const { return nullptr; }
  virtual std::unique_ptr<Kernel> float8_product(Float8Product) const { return nullptr; }
  virtual std::unique_ptr<Kernel> integer_table(IntegerTable) const { return nullptr; }
  virtual std::unique_ptr<Kernel> integer_binary(IntegerBinary) const { return nullptr; }
  virtual std::unique_ptr<Kernel> integer_pool(IntegerPool) const { return nullptr; }
};

}  // namespace infopt

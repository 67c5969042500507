// What may stand behind a convolution or product of codes until its result is codes again: bounds, a residual, a table.
#pragma once
#include <array>
#include <memory>

#include "lib/runtime/cpu/int8_epilogue.h"
#include "lib/runtime/fusions/quantized.h"

namespace infopt {

/// One function from codes to codes.
struct CodeTable {
  Codes from, to;
  std::array<uint8_t, 256> entries{};
  size_t rank = 0;  ///< of the constants in it: a tensor of fewer axes gets axes of 1 in front
  std::vector<NodeId> covers;
};
/// The table of everything between the QuantizeLinear `node` and one DequantizeLinear, where that is a function of the codes alone.
std::optional<CodeTable> code_table(PlanView& view, const Node& node);

/// The end of an integer kernel, read backwards from the node that gives its result.
struct IntegerTail {
  const Node* core = nullptr;      ///< the convolution or product
  std::optional<Codes> output;     ///< its first rounding; none: the result is float32
  PostActivation bounds;           ///< before that rounding
  std::optional<Codes> residual, sum;  ///< sum = round(output + residual)
  PostActivation sum_bounds;
  std::optional<CodeTable> table;  ///< after the last rounding
  std::vector<NodeId> covers;
};
/// What `node` ends. `core` says which operators it is looked for.
std::optional<IntegerTail> integer_tail(PlanView& view, const Node& node, bool (*core)(const Node&));

/// The tail as a kernel needs it: owns what the epilogue points to.
class TailEpilogue {
 public:
  /// `step`: the scale of the int32 sums for each column.
  TailEpilogue(const IntegerTail& tail, const std::vector<float>& step, const CodedBias& bias);
  const cpu::Int8Epilogue& get() const { return all_->epilogue; }
  /// The same for another device's kernel to keep.
  std::shared_ptr<const IntegerEpilogue> share() const { return all_; }

 private:
  std::shared_ptr<IntegerEpilogue> all_;
};

}  // namespace infopt

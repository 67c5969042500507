// Operands that a kernel may read as the 8-bit codes that a DequantizeLinear reads.
#pragma once
#include <optional>
#include <utility>
#include <vector>

#include "lib/runtime/fusion.h"

namespace infopt {

/// A DequantizeLinear to float32 or a 16-bit float whose scales, which the run may know first, are one or along one axis.
struct CodedValue {
  const Node* node = nullptr;
  CodedInput how;
  /// Appends the inputs that CodedInput names.
  void add_inputs(std::vector<ValueId>& inputs) const {
    inputs.push_back(node->input(1));
    if (how.has_zero) inputs.push_back(node->input(2));
  }
};
/// Nothing where the value isn't made so, or known before the run.
std::optional<CodedValue> coded_value(PlanView& view, ValueId value);

}  // namespace infopt

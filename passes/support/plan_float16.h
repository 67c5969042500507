// What convert_float16 decides before it changes anything.
#pragma once
#include <string>
#include <vector>

#include "passes/pass.h"

namespace infopt {

struct Float16Plan {
  /// The 16-bit type that each node computes in, by NodeId; Undefined where it stays as it is.
  std::vector<DType> compute;
  /// The 16-bit type that its large constants are stored in where it computes in float32; Undefined for none. By NodeId.
  std::vector<DType> store;
  /// Of a node that computes in 16 bits, the float32 inputs and outputs that change; empty for others. By NodeId.
  struct Ports {
    std::vector<bool> inputs, outputs;
  };
  std::vector<Ports> ports;
  /// Values too large for the type to hold, as far as constants and calibration tell. By ValueId.
  std::vector<bool> wide;
  std::vector<std::string> notes;
};

/// A constant in a 16-bit type.
struct HalfFit {
  bool overflows = false;  ///< a finite element becomes infinite
  bool faithful = true;    ///< the error's power is below 10^-6 of the elements'
  int64_t subnormal = 0;   ///< elements below the type's normal range that aren't zero
};
HalfFit half_fit(const Tensor& constant, DType type);

/// Reads Value::type, which must be inferred. `type` is for nodes that no group rule speaks of; with rules, those stay as they are.
Float16Plan plan_float16(const Graph& graph, PassContext& context, DType type);

/// Whether the input's own type doesn't matter to the operator: it reads the shape only, or casts.
bool takes_any_type(const Node& node, size_t index);

}  // namespace infopt

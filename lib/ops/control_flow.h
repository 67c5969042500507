// What Loop's and Scan's nodes say, for the CPU's kernels and the device's.
#pragma once
#include <vector>

#include "lib/ops/op.h"

namespace infopt {

/// Throws Error(Malformed) where the condition isn't one bool.
bool truth(const Tensor& t);

/// Type and shape of what a body declares for its outputs: for scan outputs of no iteration at all. Unknown dimensions count 0.
struct Declared {
  DType dtype = DType::F32;
  Shape shape;
};
std::vector<Declared> declared_outputs(const Graph& body);

struct ScanSpec {
  size_t body = 0;
  std::vector<Declared> declared;
  int64_t scan_inputs = 0;
  std::vector<int64_t> input_axes, input_directions, output_axes, output_directions;

  explicit ScanSpec(const KernelSpec& spec);
  /// Entry i of one of these lists, 0 where it is left out.
  static int64_t nth(const std::vector<int64_t>& list, size_t i) { return i < list.size() ? list[i] : 0; }
  /// Throws Error(Malformed) where the node's inputs, from `first` on, or outputs don't fit; the number of states.
  size_t states(size_t inputs, size_t first, size_t outputs) const;
};

/// Throws Error(Malformed) where Loop's body, of so many outputs, doesn't fit the node.
void check_loop(size_t declared, size_t states, size_t outputs);

}  // namespace infopt

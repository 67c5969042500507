// Reverse-mode differentiation, operator by operator. One file a family, lib/autodiff/gradients/<stem>.cpp, which defines
// `std::vector<infopt::GradientDef> gradient_<stem>()`; CMake makes the table from the file names.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/ops/op.h"

namespace infopt {

/// A tensor and how its elements lie.
struct Laid {
  Laid() = default;
  Laid(Tensor t, Layout l = Layout::Plain) : tensor(std::move(t)), layout(l) {}
  Tensor tensor;
  Layout layout = Layout::Plain;
  /// The tensor in that layout: itself, or a copy. Tensors of less than three axes have only the plain one.
  Tensor as(Layout wanted) const;
};

/// What one node's gradient sees: what the node read and gave out, the loss's gradient by its outputs, and where those by its inputs go.
class GradientContext {
 public:
  GradientContext(const Node& node, const Kernel& kernel, std::vector<Laid> inputs, std::vector<Laid> outputs, std::vector<Laid> gradients, std::vector<bool> wants)
      : node_(node), kernel_(kernel), inputs_(std::move(inputs)), outputs_(std::move(outputs)), gradients_(std::move(gradients)), wants_(std::move(wants)), given_(inputs_.size()) {}

  const Node& node() const { return node_; }
  const Kernel& kernel() const { return kernel_; }  ///< the node's own
  size_t inputs() const { return inputs_.size(); }
  size_t outputs() const { return outputs_.size(); }
  bool has(size_t i) const { return i < inputs_.size() && inputs_[i].tensor.defined(); }
  const Shape& shape(size_t i) const { return inputs_[i].tensor.shape(); }
  Tensor in(size_t i, Layout layout = Layout::Plain) const { return inputs_[i].as(layout); }
  Tensor out(size_t i, Layout layout = Layout::Plain) const { return outputs_[i].as(layout); }
  /// How the gradient by the first output lies: for what goes element by element.
  Layout layout() const { return gradients_[0].layout; }
  /// False where nothing of the output reaches the loss; `dy` is then zeros.
  bool flows(size_t i = 0) const { return gradients_[i].tensor.defined(); }
  Tensor dy(size_t i = 0, Layout layout = Layout::Plain) const;
  bool wants(size_t i) const { return i < wants_.size() && wants_[i]; }
  /// The gradient by input i, of that input's shape, in float32.
  void give(size_t i, Tensor dx, Layout layout = Layout::Plain) { given_[i] = {std::move(dx), layout}; }
  std::vector<Laid>& given() { return given_; }

 private:
  const Node& node_;
  const Kernel& kernel_;
  std::vector<Laid> inputs_, outputs_, gradients_;
  std::vector<bool> wants_;
  std::vector<Laid> given_;
};

using GradientFunction = std::function<void(GradientContext&)>;

struct GradientDef {
  std::string name;
  /// Made once a node. Throws Error(Unsupported) with a reason where this node isn't one it can differentiate.
  GradientFunction (*make)(const KernelSpec&) = nullptr;
};

/// Null where there is none. Only the default domain's operators have gradients.
const GradientDef* find_gradient(const Node& node);

/// Σ over the axes along which `shape` was stretched to t's shape by NumPy's rules; t is plain.
Tensor reduce_to(const Tensor& t, const Shape& shape);
/// t stretched to `shape`; itself where it has it.
Tensor broadcast_to(const Tensor& t, const Shape& shape);

}  // namespace infopt

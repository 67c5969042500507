// Runs a piece of a graph forwards and backwards: values by the operators' own kernels, gradients by lib/autodiff/gradients.
#pragma once
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "lib/autodiff/gradient.h"

namespace infopt {

/// Whether a Piece can hold a node, and differentiate it by its floating inputs.
enum class Passage { Differentiable, Flat, NoGradient, NoKernel };
/// Flat: what the node gives out doesn't change with its inputs, or in steps alone.
Passage passage_of(const Graph& graph, const Node& node);

/// The nodes between some values that are fed and some that are asked for. Shared by many tapes; the graph must outlive it and not change.
///
/// DequantizeLinear(QuantizeLinear(x)) with one constant scale, read by nothing in between, is one step that rounds x. Its gradient passes straight
/// through where x lies within the codes' range and is 0 outside. Other nodes whose inputs are all constant are computed once.
class Piece {
 public:
  struct Spec {
    std::vector<ValueId> inputs;         ///< fed in every run: activations, and constants or other values that are being learned
    std::vector<ValueId> outputs;
    std::vector<ValueId> differentiate;  ///< those of the inputs by which the loss's gradient is wanted
  };
  /// Throws Error(Unsupported), naming the node, where it has no kernel or, between `differentiate` and the outputs, no gradient; Error(Defect)
  /// where an output depends on an input of the graph that isn't fed.
  Piece(const Graph& graph, Spec spec);
  ~Piece();
  Piece(const Piece&) = delete;
  Piece& operator=(const Piece&) = delete;

  const Spec& spec() const { return spec_; }

  struct Step;  ///< lib/autodiff only
  const std::vector<Step>& steps() const { return steps_; }
  const Tensor* constant(ValueId value) const;
  bool differentiable(ValueId value) const { return flows_.contains(value); }

 private:
  void find_steps(const Graph& graph);
  void add_step(const Graph& graph, const Node& node);
  Spec spec_;
  std::vector<Step> steps_;
  std::unordered_map<ValueId, Tensor> constants_;
  std::unordered_map<ValueId, bool> flows_;  ///< values that depend on one of `differentiate`
};

/// One run of a piece, of one sample or of a batch. Not shared between threads.
class Tape {
 public:
  explicit Tape(const Piece& piece) : piece_(piece) {}

  /// Each element that a rounding step sees is cut to the codes' range but not rounded with probability one half (QDrop, arXiv 2203.05740): which,
  /// the seed says.
  /// 0: none does.
  void drop(uint64_t seed) { seed_ = seed; }
  /// Throws Error(Malformed) naming the node where shapes don't fit. All of the piece's inputs must be there.
  void forward(const std::unordered_map<ValueId, Laid>& inputs);
  /// A value of the last forward(), in plain layout, and as it lies.
  Tensor value(ValueId id) const;
  Laid find(ValueId id) const;
  /// `by_outputs`: the loss's gradient by some of the piece's outputs. Values of the run are let go as gradients pass them.
  void backward(const std::unordered_map<ValueId, Laid>& by_outputs);
  /// The loss's gradient by one of Spec::differentiate, plain; zeros where nothing of it reaches the loss.
  Tensor gradient(ValueId id) const;

 private:
  void run_step(const Piece::Step& step, size_t index);
  void differentiate(const Piece::Step& step);
  void add(ValueId id, Laid gradient);
  const Piece& piece_;
  uint64_t seed_ = 0;
  std::unordered_map<ValueId, Laid> values_, gradients_;
};

}  // namespace infopt

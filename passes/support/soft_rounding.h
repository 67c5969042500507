// Weights whose rounding, up or down, is learned: AdaRound (arXiv 2004.10568).
#pragma once
#include <memory>
#include <vector>

#include "lib/autodiff/adam.h"
#include "lib/base/tensor.h"

namespace infopt {

/// What codes mean: value = (code − zero)·scale, with scale and zero given element by element in the weights' stored order.
struct CodeGrid {
  DType dtype = DType::I8;
  Shape shape;
  int low = -127, high = 127;
  std::vector<float> scales, zeros;
};

/// ŵ = (clamp(⌊w/s + z⌋ + h(V), low, high) − z)·s with h(V) = clamp(1.2·σ(V) − 0.1, 0, 1), V such that at first ŵ = w. Weights that lie on a code, or beyond the last one, keep it.
class SoftRounding {
 public:
  SoftRounding(const std::vector<float>& weights, CodeGrid grid);

  /// Weights of what V is now.
  Tensor soft() const;
  /// Codes of h rounded to 0 or 1, and their weights.
  std::vector<int32_t> codes() const;
  Tensor hard() const;
  /// Codes rounded to nearest, and clamped.
  std::vector<int32_t> nearest() const;
  Tensor decode(const std::vector<int32_t>& codes) const;
  /// One step of Adam along the loss's gradient by the soft weights plus that of pull·ρ·Σ(1 − |2h − 1|^β), where ρ is the root mean square of the
  /// loss's gradients by h so far: the pull doesn't hang on the loss's unit, nor on how many weights there are.
  void step(const float* by_weights, float pull, float beta, float rate);
  size_t size() const { return v_.size(); }
  const CodeGrid& grid() const { return grid_; }

 private:
  CodeGrid grid_;
  std::vector<float> floor_, v_;  ///< floors of w/s + z, and V
  std::vector<int32_t> nearest_;
  std::vector<float> gradient_;
  double square_ = 0, weight_ = 0;  ///< a running mean of the squared gradients by h, and the weight behind it
  Adam adam_;
};

}  // namespace infopt

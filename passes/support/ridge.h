// Least squares for one layer's weights.
#pragma once
#include <vector>

#include "lib/base/tensor.h"
#include "passes/support/layers.h"

namespace infopt {

/// What a layer is to give out in one sample. Where it is added to something, that in the original and in the changed graph: their difference is
/// the layer's to make up for.
struct LayerTarget {
  Tensor output, residual_then, residual_now;
  std::vector<bool> keep;  ///< channels of output and residual_then that there still are; empty: all
};

/// Sums over places of a layer's inputs and wanted outputs, thinned out evenly, apart for samples of even and odd number (of one sample, for its
/// first and second half).
class RidgeFit {
 public:
  /// `stored` is the shape of the weights.
  RidgeFit(const Node& node, const Shape& stored, const Layer& layer, bool with_bias, int64_t samples);
  /// Throws Error(Malformed) where shapes don't fit the layer.
  /// `live`: places that count; null: all. Of a convolution, its output's.
  void add(int64_t sample, const Tensor& input, const LayerTarget& target, const std::vector<bool>* live, int threads);
  /// Moves weights (in the order of read_weights()) and biases to where they serve best; false where nothing better was found.
  bool solve(std::vector<float>& weights, std::vector<double>& bias, int threads);

 private:
  struct Half {
    std::vector<float> h, c;  ///< (k+1)×(k+1), its lower triangle until the end; rows×(k+1)
    int64_t places = 0;
    std::vector<float> x, y;  ///< what waits to be multiplied
  };
  std::vector<float> inputs(const Tensor& x, int64_t group, const std::vector<int64_t>& places) const;
  std::vector<float> outputs(const LayerTarget& target, int64_t group, const std::vector<int64_t>& places) const;
  int64_t rows() const { return layer_.out / layer_.groups; }
  void take(Half& half, int threads);
  bool solve_group(size_t group, std::vector<float>& w, int threads) const;

  const Node& node_;
  Layer layer_;
  Shape kernel_;
  bool bias_, alone_;
  int64_t k_, width_, most_;  ///< inputs of a group; with the one for the bias; places of a sample
  std::vector<Half> halves_[2];  ///< by group
};

}  // namespace infopt

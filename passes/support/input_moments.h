// What a layer's inputs are like: H = Σ x̂x̂ᵀ of the inputs that it has in the quantized graph, and C = Σ x x̂ᵀ with the same inputs in the
// float graph, summed over all places that its weights are applied to.
#pragma once
#include <vector>

#include "lib/ir/graph.h"
#include "lib/ops/op.h"
#include "passes/support/layers.h"

namespace infopt {

/// A tensor as a Tap sees it.
struct LaidOut {
  const Tensor& tensor;
  Layout layout;
};

/// Of one layer, or of all that share its input and see it through the same window. Sums are taken in the order of add(): the same bits for
/// any number of threads.
class InputMoments {
 public:
  InputMoments(const Graph& graph, const Layer& layer);

  /// Whether such layers can be seen as a product: not transposed convolutions.
  static bool possible(const Layer& layer) { return !layer.transposed; }
  /// One sample's input. A convolution's places are thinned out to some 1,024 a sample, evenly.
  /// Throws Error(Malformed) where its shape doesn't fit the layer.
  /// `weights`: how much each place counts, of a convolution all of its outputs'; null, or of another length: 1.
  void add(LaidOut quantized, int threads, const std::vector<float>* weights = nullptr);
  /// With the float graph's.
  void add(LaidOut quantized, LaidOut original, int threads, const std::vector<float>* weights = nullptr);
  /// After the last sample.
  void finish(int threads);

  int64_t k() const { return k_; }
  int64_t groups() const { return static_cast<int64_t>(h_.size()); }
  /// Where they count differently, as many as would say as much if they counted alike: (Σw)²/Σw².
  int64_t places() const { return squares_ > 0 ? static_cast<int64_t>(weight_ * weight_ / squares_) : 0; }
  /// After finish(): H and C about the means instead of 0, for layers whose bias takes up what the means do.
  void center();
  /// What to add to the layer's output so that its mean is the float layer's, by row: (W·Σx − Ŵ·Σx̂) / Σw.
  std::vector<float> shift(const std::vector<float>& weights, const std::vector<float>& quantized, int64_t group) const;
  /// k×k, of one group's inputs in the order of read_weights().
  const std::vector<float>& h(int64_t group) const { return h_[static_cast<size_t>(group)]; }
  bool has_cross() const { return !cross_.empty(); }
  /// The rows of one group's weights, W[rows][k], as they serve the quantized inputs best: W + W·(C − H)·(H + λ)⁻¹, λ = damp times the
  /// mean of H's diagonal. `weights` themselves where there is no C.
  std::vector<float> corrected(const std::vector<float>& weights, int64_t rows, int64_t group, double damp, int threads) const;

 private:
  struct Place {
    int64_t image;
    float root;  ///< of its weight
    std::vector<int64_t> taps;
  };
  std::vector<float> append_rows(LaidOut x, const std::vector<float>* weights, std::vector<std::vector<float>>& to) const;
  std::vector<Place> find_places(int64_t images, const Shape& spatial, const std::vector<float>* weights) const;
  void take(int threads);

  const Node& node_;
  Layer layer_;
  Shape kernel_;
  int64_t k_;
  double weight_ = 0, squares_ = 0;  ///< Σw and Σw² of the places
  std::vector<std::vector<float>> h_, cross_;         ///< by group
  std::vector<std::vector<double>> sums_, original_sums_;  ///< Σx̂ and Σx, by group
  std::vector<std::vector<float>> rows_, originals_;  ///< by group: what waits to be multiplied
  std::vector<float> roots_;                          ///< of its rows' weights
};

}  // namespace infopt

// Learns the rounding of one block's layers.
#pragma once
#include <memory>
#include <unordered_map>
#include <vector>

#include "passes/support/batch_runs.h"
#include "passes/support/blocks.h"
#include "passes/support/coded_layers.h"
#include "passes/support/reconstruct.h"

namespace infopt {

/// One block's values over the samples.
struct BlockSamples {
  std::vector<std::vector<Tensor>> inputs;        ///< [sample][input], as the graph that is quantized so far gives them
  std::vector<std::vector<Tensor>> float_inputs;  ///< as the float graph does; undefined where it has none
  std::vector<std::vector<Tensor>> targets;       ///< [sample][output]
};

struct LearnedLayer {
  CodedLayer coded;
  SoftRounding rounding;
};

class BlockLearner {
 public:
  /// Throws Error(Unsupported) where the block can't be differentiated.
  BlockLearner(const Graph& graph, const Block& block, std::vector<LearnedLayer> layers, const ReconstructOptions& options);
  ~BlockLearner();
  /// Noise over signal before, rounded to nearest, and after.
  BlockReport learn(BlockSamples samples);
  /// What was learned: the better of it and rounding to nearest.
  const std::vector<std::vector<int32_t>>& codes() const { return codes_; }
  const std::vector<Tensor>& biases() const { return biases_; }  ///< undefined where a layer has none
  const std::vector<LearnedLayer>& layers() const { return layers_; }

 private:
  using Parameters = std::vector<Tensor>;  ///< weights of each layer, then their biases

  bool joins_samples() const;
  void fit_units();
  double measure(const Parameters& parameters) const;
  void optimize();
  void step(const BatchSums& sums, double progress);
  Parameters parameters(bool hard) const;
  Tensor bias(size_t layer) const;
  void lay_out();
  Tensor input(size_t sample, size_t input, uint64_t seed) const;
  std::unordered_map<ValueId, Laid> feeds(const SamplePlaces& samples, const Parameters& parameters, uint64_t seed) const;
  void run_together(BatchSums& sums, double batch, const SamplePlaces& samples, const Parameters& parameters, uint64_t seed, bool learning) const;
  BatchSums run_batch(const SamplePlaces& samples, const Parameters& parameters, uint64_t seed, bool learning) const;

  const Graph& graph_;
  const Block block_;
  std::vector<LearnedLayer> layers_;
  const ReconstructOptions options_;
  std::unique_ptr<Piece> piece_;
  BlockSamples samples_;
  std::vector<Layout> input_layouts_, output_layouts_;
  std::vector<bool> shared_;         ///< inputs that are the same for every sample
  bool joined_ = false;              ///< several samples can run as one batch
  std::vector<double> importance_;   ///< of each output: one over a sample's noise when rounded to nearest
  struct Bias {
    std::vector<float> unit, steps;  ///< the bias is what it was plus unit·steps
    Adam adam{0};
  };
  std::vector<Bias> bias_;
  std::vector<Tensor> biases_;
  std::vector<std::vector<int32_t>> codes_;
};

}  // namespace infopt

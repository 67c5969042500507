// Learns how a quantized graph's weights are rounded, block by block, so that each block gives out what the float graph's does: AdaRound
// (arXiv 2004.10568) for single layers, BRECQ (2102.05426) for blocks, with QDrop's random drop of activation rounding (2203.05740).
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "calibration/calibration.h"
#include "lib/ir/edit.h"

namespace infopt {

struct ReconstructOptions {
  bool single_layers = false;  ///< each layer by itself
  int iterations = 400;        ///< steps of Adam for each block
  int batch = 16;              ///< samples a step
  size_t most_layers = 4;      ///< that neighbouring blocks are joined up to
  bool drop = true;            ///< spare half of the elements the activations' rounding while learning
  int64_t samples = 0;         ///< the data's first, 0: all; one block's values are in memory for all of them
  int threads = 1;
  double budget = 0;           ///< operations that all of it may take (learning_plan.h), 0: any; needs `macs` and `seen`
  std::map<NodeId, int64_t> macs = {};     ///< of the original's layers, for one sample
  const std::vector<Observed>* seen = nullptr;  ///< of the original's values
  std::function<void(int64_t done, int64_t total)> progress = {};  ///< blocks
};

struct BlockReport {
  std::vector<NodeId> layers;
  double noise_before = 0, noise_after = 0;  ///< over the signal, of the block's outputs: rounded to nearest and as learned
};

/// What the budget changed of it.
struct ReconstructReport {
  std::vector<BlockReport> blocks;
  int iterations = 0;              ///< of each learned block
  double batch = 0;                ///< of learned blocks, on average
  std::vector<NodeId> left_out;    ///< layers whose learning the budget has no room for
};

/// `quantized`: what a pass made of `original`, whose nodes and values keep their ids; `became`: values of the original and what stands for them now.
/// Codes that a layer's DequantizeLinear reads are chosen anew, between the two that the float weight lies between, and biases are fitted. Blocks
/// that can't be differentiated are learned layer by layer, layers that can't be keep their codes. Both graphs are run over the data once, block
/// after block. The same bits for any number of threads.
ReconstructReport reconstruct(GraphEdit& quantized, const Graph& original, const std::map<ValueId, ValueId>& became, Calibration& calibration, const ReconstructOptions& options);

}  // namespace infopt

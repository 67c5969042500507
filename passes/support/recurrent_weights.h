// Weights of LSTM, GRU and RNN, and matrices that products in the bodies of Loops and the like multiply by: no Layer has them, and every weight of the
// model should be stored alike.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "lib/ir/edit.h"
#include "passes/pass.h"
#include "passes/support/layers.h"
#include "passes/support/weight_grid.h"

namespace infopt {

struct RecurrentWeights {
  ValueId value = kNone;
  NodeId reader = kNone;  ///< the first that reads it
  int64_t out_axis = 1;   ///< [directions, rows, columns]: 1; of a matrix that a body multiplies by, its output channels'
};

/// Floating constants that nothing but such readers read, of `min_weights` elements at least, in the graph's order.
std::vector<RecurrentWeights> find_recurrent_weights(const Graph& graph, int64_t min_weights);

/// Σ xxᵀ of what weights multiply, by direction: empty where it can't be seen.
struct RecurrentMoments {
  std::vector<std::vector<float>> h;  ///< columns × columns
  int64_t places = 0;                 ///< summed over
};
/// From the first samples: of W what the operator reads, of R the states that it gives out. Matrices that bodies multiply by have none.
RecurrentMoments see_recurrent_moments(const Graph& graph, const std::vector<Observed>& seen, const RecurrentWeights& weights, Calibration& calibration, int threads);

struct RecurrentOptions {
  std::vector<WeightFormat> formats;  ///< the first that keeps enough; none does: float
  double min_sqnr_db = 20;            ///< that the outputs must keep, nothing else being rounded
  int64_t min_weights = 400;
  bool gptq = true;  ///< where there is calibration data, with what they multiply in view; else to nearest
};

/// Every such weight is read as DequantizeLinear of its codes: blocks along the columns, or, where the format has none, a scale for each row (of all
/// directions). Where the outputs then have too little on the first calibration samples, those that cost most take the next format,
/// and float at last; without calibration data all take the first. Groups that ask for float weights keep them.
/// Throws Error(Malformed) where a weight is NaN or infinite.
void store_recurrent_weights(GraphEdit& edit, PassContext& context, const RecurrentOptions& options);

/// Bodies that read the float weights of layers which have codes now read those codes.
void share_with_bodies(GraphEdit& edit, std::span<const Layer> layers);

}  // namespace infopt

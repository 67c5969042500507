// What quantize_int8 decides before it changes anything.
#pragma once
#include <map>
#include <optional>
#include <vector>

#include "calibration/observer.h"
#include "passes/pass.h"
#include "passes/support/layer_inputs.h"
#include "passes/support/regions.h"

namespace infopt {

/// A table of rows that Gather looks up: int8 with a scale for each column.
struct EmbeddingPlan {
  NodeId gather = kNone;
  ValueId table = kNone;
  std::optional<size_t> tied;  ///< the layer, in Int8Plan::layers, whose weights the table is too
};

/// Weights of a recurrent layer, kept as int8 with a scale for each row.
struct StoredWeights {
  NodeId node = kNone;
  size_t input = 0;
};

struct LayerPlan {
  Layer layer;
  LayerForm form = LayerForm::Float32;
  size_t report = 0;  ///< its place in Int8Plan::reports
};

/// A layer's 8-bit weights that became narrower: what its DequantizeLinear read, and its bias.
struct WideWeights {
  std::vector<Tensor> decode;
  Tensor bias, bias_scale;  ///< undefined where there is none
};

struct Int8Plan {
  std::vector<Observed> seen;
  Regions regions;
  std::vector<bool> keep_float, keep_integer;  ///< by NodeId: what choose_regions was told
  std::vector<LayerPlan> layers;
  std::vector<EmbeddingPlan> embeddings;
  std::vector<StoredWeights> stored;
  std::map<ValueId, Layer> captured;  ///< weights that bodies multiply by, seen as those of a layer
  std::map<ValueId, std::vector<double>> equalize;  ///< factors by a dynamic product's input
  std::map<ValueId, TensorStatistics> statistics;
  std::map<ValueId, DType> wide;  ///< values whose codes have 16 bits, and the type: I16 or U16
  std::map<ValueId, ValueId> transposed;  ///< constants that transpose_constants() made, and of what
  std::map<NodeId, WideWeights> wide_weights;  ///< of layers whose weights have fewer than 8 bits now
  std::map<ValueId, ValueId> became;  ///< values of the float graph, and what write_int8 put in their place
  std::vector<LayerReport> reports;
  bool corrects_biases = true;  ///< biases take up the mean error of their layer's codes
};

/// I16 or U16 where a group or an option asks for such activations by name; Undefined for any other.
DType wide_type(const std::string& name);

/// What calibration says of a layer's inputs; `factors` as in inputs_of.
LayerInputs inputs_of(const Graph& graph, const Int8Plan& plan, const Layer& layer, const std::vector<double>& factors);

/// Throws Error(Malformed) where calibration data or weights hold NaN or Inf.
Int8Plan plan_int8(const Graph& graph, PassContext& context, const Options& options);

/// Whether the calibrated ranges give out a value in integers: an integer product whose readers are all float doesn't.
bool keeps_float_output(const Graph& graph, const Regions& regions, const Node& node, const std::vector<Observed>& seen);

}  // namespace infopt

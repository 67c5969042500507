// How far a quantized graph is from the float one on a few samples, layer by layer, and which layers to give up.
#pragma once
#include <optional>
#include <vector>

#include "passes/support/plan_int8.h"

namespace infopt {

/// The worst floating output's SQNR beside what calibration saw on its first samples; empty where there is nothing to compare.
std::optional<double> output_sqnr(const Graph& quantized, Calibration& calibration, int threads);

struct Int8Noise {
  std::vector<std::optional<double>> layer_db;  ///< of each layer's output in the whole quantized graph, as in Int8Plan::layers
  std::vector<std::optional<double>> local_db;  ///< of each layer's output where its input is the float graph's; empty where not measured
  std::vector<double> added;                    ///< noise over signal that a layer's output has and its input hasn't
};

/// Runs both graphs on the first sample of the calibration data. `plan` is what write_int8 made `quantized` from.
Int8Noise measure_int8(const Graph& graph, const Graph& quantized, const Int8Plan& plan, Calibration& calibration, bool local = false);

/// Gives an eighth of the integer layers, those that add most noise, back to float arithmetic (`all`: every one), with the reason in
/// their reports. False where none is left to give up.
bool demote(Int8Plan& plan, const Int8Noise& noise, double output_db, bool all, const PassContext& context, const Options& options);

}  // namespace infopt

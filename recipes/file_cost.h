// What a file costs by its shapes.
#pragma once
#include "calibration/calibration.h"
#include "lib/ir/graph.h"
#include "lib/report/report.h"

namespace infopt {

/// The model with what its constants alone determine computed: packed weights (passes/prune/pack_zeros.cpp) are whole again.
Model unpacked(const Model& model);

/// By the shapes of a run of the first sample; without `calibration`, by those that the model declares. Call with unpacked().
ModelCost cost_of(const Model& model, Calibration* calibration);

}  // namespace infopt

// What rounding one value costs the outputs, everything else being float.
#pragma once
#include <functional>
#include <vector>

#include "calibration/calibration.h"
#include "lib/ir/edit.h"

namespace infopt {

/// For each of `values`, which stand in the graph's order: the worst floating output's noise over signal on the data's first samples where `round`
/// has put a rounded form of it before its readers. What lies before a value is computed once. Empty where no floating output can be computed.
std::vector<double> noise_alone(const Graph& graph, const std::vector<ValueId>& values, const std::function<void(GraphEdit&, ValueId)>& round, Calibration& calibration, int64_t samples, int threads);

}  // namespace infopt

// Batch normalizations that stay in the graph, put right after what lies before them has changed.
#pragma once
#include <functional>
#include <vector>

#include "passes/pass.h"

namespace infopt {

/// `edit`: what was made of `original`, whose nodes and the values that they make keep their ids; `keep` says which positions of a value's axis are still
/// there, empty for all. One after the other, each BatchNormalization whose input has changed gets the mean m′ and the variance v′ with which, over the
/// calibration data, its outputs have the mean and the variance that they had: v′ + ε = (v + ε)·Var[x′]/Var[x], m′ = E[x′] − (E[x] − m)·√((v′ + ε)/(v + ε)).
/// So statistics that come from more data than there is aren't thrown away. Channels that hardly vary stay. Gives how many have changed.
int64_t reestimate_batchnorm(GraphEdit& edit, const Graph& original, const std::function<std::vector<bool>(ValueId value, int64_t axis)>& keep, PassContext& context);

}  // namespace infopt

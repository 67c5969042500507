// What form a file's layers have, read off its nodes: for models that infopt didn't just make.
#pragma once
#include <vector>

#include "lib/data/dataset.h"
#include "lib/ir/graph.h"
#include "lib/report/report.h"

namespace infopt {

/// The operators that multiply and add, in the graph's order, with the form of their arithmetic and their MACs in a run of the data's first
/// sample (0 where infopt can't run that far).
std::vector<LayerReport> layers_of_file(const Graph& graph, DataSet& data);

}  // namespace infopt

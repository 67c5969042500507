// ONNX's test data: folders test_data_set_K with input_K.pb and output_K.pb, each a serialized TensorProto.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/data/dataset.h"

namespace infopt {

struct TestDataSet {
  std::string folder;
  std::map<size_t, std::string> inputs, outputs;  ///< path by position; optional inputs that are left out leave a gap
};

/// The sets below `path`, by number, or the one that `path` itself is; empty where it is neither.
std::vector<TestDataSet> find_test_data(const std::string& path);

/// A sample is one set, its tensors as the files have them. Without input_names, inputs are called "input_K".
/// Throws Error(Malformed) where a set has more inputs than the model.
std::unique_ptr<DataSet> open_test_data(const std::string& path, std::vector<TestDataSet> sets, const DataOptions& options);

}  // namespace infopt

// Where the indices of Gather- and Scatter-like operators point.
#pragma once
#include <cstdint>
#include <vector>

#include "lib/base/tensor.h"

namespace infopt {

/// For GatherElements and ScatterElements: the flat place in `data` of every index. Throws Error(Malformed) out of range.
std::vector<int64_t> element_places(const Shape& data, const Tensor& indices, int64_t axis);

/// For GatherND and ScatterND: data seen as rows of `slice` elements (its axes from `depth` on), and the row of every index tuple.
struct NdPlaces {
  std::vector<int64_t> rows;
  int64_t slice = 1;
  size_t depth = 0;
};
NdPlaces nd_places(const Shape& data, const Tensor& indices, size_t batch_dims);

}  // namespace infopt

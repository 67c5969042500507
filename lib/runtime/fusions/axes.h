// Tensors read in another order of axes, and broadcast, without being copied.
#pragma once
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/strided.h"

namespace infopt {

/// A tensor's axes as they are read: sizes, and strides in elements that are 0 where an axis is 1 long.
struct Axes {
  Shape sizes, strides;

  Axes(const Tensor& t, const std::vector<int64_t>& perm) {
    const Shape dense = row_major_strides(t.shape());
    if (!perm.empty() && perm.size() != t.shape().size())
      throw Error(ErrorKind::Malformed, "perm has " + std::to_string(perm.size()) + " axes, the tensor's shape is " + to_string(t.shape()));
    for (size_t i = 0; i < t.shape().size(); ++i) {
      const size_t axis = perm.empty() ? i : static_cast<size_t>(perm[i]);
      sizes.push_back(t.shape()[axis]);
      strides.push_back(sizes.back() == 1 ? 0 : dense[axis]);
    }
  }
  /// Adds leading axes of size 1, so that there are `rank`.
  void widen(size_t rank) {
    if (sizes.size() >= rank) return;
    const size_t more = rank - sizes.size();
    sizes.insert(sizes.begin(), more, 1);
    strides.insert(strides.begin(), more, 0);
  }
  int64_t size(size_t from_end) const { return sizes[sizes.size() - from_end]; }
  int64_t stride(size_t from_end) const { return strides[strides.size() - from_end]; }
  Shape leading() const { return Shape(sizes.begin(), sizes.end() - 2); }
  /// The first element of entry `index` of the leading axes `all`, which this one broadcasts to.
  int64_t offset(int64_t index, const Shape& all) const {
    int64_t at = 0;
    for (size_t i = all.size(), own = sizes.size() - 2; i-- > 0;) {
      const int64_t place = index % all[i];
      index /= all[i];
      if (own > 0) at += place * strides[--own];
    }
    return at;
  }
};

}  // namespace infopt

// A batch through several steps in parts: each part's tensors stay in the cache from step to step, and threads take parts of their own.
#pragma once
#include <mutex>
#include <vector>

#include "lib/runtime/plan.h"

namespace infopt {

std::vector<Stretch> find_stretches(const Plan& plan);

/// The outputs of a stretch, which its parts fill in. Thread-safe.
class StretchOutputs {
 public:
  StretchOutputs(const Stretch& stretch, int64_t items);
  bool has(ValueId value) const;
  /// Where the items from `first` on of a stretch's output go, all of `shape`; undefined where the value is none of these.
  Tensor place(ValueId value, int64_t first, DType dtype, const Shape& shape, Layout layout);
  /// Copies the items there, unless that is where they are. Throws Error(Defect) where the parts don't fit together.
  void keep(ValueId value, int64_t first, const Tensor& part, Layout layout);
  const Tensor& tensor(size_t i) const { return tensors_[i]; }
  Layout layout(size_t i) const { return layouts_[i]; }

 private:
  const Stretch& stretch_;
  int64_t items_;
  std::mutex mutex_;
  std::vector<Tensor> tensors_;
  std::vector<Layout> layouts_;
};

}  // namespace infopt

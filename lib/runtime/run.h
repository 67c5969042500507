// One run of a plan, on one thread.
#pragma once
#include <vector>

#include "lib/runtime/plan.h"

namespace infopt {

class Run {
 public:
  /// `parent` is the run whose values a body reads; null for a whole model.
  Run(const Plan& plan, const Run* parent, const Tap* tap);
  void feed(ValueId value, Datum datum);
  /// Runs the steps and returns the fetches. Once only.
  std::vector<Datum> execute();

 private:
  friend class StepContext;
  struct Slot {
    Tensor tensor;
    Layout layout = Layout::Plain;
    Datum other = {};  ///< a sequence or an empty optional, where it is no tensor
    bool defined() const { return tensor.defined() || other.defined(); }
  };
  Slot& slot(ValueId id) { return slots_[static_cast<size_t>(id)]; }
  const Slot& slot(ValueId id) const { return slots_[static_cast<size_t>(id)]; }
  /// Throws Error(Malformed) where the value holds no tensor.
  const Tensor& plain(ValueId id);
  Datum datum(ValueId id);
  void run_step(size_t index);

  const Plan& plan_;
  const Run* parent_;
  const Tap* tap_;
  std::vector<Slot> slots_;
};

}  // namespace infopt

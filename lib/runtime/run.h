// One run of a plan, on one thread.
#pragma once
#include <vector>

#include "lib/runtime/plan.h"

namespace infopt {

class Run {
 public:
  /// `parent` is the run whose values a body reads; null for a whole model.
  /// `device`: the enclosing run's part of the device, null for a run that begins its own where the plan has a device.
  Run(const Plan& plan, const Run* parent, const Tap* tap, DeviceRun* device = nullptr);
  void feed(ValueId value, Datum datum);
  /// A tensor in the device's memory.
  void feed_device(ValueId value, Tensor tensor);
  /// Runs the steps and returns the fetches. Once only.
  std::vector<Datum> execute();
  /// Runs the steps. A fetch that is in the device's memory is then there to take, undefined where it is in the host's.
  void execute_steps();
  Tensor device_fetch(size_t i);
  Datum fetch(size_t i);

 private:
  friend class StepContext;
  struct Slot {
    Tensor tensor;
    Layout layout = Layout::Plain;
    Datum other = {};  ///< a sequence or an empty optional, where it is no tensor
    Tensor device = {};  ///< the same in the device's memory; either or both are defined
    Layout device_layout = Layout::Plain;
    bool defined() const { return tensor.defined() || other.defined() || device.defined(); }
  };
  Slot& slot(ValueId id) { return slots_[static_cast<size_t>(id)]; }
  const Slot& slot(ValueId id) const { return slots_[static_cast<size_t>(id)]; }
  /// Throws Error(Malformed) where the value holds no tensor.
  const Tensor& plain(ValueId id);
  /// Copies the value to the host where it is on the device alone.
  Slot& on_host(ValueId id);
  Slot& on_device(ValueId id);
  const Tensor& device_plain(ValueId id);
  Datum datum(ValueId id);
  void run_step(size_t index);

  const Plan& plan_;
  const Run* parent_;
  const Tap* tap_;
  std::vector<Slot> slots_;
  std::unique_ptr<DeviceRun> own_device_;
  DeviceRun* device_ = nullptr;
};

}  // namespace infopt

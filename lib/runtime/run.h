// One run of a plan, on one thread.
#pragma once
#include <vector>

#include "lib/runtime/plan.h"

namespace infopt {

class StretchOutputs;

class Run {
 public:
  /// `parent` is the run whose values a body reads; null for a whole model.
  /// `device`: the enclosing run's part of the device, null for a run that begins its own where the plan has a device.
  Run(const Plan& plan, const Run* parent, const Tap* tap, DeviceRun* device = nullptr);
  void feed(ValueId value, Datum datum);
  /// A tensor in the device's memory.
  void feed_device(ValueId value, Tensor tensor);
  void feed_placed(ValueId value, Placed given);
  /// On a device: summaries of the tapped values instead of a tap. `tap` is told of them by execute(), or by the caller for summarized().
  void summarize_for(SummaryTap& tap) { summary_tap_ = &tap; }
  /// What the device was asked to summarize, in that order.
  const std::vector<ValueId>& summarized() const { return summarized_; }
  /// Runs the steps and returns the fetches. Once only.
  std::vector<Datum> execute();
  /// Runs the steps. A fetch that is in the device's memory is then there to take, undefined where it is in the host's.
  void execute_steps();
  Tensor device_fetch(size_t i);
  Placed placed_fetch(size_t i);
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
  Placed placed(ValueId id);
  /// Puts what a step's bodies read from outside where they look for it.
  void place_captures(const PlanStep& step);
  Datum datum(ValueId id);
  void run_step(size_t index);
  /// run_step, with the node's name in errors.
  void run_named_step(size_t index);
  /// Shows a value to the tap.
  void show(ValueId id);
  void tell_summaries();
  /// Shows taps the step's outputs, and frees what nobody reads any more.
  void finish_step(const PlanStep& step);

  // lib/runtime/stretch.cpp
  /// Runs the whole stretch where its batch is worth parting; else false, and nothing has happened.
  bool run_in_parts(const Stretch& stretch);
  /// How many items its inputs have, 0 where they don't fit; appends the inputs' shapes.
  int64_t items_of(const Stretch& stretch, std::vector<Shape>& shapes) const;
  /// The items [first, first + count) of the run `whole`.
  void run_part(const Run& whole, const Stretch& stretch, int64_t first, int64_t count, StretchOutputs& outputs);
  void note_part(const PlanStep& step);

  const Plan& plan_;
  const Run* parent_;
  const Tap* tap_;
  SummaryTap* summary_tap_ = nullptr;
  std::vector<ValueId> summarized_;
  std::vector<Slot> slots_;
  std::unique_ptr<DeviceRun> own_device_;
  DeviceRun* device_ = nullptr;
  StretchOutputs* outputs_ = nullptr;  ///< of a run of a part
  int64_t first_item_ = 0;
  size_t part_bytes_ = 0;  ///< the most that one step read and wrote
};

}  // namespace infopt

// Runs of a plan on a device as one recorded graph of kernels: the second run with the same shapes is recorded, later ones replay it.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "lib/runtime/device.h"

namespace infopt {

class Plan;

/// The recordings of one plan. Any thread.
class DeviceGraphs {
 public:
  using Feeds = std::vector<std::pair<ValueId, Tensor>>;
  /// The fetches of a recorded run; nothing where this run must be an ordinary one: the first of its shapes, or a plan whose kernels depend
  /// on values that the host reads. Feeds are in the order of their ids. `tap`: null, or what sees summaries of the tapped values.
  std::optional<std::vector<Tensor>> run(const Plan& plan, const Feeds& feeds, SummaryTap* tap);
  /// Recordings made so far.
  int64_t recorded() const;
  /// Milliseconds of the replays since the last call, where the plan times them.
  std::vector<float> take_times();

 private:
  /// One recording: its inputs and outputs lie where they lay when it was made, so one run at a time.
  struct Recorded {
    std::shared_ptr<DeviceGraph> graph;
    std::vector<Tensor> inputs;
    std::vector<Tensor> outputs;  ///< on the device; undefined where host has it
    std::vector<Tensor> host;
    std::vector<ValueId> summarized;
    struct Shown {
      ValueId value;
      Tensor tensor;
      Layout layout;
    };
    std::vector<Shown> shown;  ///< tapped values that are the host's, the same in every run
  };
  struct Shapes {
    bool seen = false, refused = false;
    std::vector<std::unique_ptr<Recorded>> idle;
  };
  std::unique_ptr<Recorded> record(const Plan& plan, const Feeds& feeds, DeviceRun& run, SummaryTap* tap) const;
  class ShownInRecording;

  mutable std::mutex mutex_;
  std::map<std::vector<int64_t>, Shapes> shapes_;
  int64_t recorded_ = 0;
  std::vector<float> times_;
};

}  // namespace infopt

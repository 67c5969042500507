#include "lib/runtime/device_graph.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/runtime/plan.h"
#include "lib/runtime/run.h"

namespace infopt {
namespace {

std::vector<int64_t> key_of(const DeviceGraphs::Feeds& feeds) {
  std::vector<int64_t> key;
  for (const auto& [id, tensor] : feeds) {
    key.insert(key.end(), {id, static_cast<int64_t>(tensor.dtype()), tensor.rank()});
    key.insert(key.end(), tensor.shape().begin(), tensor.shape().end());
  }
  return key;
}

bool capturable(const Plan& plan) {
  return std::all_of(plan.steps().begin(), plan.steps().end(), [](const PlanStep& s) { return s.kernel->on_device() || s.of_shapes; });
}

}  // namespace

int64_t DeviceGraphs::recorded() const {
  std::lock_guard lock(mutex_);
  return recorded_;
}

std::vector<float> DeviceGraphs::take_times() {
  std::lock_guard lock(mutex_);
  return std::exchange(times_, {});
}

/// Keeps what the host shows while a run is recorded, for the replays.
class DeviceGraphs::ShownInRecording : public SummaryTap {
 public:
  ShownInRecording(const SummaryTap& tap, Recorded& into) : tap_(tap), into_(into) {}
  SummaryRequest request(ValueId value) const override { return tap_.request(value); }
  void see(ValueId value, const Tensor& tensor, Layout layout) override { into_.shown.push_back({value, tensor, layout}); }
  void see(ValueId, const TensorSummary&) override {}

 private:
  const SummaryTap& tap_;
  Recorded& into_;
};

std::unique_ptr<DeviceGraphs::Recorded> DeviceGraphs::record(const Plan& plan, const Feeds& feeds, DeviceRun& device, SummaryTap* tap) const {
  auto recorded = std::make_unique<Recorded>();
  std::optional<ShownInRecording> shown;
  if (tap) shown.emplace(*tap, *recorded);
  device.begin_capture();
  try {
    Run run(plan, nullptr, nullptr, &device);
    if (shown) run.summarize_for(*shown);
    for (const auto& [id, tensor] : feeds) {
      recorded->inputs.push_back(device.make(tensor.dtype(), tensor.shape()));
      run.feed_device(id, recorded->inputs.back());
    }
    run.execute_steps();
    for (size_t i = 0; i < plan.fetches().size(); ++i) {
      recorded->outputs.push_back(run.device_fetch(i));
      recorded->host.push_back(recorded->outputs.back().defined() ? Tensor() : run.fetch(i).tensor());
    }
    recorded->graph = device.end_capture();
    recorded->summarized = run.summarized();
  } catch (const Error& e) {
    device.abandon_capture();
    // Out of memory, or a value that the host would have to read: an ordinary run will do.
    return nullptr;
  }
  return recorded;
}

std::optional<std::vector<Tensor>> DeviceGraphs::run(const Plan& plan, const Feeds& feeds, SummaryTap* tap) {
  std::unique_ptr<Recorded> recorded;
  std::vector<int64_t> key = key_of(feeds);
  key.push_back(tap != nullptr);
  {
    std::lock_guard lock(mutex_);
    Shapes& s = shapes_[key];
    if (!s.seen) {
      s.seen = true;
      s.refused = !capturable(plan);
      return std::nullopt;
    }
    if (s.refused) return std::nullopt;
    if (!s.idle.empty()) {
      recorded = std::move(s.idle.back());
      s.idle.pop_back();
    }
  }
  const auto device = plan.device()->begin();
  if (!recorded) {
    recorded = record(plan, feeds, *device, tap);
    std::lock_guard lock(mutex_);
    if (recorded) ++recorded_;
    else shapes_[key].refused = true;
    if (!recorded) return std::nullopt;
  }
  for (size_t i = 0; i < feeds.size(); ++i) device->copy_in(feeds[i].second, recorded->inputs[i]);
  float ms = 0;
  device->replay(*recorded->graph, plan.times_device() ? &ms : nullptr);
  std::vector<Tensor> out;
  for (size_t i = 0; i < recorded->outputs.size(); ++i) out.push_back(recorded->outputs[i].defined() ? device->to_host(recorded->outputs[i]) : recorded->host[i]);
  if (tap) {
    for (const auto& [value, tensor, layout] : recorded->shown) tap->see(value, tensor, layout);
    const auto summaries = device->summaries();
    for (size_t i = 0; i < summaries.size(); ++i) tap->see(recorded->summarized[i], summaries[i]);
  }
  std::lock_guard lock(mutex_);
  shapes_[key].idle.push_back(std::move(recorded));
  if (plan.times_device()) times_.push_back(ms);
  return out;
}

}  // namespace infopt

#include "lib/runtime/plan.h"

#include <algorithm>

#include "lib/runtime/planner.h"
#include "lib/runtime/stretch.h"

namespace infopt {

Plan::Plan(const Graph& graph, SessionOptions options, const Plan* parent)
    : graph_(graph), options_(std::move(options)), parent_(parent), tapped_(graph.value_capacity()) {
  fetches_ = options_.fetches.empty() ? graph.outputs() : options_.fetches;
  for (ValueId id : options_.taps) tapped_[static_cast<size_t>(id)] = true;
  for (size_t v = 0; v < graph.value_capacity(); ++v) {
    const ValueId id = static_cast<ValueId>(v);
    if (graph.value_alive(id) && graph.value(id).outer != kNone) outer_.push_back(id);
  }
  Planner planner(*this, graph, options_, fetches_);
  steps_ = planner.make_steps();
  constants_ = planner.constants_of(steps_);
  for (PlanStep& step : steps_)
    for (ValueId o : step.outputs)
      if (o != kNone && tapped(o)) step.tapped.push_back(o);
  plan_lifetimes();
  if (!options_.device) stretches_ = find_stretches(*this);
  times_.resize(steps_.size());
}

Plan::~Plan() = default;

int64_t Plan::opset(const std::string& domain) const {
  if (const int64_t own = graph_.opset(domain)) return own;
  return parent_ ? parent_->opset(domain) : 0;
}

const Tensor* Plan::device_constant(ValueId value, DeviceRun& run) const {
  if (fed(value)) return nullptr;  // a default that a run may replace
  const auto at = std::lower_bound(constants_.begin(), constants_.end(), value, [](const auto& c, ValueId v) { return c.first < v; });
  if (at == constants_.end() || at->first != value) return nullptr;
  std::lock_guard lock(mutex_);
  auto [it, fresh] = device_constants_.try_emplace(value);
  if (fresh) {
    it->second = run.to_device(at->second);
    run.wait();  // other runs will read it in streams of their own
    at->second.release_pages();
  }
  return &it->second;
}

void Plan::plan_lifetimes() {
  std::vector<int64_t> last(graph_.value_capacity(), -1);
  for (size_t s = 0; s < steps_.size(); ++s) {
    auto use = [&](ValueId v) { if (v != kNone) last[static_cast<size_t>(v)] = static_cast<int64_t>(s); };
    for (ValueId v : steps_[s].inputs) use(v);
    for (ValueId v : steps_[s].outputs) use(v);
    for (ValueId v : steps_[s].captures) use(v);
  }
  for (ValueId v : fetches_) last[static_cast<size_t>(v)] = -1;
  for (const auto& [v, tensor] : constants_) last[static_cast<size_t>(v)] = -1;
  for (size_t v = 0; v < last.size(); ++v)
    if (last[v] >= 0) steps_[static_cast<size_t>(last[v])].free_after.push_back(static_cast<ValueId>(v));
}

std::optional<int64_t> Plan::items_at_once(const Stretch& stretch, const std::vector<Shape>& inputs) const {
  std::lock_guard lock(mutex_);
  const auto it = items_at_once_.find({stretch.begin, inputs});
  return it == items_at_once_.end() ? std::nullopt : std::optional(it->second);
}
void Plan::note_items_at_once(const Stretch& stretch, const std::vector<Shape>& inputs, int64_t items) const {
  std::lock_guard lock(mutex_);
  items_at_once_[{stretch.begin, inputs}] = items;
}

void Plan::add_time(size_t step, Clock::time_point start, Clock::time_point end, const Tensor& output) const {
  const auto milliseconds = [](Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); };
  std::lock_guard lock(mutex_);
  times_[step].first += milliseconds(end - start);
  ++times_[step].second;
  if (!options_.trace) return;
  const int thread = threads_.try_emplace(std::this_thread::get_id(), static_cast<int>(threads_.size())).first->second;
  events_.push_back({steps_[step].node, milliseconds(start - made_), milliseconds(end - made_), thread, output.shape()});
}

std::vector<Session::NodeEvent> Plan::events() const {
  std::lock_guard lock(mutex_);
  return events_;
}

std::vector<Session::NodeTime> Plan::profile() const {
  std::lock_guard lock(mutex_);
  std::vector<Session::NodeTime> out;
  for (size_t s = 0; s < steps_.size(); ++s) 
    out.push_back({steps_[s].node, times_[s].first, times_[s].second, steps_[s].covers, steps_[s].kernel->describe()});
  return out;
}

}  // namespace infopt

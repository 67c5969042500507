#include "lib/runtime/session.h"

#include <algorithm>
#include <set>

#include "lib/base/error.h"
#include "lib/base/share.h"
#include "lib/runtime/plan.h"
#include "lib/runtime/run.h"

namespace infopt {

struct Session::Impl {
  Plan plan;
  Impl(const Graph& graph, SessionOptions options) : plan(graph, std::move(options), nullptr) {}
};

namespace {

std::vector<Tensor> tensors_of(const std::vector<Datum>& data, const Plan& plan) {
  std::vector<Tensor> tensors;
  for (size_t i = 0; i < data.size(); ++i) {
    if (!data[i].is_tensor())
      throw Error(ErrorKind::Unsupported, "the output '" + plan.graph().value(plan.fetches()[i]).name + "' is " + data[i].kind() + ", not a tensor");
    tensors.push_back(data[i].tensor());
  }
  return tensors;
}

void check_given(const Value& input, const Tensor& tensor) { check_input(input, tensor); }
void check_given(const Value& input, const Datum& datum) {
  if (input.type.opaque.empty() && datum.defined() && !datum.is_tensor())
    throw Error(ErrorKind::Malformed, "input '" + input.name + "' is " + datum.kind() + ", the model takes a tensor");
  if (datum.is_tensor()) check_input(input, datum.tensor());
}

/// Takes inputs by name, tensors or data of any kind.
template <class Given, class Feed>
void feed_by_name(const Graph& graph, const std::map<std::string, Given>& inputs, Feed feed) {
  for (ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    const auto it = inputs.find(value.name);
    if (it == inputs.end()) {
      if (!value.constant.defined()) throw Error(ErrorKind::Malformed, "the model's input '" + value.name + "' was not given");
      continue;
    }
    check_given(value, it->second);
    feed(id, it->second);
  }
  for (const auto& [name, given] : inputs) {
    const bool known = std::any_of(graph.inputs().begin(), graph.inputs().end(), [&](ValueId id) { return graph.value(id).name == name; });
    if (!known) throw Error(ErrorKind::Malformed, "the model has no input '" + name + "'");
  }
}

}  // namespace

Session::Session(const Graph& graph, SessionOptions options) : impl_(std::make_unique<Impl>(graph, std::move(options))) {}
Session::~Session() = default;

namespace {

/// A recorded run where the device has one for these shapes, else an ordinary one. `summaries`: on a device only.
std::vector<Tensor> run_plan(const Plan& plan, DeviceGraphs::Feeds feeds, const Tap* tap, SummaryTap* summaries = nullptr) {
  const RunThreads threads(plan.threads());
  if (plan.device() && !tap && !plan.profiling()) {
    std::sort(feeds.begin(), feeds.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    if (auto out = plan.graphs().run(plan, feeds, summaries)) return std::move(*out);
  }
  Run run(plan, nullptr, tap);
  if (summaries) run.summarize_for(*summaries);
  for (auto& [value, tensor] : feeds) run.feed(value, std::move(tensor));
  return tensors_of(run.execute(), plan);
}

}  // namespace

std::vector<Tensor> Session::run(const std::unordered_map<ValueId, Tensor>& inputs, const Tap& tap) const {
  return run_plan(impl_->plan, {inputs.begin(), inputs.end()}, tap ? &tap : nullptr);
}

std::vector<Tensor> Session::run(const std::map<std::string, Tensor>& inputs, const Tap& tap) const {
  DeviceGraphs::Feeds feeds;
  feed_by_name(impl_->plan.graph(), inputs, [&](ValueId id, const Tensor& tensor) { feeds.emplace_back(id, tensor); });
  return run_plan(impl_->plan, std::move(feeds), tap ? &tap : nullptr);
}

std::vector<Tensor> Session::run(const std::map<std::string, Tensor>& inputs, SummaryTap& tap) const {
  if (!impl_->plan.device()) return run(inputs, [&](ValueId id, const Tensor& tensor, Layout layout) { tap.see(id, tensor, layout); });
  DeviceGraphs::Feeds feeds;
  feed_by_name(impl_->plan.graph(), inputs, [&](ValueId id, const Tensor& tensor) { feeds.emplace_back(id, tensor); });
  return run_plan(impl_->plan, std::move(feeds), nullptr, &tap);
}

std::vector<Datum> Session::run_data(const std::map<std::string, Datum>& inputs) const {
  const RunThreads threads(impl_->plan.threads());
  Run run(impl_->plan, nullptr, nullptr);
  feed_by_name(impl_->plan.graph(), inputs, [&](ValueId id, const Datum& datum) { run.feed(id, datum); });
  return run.execute();
}

std::vector<Session::PlanLine> Session::plan() const {
  std::vector<PlanLine> lines;
  for (const PlanStep& step : impl_->plan.steps()) lines.push_back({step.node, step.covers, step.kernel->describe(), step.refusal, step.kernel->on_device() ? PlanLine::OnDevice : step.of_shapes ? PlanLine::Shapes : PlanLine::Cpu});
  return lines;
}

std::vector<Session::NodeTime> Session::profile() const { return impl_->plan.profile(); }
std::vector<Session::NodeEvent> Session::events() const { return impl_->plan.events(); }
std::vector<float> Session::device_times() const { return impl_->plan.graphs().take_times(); }
int64_t Session::recorded_runs() const { return impl_->plan.graphs().recorded(); }

void check_input(const Value& input, const Tensor& tensor) {
  const Type& type = input.type;
  if (type.dtype != DType::Undefined && type.dtype != tensor.dtype())
    throw Error(ErrorKind::Malformed, "input '" + input.name + "' is " + std::string(name_of(tensor.dtype())) + ", the model takes " + std::string(name_of(type.dtype)));
  if (!type.has_shape) return;
  bool fits = type.shape.size() == tensor.shape().size();
  std::string wanted = "[";
  for (size_t i = 0; i < type.shape.size(); ++i) {
    const Dim& d = type.shape[i];
    wanted += (i ? "," : "") + (d.size >= 0 ? std::to_string(d.size) : d.symbol.empty() ? "?" : d.symbol);
    fits = fits && (d.size < 0 || d.size == tensor.shape()[i]);
  }
  if (!fits)
    throw Error(ErrorKind::Malformed, "input '" + input.name + "' has shape " + to_string(tensor.shape()) + ", the model takes " + wanted + "]");
}

}  // namespace infopt

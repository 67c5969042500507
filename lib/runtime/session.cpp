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
template <class Given>
void feed_by_name(Run& run, const Graph& graph, const std::map<std::string, Given>& inputs) {
  for (ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    const auto it = inputs.find(value.name);
    if (it == inputs.end()) {
      if (!value.constant.defined()) throw Error(ErrorKind::Malformed, "the model's input '" + value.name + "' was not given");
      continue;
    }
    check_given(value, it->second);
    run.feed(id, it->second);
  }
  for (const auto& [name, given] : inputs) {
    const bool known = std::any_of(graph.inputs().begin(), graph.inputs().end(), [&](ValueId id) { return graph.value(id).name == name; });
    if (!known) throw Error(ErrorKind::Malformed, "the model has no input '" + name + "'");
  }
}

}  // namespace

Session::Session(const Graph& graph, SessionOptions options) : impl_(std::make_unique<Impl>(graph, std::move(options))) {}
Session::~Session() = default;

std::vector<Tensor> Session::run(const std::unordered_map<ValueId, Tensor>& inputs, const Tap& tap) const {
  const RunThreads threads(impl_->plan.threads());
  Run run(impl_->plan, nullptr, tap ? &tap : nullptr);
  for (const auto& [value, tensor] : inputs) run.feed(value, tensor);
  return tensors_of(run.execute(), impl_->plan);
}

std::vector<Tensor> Session::run(const std::map<std::string, Tensor>& inputs, const Tap& tap) const {
  const RunThreads threads(impl_->plan.threads());
  Run run(impl_->plan, nullptr, tap ? &tap : nullptr);
  feed_by_name(run, impl_->plan.graph(), inputs);
  return tensors_of(run.execute(), impl_->plan);
}

std::vector<Datum> Session::run_data(const std::map<std::string, Datum>& inputs) const {
  const RunThreads threads(impl_->plan.threads());
  Run run(impl_->plan, nullptr, nullptr);
  feed_by_name(run, impl_->plan.graph(), inputs);
  return run.execute();
}

std::vector<Session::PlanLine> Session::plan() const {
  std::vector<PlanLine> lines;
  for (const PlanStep& step : impl_->plan.steps()) lines.push_back({step.node, step.covers, step.kernel->describe(), step.refusal, step.kernel->on_device() ? PlanLine::OnDevice : step.of_shapes ? PlanLine::Shapes : PlanLine::Cpu});
  return lines;
}

std::vector<Session::NodeTime> Session::profile() const { return impl_->plan.profile(); }
std::vector<Session::NodeEvent> Session::events() const { return impl_->plan.events(); }

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

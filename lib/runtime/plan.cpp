#include "lib/runtime/plan.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/onnx/function_body.h"
#include "lib/runtime/fold.h"

namespace infopt {
namespace {

/// A node without a kernel of its own, run through the body that ONNX defines for it.
class ExpandedKernel : public Kernel {
 public:
  ExpandedKernel(std::shared_ptr<Graph> body, const Plan* parent) : body_(std::move(body)), plan_(*body_, {}, parent) {}
  void run(KernelContext& context) const override;

 private:
  std::shared_ptr<Graph> body_;
  Plan plan_;
};

/// Relu and Clip between constants can end a convolution or product in the same kernel.
bool as_activation(const Graph& graph, const Node& node, PostActivation& post) {
  if (node.is("Relu")) {
    post = {PostActivation::Clip, 0.0f, std::numeric_limits<float>::infinity()};
    return true;
  }
  if (!node.is("Clip")) return false;
  post = {PostActivation::Clip, -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::infinity()};
  if (const float* low = node.get<float>("min")) post.low = *low;
  if (const float* high = node.get<float>("max")) post.high = *high;
  for (size_t i : {1u, 2u}) {
    if (node.input(i) == kNone) continue;
    const Tensor* bound = graph.constant(node.input(i));
    if (!bound || bound->dtype() != DType::F32 || bound->size() != 1) return false;
    (i == 1 ? post.low : post.high) = bound->data<float>()[0];
  }
  return post.low <= post.high;
}

}  // namespace

Plan::Plan(const Graph& graph, SessionOptions options, const Plan* parent)
    : graph_(graph), options_(std::move(options)), parent_(parent), tapped_(graph.value_capacity()), fused_away_(graph.node_capacity()) {
  fetches_ = options_.fetches.empty() ? graph.outputs() : options_.fetches;
  for (ValueId id : options_.taps) tapped_[static_cast<size_t>(id)] = true;
  const std::vector<bool> needed = find_needed();
  for (NodeId id : graph.order())
    if (needed[static_cast<size_t>(id)] && !fused_away_[static_cast<size_t>(id)]) add_step(id);
  for (size_t v = 0; v < graph.value_capacity(); ++v) {
    const ValueId id = static_cast<ValueId>(v);
    if (!graph.value_alive(id)) continue;
    const Value& value = graph.value(id);
    if (value.outer != kNone) outer_.push_back(id);
    else if (value.constant.defined()) constants_.emplace_back(id, value.constant);
    else if (const auto it = known_.find(id); it != known_.end()) constants_.emplace_back(id, it->second);
  }
  plan_lifetimes();
  times_.resize(steps_.size());
}

Plan::~Plan() = default;

int64_t Plan::opset(const std::string& domain) const {
  if (const int64_t own = graph_.opset(domain)) return own;
  return parent_ ? parent_->opset(domain) : 0;
}

std::vector<bool> Plan::find_needed() const {
  std::vector<bool> needed(graph_.node_capacity());
  std::vector<ValueId> open = fetches_;
  open.insert(open.end(), options_.taps.begin(), options_.taps.end());
  while (!open.empty()) {
    const ValueId id = open.back();
    open.pop_back();
    if (id == kNone) continue;
    const NodeId producer = graph_.value(id).producer;
    if (producer == kNone || needed[static_cast<size_t>(producer)]) continue;
    needed[static_cast<size_t>(producer)] = true;
    const Node& node = graph_.node(producer);
    open.insert(open.end(), node.inputs.begin(), node.inputs.end());
    open.insert(open.end(), node.captures.begin(), node.captures.end());
  }
  return needed;
}

void Plan::add_step(NodeId id) {
  const Node& node = graph_.node(id);
  PlanStep step;
  step.node = id;
  step.inputs = node.inputs;
  step.outputs = node.outputs;
  const int64_t version = opset(node.domain);
  const OpDef* op = find_op(node.domain, node.op, version);
  KernelSpec spec{graph_, node, version, {}, &known_};
  try {
    if (op) {
      if (options_.fuse && op->fuses_activation) fuse_activation(step, node, spec);
      step.kernel = op->cpu(spec);
      if (options_.fold && step.outputs == node.outputs && fold(node, *op, *step.kernel)) return;
    } else if (auto body = expand_function(graph_, id)) {
      step.kernel = std::make_unique<ExpandedKernel>(std::move(body), this);
    } else {
      const std::string full = (node.domain.empty() ? "" : node.domain + ".") + node.op;
      throw Error(ErrorKind::Unsupported, "the operator " + full + " (opset " + std::to_string(version) + ") can't be run by infopt");
    }
  } catch (const Error& e) {
    throw e.within(graph_.label(id));
  }
  for (const auto& body : node.bodies()) step.bodies.push_back(std::make_unique<Plan>(*body, SessionOptions{}, this));
  for (ValueId o : step.outputs)
    if (o != kNone && tapped(o)) step.tapped.push_back(o);
  steps_.push_back(std::move(step));
}

bool Plan::fold(const Node& node, const OpDef& op, const Kernel& kernel) {
  if (op.nondeterministic || !node.captures.empty() || !node.bodies().empty()) return false;
  std::vector<Tensor> inputs;
  for (ValueId v : node.inputs) {
    if (v == kNone) {
      inputs.emplace_back();
      continue;
    }
    const auto it = known_.find(v);
    const Tensor* t = it != known_.end() ? &it->second : graph_.value(v).is_constant() ? &graph_.value(v).constant : nullptr;
    if (!t) return false;
    inputs.push_back(*t);
  }
  for (ValueId o : node.outputs)
    if (o != kNone && tapped(o)) return false;
  std::vector<Tensor> outputs = compute_constant(kernel, node, inputs);
  if (outputs.empty()) return false;
  for (size_t i = 0; i < node.outputs.size(); ++i)
    if (node.outputs[i] != kNone) known_[node.outputs[i]] = std::move(outputs[i]);
  return true;
}

void Plan::fuse_activation(PlanStep& step, const Node& node, KernelSpec& spec) {
  const ValueId out = node.outputs[0];
  if (tapped(out) || std::find(fetches_.begin(), fetches_.end(), out) != fetches_.end()) return;
  const Node* next = graph_.sole_consumer(out);
  if (!next || next->inputs[0] != out || !as_activation(graph_, *next, spec.post)) return;
  fused_away_[static_cast<size_t>(next->id)] = true;
  step.outputs[0] = next->outputs[0];
}

void Plan::plan_lifetimes() {
  std::vector<int64_t> last(graph_.value_capacity(), -1);
  for (size_t s = 0; s < steps_.size(); ++s) {
    auto use = [&](ValueId v) { if (v != kNone) last[static_cast<size_t>(v)] = static_cast<int64_t>(s); };
    for (ValueId v : steps_[s].inputs) use(v);
    for (ValueId v : steps_[s].outputs) use(v);
    for (ValueId v : graph_.node(steps_[s].node).captures) use(v);
  }
  for (ValueId v : fetches_) last[static_cast<size_t>(v)] = -1;
  for (const auto& [v, tensor] : constants_) last[static_cast<size_t>(v)] = -1;
  for (size_t v = 0; v < last.size(); ++v)
    if (last[v] >= 0) steps_[static_cast<size_t>(last[v])].free_after.push_back(static_cast<ValueId>(v));
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
  for (size_t s = 0; s < steps_.size(); ++s) out.push_back({steps_[s].node, times_[s].first, times_[s].second});
  return out;
}

}  // namespace infopt

#include "lib/runtime/run.h"

namespace infopt {
namespace {

void ExpandedKernel::run(KernelContext& context) const {
  Run run(plan_, nullptr, nullptr);
  const auto& inputs = body_->inputs();
  for (size_t i = 0; i < inputs.size(); ++i)
    if (context.has(i)) run.feed(inputs[i], context.datum(i));
  std::vector<Datum> outputs = run.execute();
  for (size_t i = 0; i < outputs.size() && i < context.outputs(); ++i)
    if (context.wanted(i)) context.set_datum(i, std::move(outputs[i]));
}

}  // namespace
}  // namespace infopt

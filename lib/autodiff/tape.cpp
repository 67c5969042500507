#include "lib/autodiff/tape.h"

#include <algorithm>
#include <set>

#include "lib/autodiff/fake_quantize.h"
#include "lib/base/error.h"
#include "lib/runtime/layout.h"

namespace infopt {

struct Piece::Step {
  const Node* node = nullptr;
  std::string label;
  std::unique_ptr<Kernel> kernel;
  GradientFunction gradient;           ///< empty where nothing flows
  std::optional<FakeQuantizer> rounds; ///< a pair of Q and DQ: from the Q's input to the DQ's output
  ValueId from = kNone, to = kNone;
};

namespace {

/// A kernel's view of the tape's values. Nothing is reused: gradients need what was there.
class TapeContext : public KernelContext {
 public:
  TapeContext(std::vector<Laid> in, size_t outputs) : in_(std::move(in)), out_(outputs) {}

  size_t inputs() const override { return in_.size(); }
  size_t outputs() const override { return out_.size(); }
  bool has(size_t i) const override { return i < in_.size() && in_[i].tensor.defined(); }
  const Tensor& in(size_t i) override {
    require(i);
    if (in_[i].layout != Layout::Plain) in_[i] = {in_[i].as(Layout::Plain), Layout::Plain};
    return in_[i].tensor;
  }
  const Tensor& in_any(size_t i, Layout& layout) override {
    require(i);
    layout = in_[i].layout;
    return in_[i].tensor;
  }
  bool wanted(size_t i) const override { return i < out_.size(); }
  Tensor& out(size_t i, DType dtype, Shape shape, Layout layout) override {
    out_.at(i) = {Tensor(dtype, std::move(shape)), layout};
    return out_[i].tensor;
  }
  Tensor& out_reusing(size_t i, size_t, DType dtype, Shape shape, Layout layout) override { return out(i, dtype, std::move(shape), layout); }
  void set(size_t i, Tensor tensor, Layout layout) override { out_.at(i) = {std::move(tensor), layout}; }
  std::vector<Datum> run_body(size_t, std::vector<Datum>) override { throw Error(ErrorKind::Unsupported, "bodies aren't differentiated"); }

  std::vector<Laid>& results() { return out_; }

 private:
  void require(size_t i) const {
    if (!has(i)) throw Error(ErrorKind::Malformed, "input " + std::to_string(i) + " is missing");
  }
  std::vector<Laid> in_, out_;
};

/// What a piece knows of constants: not those that are being learned.
class PieceConstants : public KnownValues {
 public:
  PieceConstants(const Piece& piece) : piece_(piece) {}
  const Tensor* constant(ValueId value) override { return piece_.constant(value); }

 private:
  const Piece& piece_;
};

/// The code range of a quantizer's type; empty where it isn't an integer one of 4 to 16 bits.
std::optional<std::pair<int32_t, int32_t>> codes_of(DType dtype) {
  switch (dtype) {
    case DType::U8: return {{0, 255}};
    case DType::I8: return {{-128, 127}};
    case DType::U16: return {{0, 65535}};
    case DType::I16: return {{-32768, 32767}};
    case DType::U4: return {{0, 15}};
    case DType::I4: return {{-8, 7}};
    default: return std::nullopt;
  }
}

/// Where `d` is a DequantizeLinear that alone reads a QuantizeLinear of the same constant scale and zero point.
std::optional<FakeQuantizer> rounding_pair(const Graph& graph, const Node& d) {
  const Node* q = d.is("DequantizeLinear") ? graph.producer(d.input(0)) : nullptr;
  if (!q || !q->is("QuantizeLinear") || graph.sole_consumer(d.input(0)) != &d || q->input(1) != d.input(1) || q->input(2) != d.input(2)) return std::nullopt;
  const Tensor *scale = graph.constant(q->input(1)), *zero = graph.constant(q->input(2));
  if (!scale || scale->size() != 1 || scale->dtype() != DType::F32 || (q->input(2) != kNone && (!zero || zero->size() != 1))) return std::nullopt;
  const auto codes = codes_of(zero ? zero->dtype() : DType::U8);
  if (!codes || (!zero && q->i("output_dtype", 0) != 0)) return std::nullopt;
  return FakeQuantizer{to_scalar<float>(*scale), zero ? static_cast<int32_t>(to_scalar<int64_t>(*zero)) : 0, codes->first, codes->second};
}

/// What it gives out doesn't change with its inputs' values, or in steps alone.
bool is_flat(const Node& n) {
  static const std::set<std::string> kFlat{"Shape", "Size", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "ArgMax", "ArgMin", "IsNaN", "IsInf"};
  return n.domain.empty() && kFlat.contains(n.op);
}

}  // namespace

Passage passage_of(const Graph& graph, const Node& node) {
  const OpDef* op = find_op(node.domain, node.op, graph.opset(node.domain));
  if (!op || !op->cpu || !node.bodies().empty()) return Passage::NoKernel;
  if (node.is("QuantizeLinear")) return Passage::Differentiable;  // with the DequantizeLinear behind it
  if (is_flat(node)) return Passage::Flat;
  const GradientDef* g = find_gradient(node);
  if (!g) return Passage::NoGradient;
  try {
    g->make({graph, node, graph.opset(node.domain)});
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::Unsupported) throw;
    return Passage::NoGradient;
  }
  return Passage::Differentiable;
}

Piece::Piece(const Graph& graph, Spec spec) : spec_(std::move(spec)) {
  for (ValueId v : spec_.differentiate) flows_[v] = true;
  find_steps(graph);
}
Piece::~Piece() = default;

const Tensor* Piece::constant(ValueId value) const {
  const auto it = constants_.find(value);
  return it == constants_.end() ? nullptr : &it->second;
}

void Piece::find_steps(const Graph& graph) {
  const std::set<ValueId> fed(spec_.inputs.begin(), spec_.inputs.end());
  std::set<NodeId> needed;
  std::set<ValueId> met;
  std::vector<ValueId> todo = spec_.outputs;
  while (!todo.empty()) {
    const ValueId v = todo.back();
    todo.pop_back();
    if (v == kNone || fed.contains(v) || !met.insert(v).second) continue;
    if (const Tensor* c = graph.constant(v)) {
      constants_.emplace(v, *c);
      continue;
    }
    const Node* p = graph.producer(v);
    if (!p) throw Error(ErrorKind::Defect, "a piece of a graph needs a value that isn't fed", graph.value(v).name);
    if (!needed.insert(p->id).second) continue;
    todo.insert(todo.end(), p->inputs.begin(), p->inputs.end());
  }
  for (NodeId id : graph.order())
    if (needed.contains(id)) add_step(graph, graph.node(id));
}

void Piece::add_step(const Graph& graph, const Node& node) {
  const auto flows = [&](ValueId v) { return flows_.contains(v); };
  const bool differentiated = std::any_of(node.inputs.begin(), node.inputs.end(), flows);
  const bool fixed = std::all_of(node.inputs.begin(), node.inputs.end(), [&](ValueId v) { return v == kNone || constants_.contains(v); });
  const OpDef* op = find_op(node.domain, node.op, graph.opset(node.domain));
  if (!op || !op->cpu || !node.bodies().empty()) throw Error(ErrorKind::Unsupported, "there is no kernel for " + node.op, graph.label(node.id));
  PieceConstants known(*this);
  const KernelSpec spec{graph, node, graph.opset(node.domain), {}, &known};
  Step step;
  step.node = &node;
  step.label = graph.label(node.id);
  step.kernel = op->cpu(spec);
  const bool reads_fed = std::any_of(node.inputs.begin(), node.inputs.end(), [&](ValueId v) { return v != kNone && !constants_.contains(v); });
  if (fixed && !reads_fed && !op->nondeterministic) {
    std::vector<Laid> in;
    for (ValueId v : node.inputs) in.push_back({v == kNone ? Tensor() : constants_.at(v), Layout::Plain});
    TapeContext context(std::move(in), node.outputs.size());
    step.kernel->run(context);
    for (size_t i = 0; i < node.outputs.size(); ++i)
      if (node.outputs[i] != kNone && context.results()[i].tensor.defined()) constants_[node.outputs[i]] = context.results()[i].as(Layout::Plain);
    return;
  }
  if (auto rounds = rounding_pair(graph, node); rounds && !steps_.empty()) {
    const auto quantize = std::find_if(steps_.begin(), steps_.end(), [&](const Step& s) { return s.node == graph.producer(node.input(0)); });
    if (quantize != steps_.end()) {
      step.rounds = rounds;
      step.from = quantize->node->input(0);
      step.to = node.outputs[0];
      if (flows(step.from)) flows_[step.to] = true;
      *quantize = std::move(step);
      return;
    }
  }
  if (differentiated && !node.is("QuantizeLinear") && !is_flat(node)) {
    const GradientDef* g = find_gradient(node);
    if (!g) throw Error(ErrorKind::Unsupported, "there is no gradient of " + node.op, step.label);
    try {
      step.gradient = g->make(spec);
    } catch (const Error& e) {
      throw e.within(step.label);
    }
    for (ValueId v : node.outputs)
      if (v != kNone) flows_[v] = true;
  }
  steps_.push_back(std::move(step));
}

Laid Tape::find(ValueId id) const {
  if (id == kNone) return {};
  if (const auto it = values_.find(id); it != values_.end()) return it->second;
  if (const Tensor* c = piece_.constant(id)) return {*c, Layout::Plain};
  throw Error(ErrorKind::Defect, "a tape lacks a value");
}

Tensor Tape::value(ValueId id) const { return find(id).as(Layout::Plain); }

void Tape::forward(const std::unordered_map<ValueId, Laid>& inputs) {
  values_.clear();
  gradients_.clear();
  for (ValueId v : piece_.spec().inputs) {
    const auto it = inputs.find(v);
    if (it == inputs.end() || !it->second.tensor.defined()) throw Error(ErrorKind::Defect, "a tape's input isn't fed");
    values_[v] = it->second;
  }
  for (size_t i = 0; i < piece_.steps().size(); ++i) {
    try {
      run_step(piece_.steps()[i], i);
    } catch (const Error& e) {
      throw e.within(piece_.steps()[i].label);
    }
  }
}

void Tape::run_step(const Piece::Step& step, size_t index) {
  if (step.rounds) {
    const Laid x = find(step.from);
    values_[step.to] = {fake_quantize(x.tensor, *step.rounds, seed_ ? mix_bits(seed_ + index) | 1 : 0), x.layout};
    return;
  }
  std::vector<Laid> in;
  for (ValueId v : step.node->inputs) in.push_back(find(v));
  TapeContext context(std::move(in), step.node->outputs.size());
  step.kernel->run(context);
  for (size_t i = 0; i < step.node->outputs.size(); ++i)
    if (step.node->outputs[i] != kNone) values_[step.node->outputs[i]] = std::move(context.results()[i]);
}

void Tape::backward(const std::unordered_map<ValueId, Laid>& by_outputs) {
  gradients_.clear();
  for (const auto& [v, t] : by_outputs) gradients_[v] = t;
  const auto& steps = piece_.steps();
  for (size_t i = steps.size(); i-- > 0;) differentiate(steps[i]);
}

void Tape::differentiate(const Piece::Step& step) {
  if (step.rounds) {
    const auto it = gradients_.find(step.to);
    if (it != gradients_.end() && piece_.differentiable(step.from)) {
      const Laid x = find(step.from);
      const Tensor dy = it->second.as(x.layout);
      gradients_.erase(it);
      add(step.from, {fake_quantize_gradient(x.tensor, dy, *step.rounds), x.layout});
    }
    values_.erase(step.to);
    return;
  }
  const Node& n = *step.node;
  std::vector<Laid> in, out, dy;
  std::vector<bool> wants;
  bool flows = false;
  for (ValueId v : n.outputs) {
    const auto it = v == kNone ? gradients_.end() : gradients_.find(v);
    dy.push_back(it == gradients_.end() ? Laid{} : it->second);
    flows = flows || it != gradients_.end();
    out.push_back(v == kNone ? Laid{} : find(v));
  }
  if (flows && step.gradient) {
    if (!dy[0].tensor.defined()) dy[0].layout = Layout::Plain;
    for (ValueId v : n.inputs) {
      in.push_back(find(v));
      wants.push_back(v != kNone && piece_.differentiable(v));
      if (wants.back() && in.back().tensor.dtype() != DType::F32) throw Error(ErrorKind::Unsupported, "only float32 is differentiated", step.label);
    }
    GradientContext context(n, *step.kernel, std::move(in), std::move(out), std::move(dy), wants);
    try {
      step.gradient(context);
    } catch (const Error& e) {
      throw e.within(step.label);
    }
    for (size_t i = 0; i < n.inputs.size(); ++i)
      if (wants[i] && context.given()[i].tensor.defined()) add(n.inputs[i], std::move(context.given()[i]));
  }
  const auto& asked = piece_.spec().differentiate;
  for (ValueId v : n.outputs)
    if (v != kNone && std::find(asked.begin(), asked.end(), v) == asked.end()) gradients_.erase(v), values_.erase(v);
}

void Tape::add(ValueId id, Laid gradient) {
  const auto it = gradients_.find(id);
  if (it == gradients_.end()) {
    gradients_.emplace(id, std::move(gradient));
    return;
  }
  Laid& sum = it->second;
  const Tensor more = gradient.as(sum.layout);
  Tensor total(DType::F32, sum.tensor.shape());
  const float *a = sum.tensor.data<float>(), *b = more.data<float>();
  float* to = total.mutable_data<float>();
  for (int64_t i = 0; i < total.size(); ++i) to[i] = a[i] + b[i];
  sum.tensor = std::move(total);
}

Tensor Tape::gradient(ValueId id) const {
  const auto it = gradients_.find(id);
  if (it != gradients_.end()) return it->second.as(Layout::Plain);
  return Tensor::zeros(DType::F32, find(id).tensor.shape());
}

}  // namespace infopt

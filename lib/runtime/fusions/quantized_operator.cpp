#include "lib/runtime/fusions/quantized_operator.h"

#include <algorithm>
#include <array>

#include "lib/base/error.h"
#include "lib/ir/edit.h"
#include "lib/runtime/fusions/rules.h"

namespace infopt {
namespace {

constexpr const char* kMicrosoft = "com.microsoft";

bool is_product(const Node& node) {
  return node.is("QLinearConv") || node.is("QLinearMatMul") || (node.domain == kMicrosoft && node.op == "QGemm" && node.input(7) != kNone);
}

/// Writes one body.
class BodyMaker {
 public:
  BodyMaker(const Graph& outer, KnownValues& known) : outer_(outer), known_(known), edit_(*body_.graph) { edit_->opsets[""] = 21; }

  std::optional<QuantizedBody> make(const Node& node, const std::vector<const Node*>& before) {
    add_inputs(node);
    for (const Node* n : before) {
      add_inputs(*n);
      const ValueId made = write(*n);
      if (made == kNone) return std::nullopt;
      values_[n->outputs[0]] = made;
    }
    const ValueId result = write(node);
    if (result == kNone) return std::nullopt;
    edit_.add_output(result);
    edit_.finish();
    return std::move(body_);
  }

 private:
  void add_inputs(const Node& node) {
    for (ValueId v : node.inputs) {
      const ValueId input = edit_.add_input("x" + std::to_string(body_.graph->inputs().size()), v == kNone ? Type() : outer_.value(v).type);
      if (v == kNone || values_.count(v)) continue;
      const Tensor* constant = known_.constant(v);
      values_[v] = constant ? edit_.add_constant(*constant) : input;
      body_.outer[values_[v]] = v;
    }
  }

  ValueId write(const Node& node) {
    node_ = &node;
    if (node.is("Pad")) return add("Pad", {in(0), in(1), in(2), in(3)}, copied({}));
    if (node.is("QLinearConv")) return convolution();
    if (node.is("QLinearMatMul"))
      return node_->inputs.size() != 8 ? kNone : to_codes(add("MatMul", {real(0, 1, 2), real(3, 4, 5, 1)}), 6, 7);
    if (node.domain != kMicrosoft || node.i("channels_last", 0) != 0) return kNone;
    if (node.op == "QGemm") return gemm();
    if (node.op == "QLinearConcat") return concat();
    if (node.op == "QLinearWhere") return to_codes(add("Where", {in(0), real(1, 2, 3), real(4, 5, 6)}), 7, 8);
    for (const char* op : {"Add", "Mul"})
      if (node.op == std::string("QLinear") + op) return to_codes(add(op, {real(0, 1, 2), real(3, 4, 5)}), 6, 7);
    if (node.op == "QLinearSoftmax" && node.i("opset", 13) < 13 && node.i("axis", 1) != -1) return kNone;  // it flattens
    for (const char* op : {"GlobalAveragePool", "AveragePool", "Sigmoid", "LeakyRelu", "Softmax"})
      if (node.op == std::string("QLinear") + op) return to_codes(add(op, {real(0, 1, 2)}, copied({"channels_last", "opset"})), 3, 4);
    return kNone;
  }

  ValueId convolution() {
    if (node_->inputs.size() < 8) return kNone;
    std::vector<ValueId> inputs{real(0, 1, 2), real(3, 4, 5, 0)};
    if (node_->input(8) != kNone && !add_bias(inputs, 8, {1, 4}, 1)) return kNone;
    return to_codes(add("Conv", inputs, copied({})), 6, 7);
  }

  ValueId gemm() {
    const int64_t axis = node_->i("transB", 0) != 0 ? 0 : 1;
    std::vector<ValueId> inputs{real(0, 1, 2), real(3, 4, 5, axis)};
    if (node_->input(6) != kNone && !add_bias(inputs, 6, {1, 4}, node_->f("alpha", 1))) return kNone;
    const ValueId y = add("Gemm", inputs, copied({}));
    return node_->input(7) == kNone ? y : to_codes(y, 7, 8);
  }

  ValueId concat() {
    if (node_->inputs.size() < 5 || node_->inputs.size() % 3 != 2) return kNone;
    std::vector<ValueId> parts;
    for (size_t i = 2; i < node_->inputs.size(); i += 3) parts.push_back(real(i, i + 1, i + 2));
    return to_codes(add("Concat", parts, copied({})), 0, 1);
  }

  /// Whole steps of scale `by`·(the two scales'), as integer kernels add them.
  bool add_bias(std::vector<ValueId>& inputs, size_t at, std::array<size_t, 2> scales, float by) {
    const Tensor *a = known_.constant(node_->input(scales[0])), *b = known_.constant(node_->input(scales[1]));
    if (!a || !b || a->dtype() != DType::F32 || b->dtype() != DType::F32 || a->size() != 1 || b->rank() > 1) return false;
    Tensor step(DType::F32, b->shape());
    for (int64_t i = 0; i < b->size(); ++i) step.mutable_data<float>()[i] = by * (a->data<float>()[0] * b->data<float>()[i]);
    inputs.push_back(add("DequantizeLinear", {in(at), edit_.add_constant(std::move(step))}, {{"axis", int64_t{0}, {}}}));
    return true;
  }

  ValueId in(size_t i) { return node_->input(i) == kNone ? kNone : values_.at(node_->input(i)); }
  ValueId real(size_t codes, size_t scale, size_t zero, int64_t axis = 0) {
    const Type& type = body_.graph->value(in(scale)).type;  // with a scale for all, the axis says nothing
    std::vector<Attribute> attributes;
    if (!type.has_shape || !type.shape.empty()) attributes.push_back({"axis", axis, {}});
    return add("DequantizeLinear", {in(codes), in(scale), in(zero)}, std::move(attributes));
  }
  ValueId to_codes(ValueId value, size_t scale, size_t zero) { return add("QuantizeLinear", {value, in(scale), in(zero)}); }

  std::vector<Attribute> copied(std::initializer_list<const char*> except) const {
    std::vector<Attribute> out;
    for (const Attribute& a : node_->attributes)
      if (std::none_of(except.begin(), except.end(), [&](const char* name) { return a.name == name; })) out.push_back(a);
    return out;
  }
  ValueId add(const char* op, std::vector<ValueId> inputs, std::vector<Attribute> attributes = {}) {
    while (!inputs.empty() && inputs.back() == kNone) inputs.pop_back();
    const ValueId out = edit_.add({.op = op, .attributes = std::move(attributes)}, std::move(inputs));
    body_.standing[body_.graph->value(out).producer] = node_->id;
    return out;
  }

  const Graph& outer_;
  KnownValues& known_;
  QuantizedBody body_{std::make_shared<Graph>(), {}, {}};
  GraphEdit edit_;
  const Node* node_ = nullptr;
  std::unordered_map<ValueId, ValueId> values_;
};

/// The body as rules see it; what they say of its nodes is said of the node that it stands for.
class BodyView : public PlanView {
 public:
  BodyView(PlanView& outer, const Node& node, const QuantizedBody& body) : outer_(outer), node_(node), body_(body) {}
  const Graph& graph() const override { return *body_.graph; }
  const Tensor* constant(ValueId value) override { return value == kNone ? nullptr : body_.graph->constant(value); }
  bool hidden(ValueId value) const override { return !body_.graph->is_output(value); }
  int64_t opset(const std::string& domain) const override { return body_.graph->opset(domain); }
  int64_t position(NodeId node) const override {
    const auto& order = body_.graph->order();
    return std::find(order.begin(), order.end(), node) - order.begin();
  }
  bool taken(const Node&) override { return false; }
  const Device* device() const override { return outer_.device(); }
  std::unique_ptr<Kernel> make_kernel(const Node& node) override {
    const int64_t version = opset(node.domain);
    const KernelSpec spec{graph(), node, version, {}, this};
    if (device()) return device()->kernel(spec);
    if (const OpDef* op = find_op(node.domain, node.op, version)) return op->cpu(spec);
    throw Error(ErrorKind::Unsupported, "the operator " + node.op + " can't be run by infopt");
  }
  void refuse(const Node&, std::string reason) override { outer_.refuse(node_, std::move(reason)); }

 private:
  PlanView& outer_;
  const Node& node_;
  const QuantizedBody& body_;
};

std::optional<FusedStep> fuse_body(PlanView& view, const Node& node, const std::vector<const Node*>& before) {
  const auto body = quantized_body(view.graph(), view, node, before);
  if (!body) return std::nullopt;
  BodyView inner(view, node, *body);
  auto step = fuse(inner, *body->graph->producer(body->graph->outputs()[0]));
  if (!step) return std::nullopt;
  for (ValueId& v : step->inputs) {
    const auto at = body->outer.find(v);
    if (at == body->outer.end()) return std::nullopt;
    v = at->second;
  }
  if (step->named != kNone) step->named = body->standing.at(step->named);
  step->covers.clear();
  for (const Node* n : before) step->covers.push_back(n->id);
  return step;
}

/// The Pad whose codes a convolution alone reads, perhaps.
std::vector<const Node*> pad_before(PlanView& view, const Node& node) {
  const Node* pad = node.is("QLinearConv") ? view.only_for_one(node.input(0)) : nullptr;
  return pad && pad->is("Pad") && pad->outputs.size() == 1 ? std::vector{pad} : std::vector<const Node*>();
}

/// The longest run of nodes that the rules make one step of.
std::optional<FusedStep> fuse_longest(PlanView& view, const Node& node, std::vector<const Node*> before) {
  for (;; before.erase(before.begin())) {
    if (auto step = fuse_body(view, node, before)) return step;
    if (before.empty()) return std::nullopt;
  }
}

}  // namespace

std::optional<QuantizedBody> quantized_body(const Graph& graph, KnownValues& known, const Node& node,
                                            const std::vector<const Node*>& before) {
  if (node.outputs.size() != 1 || (!node.op.starts_with("QLinear") && node.op != "QGemm")) return std::nullopt;
  return BodyMaker(graph, known).make(node, before);
}

std::optional<FusedStep> fuse_quantized_operator(PlanView& view, const Node& node) {
  if (!node.op.starts_with("QLinear") && node.op != "QGemm") return std::nullopt;
  for (size_t i : {0u, 3u}) {
    const Node* maker = i < node.inputs.size() ? view.only_for_one(node.inputs[i]) : nullptr;
    if (!maker || !is_product(*maker)) continue;
    std::vector<const Node*> before = pad_before(view, *maker);
    before.push_back(maker);
    if (auto step = fuse_longest(view, node, before)) return step;
  }
  return fuse_longest(view, node, pad_before(view, node));
}

}  // namespace infopt

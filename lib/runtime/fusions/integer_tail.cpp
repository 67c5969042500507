#include "lib/runtime/fusions/integer_tail.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "lib/base/error.h"
#include "lib/runtime/cpu/int8_elementwise.h"
#include "lib/runtime/fold.h"

namespace infopt {
namespace {

constexpr size_t kMostNodes = 16;

/// The nodes from one dequantized value to `end`, operands first.
class FunctionWalk {
 public:
  FunctionWalk(PlanView& view) : view_(view) {}

  bool walk(ValueId value) {
    if (const Tensor* t = view_.constant(value)) {
      rank = std::max(rank, t->shape().size());
      return t->size() == 1 && t->dtype() == DType::F32;
    }
    if (std::find(made.begin(), made.end(), value) != made.end()) return true;
    if (const auto codes = dequantized(view_, value)) {
      if (source != kNone && source != value) return false;
      source = value;
      from = *codes;
      return true;
    }
    const Node* node = view_.producer(value);
    if (!node || !is_elementwise(*node) || !view_.hidden(value) || nodes.size() >= kMostNodes) return false;
    if (made.size() + open_ >= kMostNodes) return false;
    ++open_;
    for (ValueId v : node->inputs)
      if (v != kNone && !walk(v)) return false;
    --open_;
    made.push_back(value);
    nodes.push_back(node);
    return true;
  }

  /// Nobody outside reads what is between.
  bool closed(NodeId end) const {
    return std::all_of(made.begin(), made.end(), [&](ValueId v) {
      const auto& uses = view_.graph().value(v).uses;
      return std::all_of(uses.begin(), uses.end(), [&](const Use& u) {
        return u.node == end || std::any_of(nodes.begin(), nodes.end(), [&](const Node* n) { return n->id == u.node; });
      });
    });
  }

  std::vector<const Node*> nodes;
  std::vector<ValueId> made;
  ValueId source = kNone;
  Codes from;
  size_t rank = 0;

 private:
  PlanView& view_;
  size_t open_ = 0;
};

/// Bounds and the value before them.
ValueId behind_bounds(PlanView& view, ValueId value, PostActivation& post, std::vector<NodeId>& covers) {
  const Node* node = view.only_for_one(value);
  if (!node || !as_bounds(view, *node, post)) return value;
  covers.push_back(node->id);
  return node->input(0);
}

}  // namespace

std::optional<CodeTable> code_table(PlanView& view, const Node& node) {
  const auto to = quantizes(view, node);
  if (!to) return std::nullopt;
  FunctionWalk walk(view);
  if (!walk.walk(node.input(0)) || walk.source == kNone || !walk.closed(node.id)) return std::nullopt;
  uint8_t codes[256];
  for (int i = 0; i < 256; ++i) codes[i] = static_cast<uint8_t>(i);
  Tensor start(DType::F32, {256});
  cpu::int8_dequantize(codes, walk.from.dtype, start.mutable_data<float>(), 256, walk.from.scale, walk.from.zero);
  std::unordered_map<ValueId, Tensor> values{{walk.source, start}};
  for (const Node* n : walk.nodes) {
    std::vector<Tensor> inputs;
    for (ValueId v : n->inputs) inputs.push_back(v == kNone ? Tensor() : values.count(v) ? values.at(v) : view.constant(v)->reshaped({}));
    const int64_t version = view.opset(n->domain);
    const OpDef* op = find_op(n->domain, n->op, version);
    if (!op) return std::nullopt;
    std::vector<Tensor> out;
    try {
      out = compute_constant(*op->cpu({view.graph(), *n, version, {}, &view}), *n, inputs);
    } catch (const Error&) {
    }
    if (out.empty() || out[0].dtype() != DType::F32) return std::nullopt;
    values[n->outputs[0]] = out[0];
  }
  const auto end = values.find(node.input(0));
  if (end == values.end() || end->second.shape() != Shape{256}) return std::nullopt;
  CodeTable table{walk.from, *to};
  cpu::int8_quantize(end->second.data<float>(), table.entries.data(), to->dtype, 256, to->scale, to->zero);
  table.rank = walk.rank;
  for (const Node* n : walk.nodes) table.covers.push_back(n->id);
  return table;
}

std::optional<IntegerTail> integer_tail(PlanView& view, const Node& node, bool (*core)(const Node&)) {
  IntegerTail tail;
  auto take_core = [&](const Node* n) {
    if (!n || !core(*n)) return false;
    tail.core = n;
    if (n != &node) tail.covers.push_back(n->id);
    return true;
  };
  const Node* end = &node;
  auto output = quantizes(view, node);
  if (!output) {  // float32 out: the core itself, or with bounds
    if (take_core(&node)) return tail;
    if (!as_bounds(view, node, tail.bounds)) return std::nullopt;
    return take_core(view.only_for_one(node.input(0))) ? std::optional(tail) : std::nullopt;
  }
  if (auto table = code_table(view, node)) {
    const Node* inner = view.only_for_one(table->from.value);
    if (!inner || !(output = quantizes(view, *inner))) return std::nullopt;
    const auto& uses = view.graph().value(table->from.value).uses;
    const Node& dequantize = view.graph().node(uses[0].node);
    if (!view.hidden(dequantize.outputs[0])) return std::nullopt;
    for (const Use& u : view.graph().value(dequantize.outputs[0]).uses)  // the table alone reads it
      if (u.node != node.id && std::find(table->covers.begin(), table->covers.end(), u.node) == table->covers.end()) return std::nullopt;
    tail.covers = table->covers;
    tail.covers.insert(tail.covers.end(), {dequantize.id, inner->id});
    tail.table = std::move(table);
    end = inner;
  }
  const ValueId before = behind_bounds(view, end->input(0), tail.bounds, tail.covers);
  const Node* last = view.only_for_one(before);
  if (!last) return std::nullopt;
  if (take_core(last)) {
    tail.output = output;
    return tail;
  }
  if (!last->is("Add") || last->inputs.size() != 2) return std::nullopt;
  for (size_t i : {0u, 1u}) {
    const Node* dequantize = view.only_for_one(last->input(i));
    const auto first = dequantized(view, last->input(i)), other = dequantized(view, last->input(1 - i));
    if (!dequantize || !first || !other) continue;
    const Node* quantize = view.only_for_one(first->value);
    const auto made = quantize ? quantizes(view, *quantize) : std::nullopt;
    if (!made || !made->same_step(*first) || first->dtype != output->dtype) continue;
    IntegerTail whole = tail;
    whole.sum_bounds = tail.bounds;
    whole.bounds = {};
    whole.covers.insert(whole.covers.end(), {last->id, dequantize->id, quantize->id});
    const ValueId inside = behind_bounds(view, quantize->input(0), whole.bounds, whole.covers);
    const Node* candidate = view.only_for_one(inside);
    if (!candidate || !core(*candidate)) continue;
    whole.core = candidate;
    whole.covers.push_back(candidate->id);
    whole.output = first;
    whole.residual = other;
    whole.sum = output;
    return whole;
  }
  return std::nullopt;
}

namespace {

/// v, in steps of the output, as a code relative to its zero.
float rounded(const cpu::Int8Epilogue& e, float v) {
  const int32_t least = e.output == DType::I8 ? -128 : 0;
  v = std::nearbyint(std::min(std::max(v, e.low), e.high));
  return std::min(std::max(v, static_cast<float>(least - e.zero)), static_cast<float>(least + 255 - e.zero));
}

/// The bias in whole steps where those that the sums have no room for belong to columns that the sums can't change: quantizers give
/// channels of next to no weights such biases. Their columns get the nearest bias with room, whose code is the same.
std::vector<int32_t> narrowed(const CodedBias& bias, const IntegerEpilogue& all) {
  const int64_t room = kMostSum - bias.sum;
  const auto reach = static_cast<float>(bias.sum);
  std::vector<int32_t> out = bias.wide;
  for (size_t i = 0; i < out.size(); ++i) {
    if (std::abs(int64_t{out[i]}) <= room) continue;
    const int64_t near = std::clamp<int64_t>(out[i], -room, room);
    const float by = all.scale[i], code = rounded(all.epilogue, all.float_bias[i]);
    for (const float v : {-reach * by + all.float_bias[i], reach * by + all.float_bias[i], static_cast<float>(near - bias.sum) * by, static_cast<float>(near + bias.sum) * by})
      if (!(rounded(all.epilogue, v) == code)) return {};
    out[i] = static_cast<int32_t>(near);
  }
  return out;
}

}  // namespace

TailEpilogue::TailEpilogue(const IntegerTail& tail, const std::vector<float>& step, const CodedBias& bias) : all_(std::make_shared<IntegerEpilogue>()) {
  IntegerEpilogue& all = *all_;
  all.scale = step, all.float_bias = bias.real, all.bias = bias.whole;
  all.output = tail.table ? tail.table->to.dtype : tail.output ? tail.output->dtype : DType::F32;
  const float unit = tail.output ? tail.output->scale : 1.0f;
  for (float& s : all.scale) s = s / unit;
  for (float& b : all.float_bias) b = b / unit;
  cpu::Int8Epilogue& e = all.epilogue;
  e.output = tail.output ? tail.output->dtype : DType::F32;
  e.scale = all.scale.data();
  e.bias = all.bias.empty() ? nullptr : all.bias.data();
  e.float_bias = all.float_bias.empty() ? nullptr : all.float_bias.data();
  if (tail.bounds.kind == PostActivation::Clip) e.low = tail.bounds.low / unit, e.high = tail.bounds.high / unit;
  if (tail.output) {
    e.zero = tail.output->zero;
    if (!bias.wide.empty()) all.bias = narrowed(bias, all);
    if (!all.bias.empty()) e.bias = all.bias.data(), e.float_bias = nullptr, all.float_bias.clear();
  }
  if (tail.residual) {
    e.residual = true;
    e.residual_dtype = tail.residual->dtype;
    e.residual_zero = tail.residual->zero;
    e.ratio = tail.output->scale / tail.sum->scale;
    e.residual_ratio = tail.residual->scale / tail.sum->scale;
    e.zero2 = tail.sum->zero;
    if (tail.sum_bounds.kind == PostActivation::Clip) e.low2 = tail.sum_bounds.low / tail.sum->scale, e.high2 = tail.sum_bounds.high / tail.sum->scale;
  }
  if (tail.table) {
    all.table = tail.table->entries;
    e.table = all.table.data();
  }
}

}  // namespace infopt

// Before: operators on float32 values and constants. After: the same operators on float16 (bfloat16) ones, Casts where the two meet.
//
// Conditions, all decided in plan_float16: ONNX defines the operator for the type; neither its constants nor, where there is calibration
// data, its values come near the end of the type's range; it is no part of a mean of squares, no integer arithmetic on
// positions, and not quantized. Large constants of operators that stay in float32 are stored in 16 bits, a Cast behind them.
#include <algorithm>
#include <map>
#include <set>

#include "lib/onnx/infer.h"
#include "passes/pass.h"
#include "passes/support/patterns.h"
#include "passes/support/plan_float16.h"

namespace infopt {
namespace {

constexpr int64_t kLeastStored = 256;  ///< elements; a Cast takes about a hundred bytes itself

class Converter {
 public:
  Converter(GraphEdit& edit, Float16Plan plan, DType interface)
      : edit_(edit), graph_(edit.graph()), plan_(std::move(plan)), interface_(interface) {}

  void convert() {
    const std::vector<NodeId> order = graph_.order();
    const size_t values = graph_.value_capacity();
    for (size_t v = 0; v < values; ++v) find_constant_uses(static_cast<ValueId>(v));
    for (const auto& [v, uses] : constants_) convert_constant(v, uses);
    if (interface_ != DType::F32)
      for (ValueId v : std::vector(graph_.inputs())) convert_input(v);
    // In the graph's order: what a node reads has its new type, and readers to come still name the old value.
    for (NodeId id : order) {
      if (!graph_.alive(id)) continue;
      convert_inputs(id);
      convert_outputs(id);
    }
    if (interface_ != DType::F32) convert_graph_outputs();
    for (NodeId id : order)
      if (graph_.alive(id)) drop_idle_cast(id);
  }

 private:
  struct ConstantUses {
    std::vector<std::pair<Use, DType>> narrow;  ///< what computes in 16 bits, or stores in them
    bool wide = false;                          ///< something else reads it
    bool store = false;                         ///< and may do so through a Cast
  };
  DType compute(NodeId id) const {
    return static_cast<size_t>(id) < plan_.compute.size() ? plan_.compute[static_cast<size_t>(id)] : DType::Undefined;
  }
  DType wanted(const Use& use) const;
  bool narrow_input(const Node& n, size_t i) const {
    return compute(n.id) != DType::Undefined && plan_.ports[static_cast<size_t>(n.id)].inputs[i];
  }
  bool narrow_output(const Node& n, size_t i) const {
    return compute(n.id) != DType::Undefined && plan_.ports[static_cast<size_t>(n.id)].outputs[i];
  }
  DType stored(ValueId v) const;
  void find_constant_uses(ValueId v);
  void convert_constant(ValueId v, const ConstantUses& uses);
  void note_subnormals(ValueId v, DType type);
  void convert_input(ValueId v);
  void convert_inputs(NodeId id);
  void convert_outputs(NodeId id);
  void convert_graph_outputs();
  void drop_idle_cast(NodeId id);
  void set_dtype(ValueId v, DType type);
  void set_result_attribute(const Node& n, DType type);
  ValueId as(ValueId v, DType type);
  ValueId cast_to(ValueId v, DType type);

  GraphEdit& edit_;
  const Graph& graph_;
  Float16Plan plan_;
  DType interface_;  ///< of the model's inputs and outputs
  std::map<ValueId, ConstantUses> constants_;
  std::set<ValueId> converted_;  ///< inputs of the model that were float32
  std::map<std::pair<ValueId, DType>, ValueId> casts_;
};

void Converter::set_dtype(ValueId v, DType type) {
  Type t = graph_.value(v).type;
  t.dtype = type;
  edit_.set_type(v, t);
}

ValueId Converter::cast_to(ValueId v, DType type) {
  const ValueId y = edit_.add({.op = "Cast", .attributes = {{"to", static_cast<int64_t>(type), {}}}}, {v});
  Type t = graph_.value(v).type;
  if (const Tensor* constant = graph_.constant(v)) t = Type::tensor(type, constant->shape());
  t.dtype = type;
  edit_.set_type(y, t);
  return y;
}

/// The value in that type: itself, what it was cast from, or a Cast that all readers share.
ValueId Converter::as(ValueId v, DType type) {
  if (dtype_of_value(graph_, v) == type) return v;
  const auto it = casts_.find({v, type});
  if (it != casts_.end()) return it->second;
  ValueId y = kNone;
  const Node* p = graph_.producer(v);
  if (p && p->is("Cast") && dtype_of_value(graph_, p->input(0)) == type && type != DType::F32) y = p->input(0);
  if (y == kNone) y = cast_to(v, type);
  casts_[{v, type}] = y;
  return y;
}

/// The type that a reader of a float32 value takes it in; Undefined where any will do.
DType Converter::wanted(const Use& use) const {
  if (use.index == kGraphOutput) return interface_;
  if (use.index == kCapture) return DType::F32;
  const Node& n = graph_.node(use.node);
  const auto i = static_cast<size_t>(use.index);
  if (takes_any_type(n, i)) return DType::Undefined;
  return narrow_input(n, i) ? compute(n.id) : DType::F32;
}

/// The type that a large constant can be stored in for readers that want float32; Undefined for none.
DType Converter::stored(ValueId v) const {
  const Tensor& t = *graph_.constant(v);
  if (t.rank() < 2 || t.size() < kLeastStored) return DType::Undefined;
  DType type = DType::Undefined;
  for (const Use& u : graph_.value(v).uses) {
    if (u.index == kGraphOutput) return DType::Undefined;
    const DType asked = static_cast<size_t>(u.node) < plan_.store.size() ? plan_.store[static_cast<size_t>(u.node)] : DType::Undefined;
    if (asked == DType::Undefined || (type != DType::Undefined && asked != type)) return DType::Undefined;
    type = asked;
  }
  if (type == DType::Undefined) return type;
  const HalfFit fit = half_fit(t, type);
  return fit.overflows || !fit.faithful ? DType::Undefined : type;
}

void Converter::find_constant_uses(ValueId v) {
  if (!graph_.value_alive(v) || !graph_.constant(v) || dtype_of_value(graph_, v) != DType::F32) return;
  ConstantUses found;
  for (const Use& u : graph_.value(v).uses) {
    const DType type = wanted(u);
    if (type == DType::F32) found.wide = true;
    else if (type != DType::Undefined) found.narrow.emplace_back(u, type);
  }
  const DType storage = found.wide ? stored(v) : DType::Undefined;
  found.store = storage != DType::Undefined;
  if (found.store || !found.narrow.empty()) constants_.emplace(v, std::move(found));
}

void Converter::note_subnormals(ValueId v, DType type) {
  const Tensor& t = *graph_.constant(v);
  const HalfFit fit = half_fit(t, type);
  if (type == DType::F16 && t.size() >= kLeastStored && fit.subnormal > t.size() / 100)
    edit_.note(std::to_string(fit.subnormal) + " of the " + std::to_string(t.size()) + " elements of '" + graph_.value(v).name +
               "' are below float16's normal range and lose digits");
}

/// One copy for each 16-bit type; the constant itself changes where nothing else needs it.
void Converter::convert_constant(ValueId v, const ConstantUses& uses) {
  std::map<DType, ValueId> copies;
  const bool initializer = graph_.value(v).is_constant();
  const Tensor original = *graph_.constant(v);
  const DType storage = uses.store ? stored(v) : DType::Undefined;
  const DType first = uses.store ? storage : uses.narrow.front().second;
  note_subnormals(v, first);
  const auto copy = [&](DType type) {
    const auto [it, fresh] = copies.try_emplace(type, kNone);
    if (fresh) it->second = edit_.add_constant(cast(original, type));
    return it->second;
  };
  const std::vector<Use> now = graph_.value(v).uses;
  const bool captured = std::any_of(now.begin(), now.end(), [](const Use& u) { return u.index == kCapture; });
  const bool in_place = initializer && (!uses.wide || uses.store) && !captured;
  if (in_place) {
    edit_.set_constant(v, cast(original, first));
    set_dtype(v, first);
    copies[first] = v;
  }
  for (const auto& [use, type] : uses.narrow) {
    if (use.index == kGraphOutput) continue;  // convert_graph_outputs
    edit_.set_input(use.node, static_cast<size_t>(use.index), copy(type));
  }
  if (uses.store)
    for (const Use& u : now)
      if (u.index >= 0 && wanted(u) == DType::F32) edit_.set_input(u.node, static_cast<size_t>(u.index), as(copy(storage), DType::F32));
  if (uses.store && captured) edit_.replace_uses(v, as(copy(storage), DType::F32));  // bodies: they compute in float32
  if (!initializer) remove_unused(edit_, v);
}

/// The graph's input changes its type; readers in float32 get a Cast.
void Converter::convert_input(ValueId v) {
  const Value& input = graph_.value(v);
  if (input.type.dtype != DType::F32) return;
  const bool captured = std::any_of(input.uses.begin(), input.uses.end(), [](const Use& u) { return u.index == kCapture; });
  if (captured || plan_.wide[static_cast<size_t>(v)])
    return edit_.note("the input '" + input.name +
                      "' stays float32: " + (captured ? "a body reads it" : "it comes close to float16's largest number"));
  set_dtype(v, interface_);
  if (input.constant.defined()) edit_.set_constant(v, cast(input.constant, interface_));
  converted_.insert(v);
}

void Converter::convert_inputs(NodeId id) {
  for (size_t i = 0; i < graph_.node(id).inputs.size(); ++i) {
    const Node& n = graph_.node(id);
    const ValueId v = n.inputs[i];
    if (v == kNone) continue;
    const DType type = wanted({id, static_cast<int>(i)});
    if (type == DType::F32 ? converted_.contains(v) : type != DType::Undefined && type != dtype_of_value(graph_, v))
      edit_.set_input(id, i, as(v, type));
  }
}

void Converter::set_result_attribute(const Node& n, DType type) {
  if (n.is("Cast")) edit_.set_attribute(n.id, "to", static_cast<int64_t>(type));
  if (!n.is("ConstantOfShape")) return;
  const Tensor* value = n.get<Tensor>("value");
  edit_.set_attribute(n.id, "value", cast(value ? *value : Tensor::of<float>({1}, {0}), type));
}

/// The node makes a 16-bit value. Where something needs float32, a Cast makes the old value, name and all, of a new one.
void Converter::convert_outputs(NodeId id) {
  for (size_t i = 0; i < graph_.node(id).outputs.size(); ++i) {
    const Node& n = graph_.node(id);
    if (!narrow_output(n, i)) continue;
    const DType type = compute(id);
    const ValueId v = n.outputs[i];
    set_result_attribute(n, type);
    const auto& uses = graph_.value(v).uses;
    if (std::none_of(uses.begin(), uses.end(), [&](const Use& u) { return wanted(u) == DType::F32; })) {
      set_dtype(v, type);
      continue;
    }
    Type t = graph_.value(v).type;
    t.dtype = type;
    const ValueId narrow = edit_.add_value({}, t);
    edit_.replace_output(id, i, narrow);
    edit_.add_node({.op = "Cast", .attributes = {{"to", static_cast<int64_t>(DType::F32), {}}}}, {narrow}, {v});
  }
}

/// Outputs that are float32 still.
void Converter::convert_graph_outputs() {
  for (size_t i = 0; i < graph_.outputs().size(); ++i) {
    const ValueId v = graph_.outputs()[i];
    if (dtype_of_value(graph_, v) != DType::F32) continue;
    const Node* p = graph_.producer(v);
    if (plan_.wide[static_cast<size_t>(v)]) {
      edit_.note("the output '" + graph_.value(v).name + "' stays float32: it comes close to float16's largest number");
    } else if (!p) {
      const std::string name = graph_.value(v).name;
      const ValueId y = as(v, interface_);
      edit_.set_output(i, y);
      edit_.set_name(v, {});
      edit_.set_name(y, name);
    } else {
      const NodeId maker = p->id;
      const auto at = static_cast<size_t>(graph_.value(v).output_index);
      const ValueId wide = edit_.add_value({}, graph_.value(v).type);
      edit_.replace_output(maker, at, wide);
      for (const Use& u : std::vector(graph_.value(v).uses))
        if (u.index >= 0) edit_.set_input(u.node, static_cast<size_t>(u.index), wide);
      set_dtype(v, interface_);
      edit_.add_node({.op = "Cast", .attributes = {{"to", static_cast<int64_t>(interface_), {}}}}, {wide}, {v});
    }
  }
}

/// A Cast to the type that its input has, one that undoes an exact one, or one that nothing reads any more.
void Converter::drop_idle_cast(NodeId id) {
  const Node& n = graph_.node(id);
  if (!n.is("Cast") || n.outputs.empty() || n.outputs[0] == kNone) return;
  const ValueId y = n.outputs[0];
  if (graph_.value(y).uses.empty()) return remove_unused(edit_, y);
  const auto to = static_cast<DType>(n.i("to", 0));
  if (!is_float(to)) return;
  ValueId x = n.input(0);
  const Node* before = made_by(graph_, x, "Cast");
  if (dtype_of_value(graph_, x) == DType::F32 && bits_of(to) == 16 && before && dtype_of_value(graph_, before->input(0)) == to)
    x = before->input(0);
  if (dtype_of_value(graph_, x) == to && edit_.replaceable(y, x)) replace_and_remove(edit_, y, x);
}

void run(GraphEdit& edit, PassContext& context, const Options& options) {
  infer_types(context.model, true);
  const DType type = dtype_from_name(options.text("type"));
  Float16Plan plan = plan_float16(edit.graph(), context, type);
  for (const std::string& note : plan.notes) edit.note(note);
  const bool whole = context.groups.empty();
  Converter(edit, std::move(plan), whole && !options.flag("keep_io") ? type : DType::F32).convert();
}

}  // namespace

PassDef pass_convert_float16() {
  return {
      .name = "convert_float16",
      .summary = "weights and arithmetic in 16 bits, where they bear it",
      .contract = Contract::Lossy,
      .options =
          {
              {.name = "type",
               .help = "the 16-bit type; with groups, theirs",
               .otherwise = std::string("float16"),
               .choices = {"float16", "bfloat16"}},
              {.name = "keep_io", .help = "inputs and outputs of the model stay as they are", .otherwise = true},
          },
      .needs_opset = 13,
      .run = run,
  };
}

}  // namespace infopt

// Elementwise float32 nodes that feed one another, in one pass over memory: tile by tile, what is between them stays in cache. On a device
// with the QuantizeLinear behind them, too, where nobody else reads what it reads.
#include <algorithm>
#include <unordered_map>

#include "lib/base/error.h"
#include "lib/base/share.h"
#include "lib/ops/broadcast.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/fold.h"
#include "lib/runtime/fusions/code_end.h"
#include "lib/runtime/fusions/rules.h"
#include "lib/runtime/fusions/value_facts.h"

namespace infopt {
namespace {

constexpr int64_t kTile = 1024;
constexpr size_t kMostMembers = 24;
constexpr int64_t kLeastElements = 1 << 14;
constexpr size_t kMostDeviceInputs = 16;

/// One node of the chain. Operands count the chain's inputs first, then its members.
struct Member {
  NodeId node = kNone;
  std::shared_ptr<const Kernel> kernel;
  FloatMap map;              ///< of one operand
  BinaryLoop loop = nullptr; ///< of two
  std::vector<size_t> operands;
  std::vector<Tensor> constants = {};  ///< the inputs of the node behind its operands: Clip's bounds; undefined where left out
  size_t place = 0;          ///< the tile that its result is kept in
};

/// Where an operand's elements of one tile lie.
struct Source {
  const float* data = nullptr;
  int64_t row = 0, step = 0;
};

class ChainKernel : public Kernel {
 public:
  ChainKernel(const Graph& graph, std::vector<Member> members, size_t inputs) : graph_(graph), members_(std::move(members)), inputs_(inputs) { assign_places(); }

  void run(KernelContext& context) const override {
    Layout layout;
    bool floats = true;
    for (size_t i = 0; i < inputs_; ++i) floats = floats && context.in_any(i, layout).dtype() == DType::F32;
    if (!floats) return run_apart(context);
    Operands all = collect_operands(context, inputs_);
    // Members of a smaller shape than the result are computed once, not once for each place that they are repeated to.
    std::vector<Operand> operands = std::move(all.list);
    std::vector<Tensor> keep;
    std::vector<bool> small(members_.size());
    for (size_t m = 0; m < members_.size(); ++m) {
      Operand result{DType::F32, nullptr, operands[members_[m].operands[0]].shape};
      bool known = operands[members_[m].operands[0]].data;
      for (size_t k = 1; k < members_[m].operands.size(); ++k) {
        const Operand& o = operands[members_[m].operands[k]];
        result.shape = broadcast_shape(result.shape, o.shape);
        known = known && o.data;
      }
      if (known && m + 1 < members_.size() && element_count(result.shape) < element_count(all.physical)) {
        small[m] = true;
        keep.push_back(compute_small(members_[m], operands, result.shape));
        result.data = keep.back().raw();
      }
      operands.push_back(std::move(result));
    }
    size_t reusable = inputs_;
    for (size_t i = inputs_; i-- > 0;)
      if (operands[i].shape == all.physical) reusable = i;
    Tensor& y = reusable < inputs_ ? context.out_reusing(0, reusable, DType::F32, all.shape, all.layout) : context.out(0, DType::F32, all.shape, all.layout);
    if (y.size() > 0) run_tiles(operands, small, all.physical, y.mutable_data<float>());
  }

  ByItem by_item() const override { return ByItem::All; }
  std::string describe() const override { return "float32 chain of " + std::to_string(members_.size()) + " elementwise operators"; }

 private:
  void assign_places() {
    std::vector<size_t> last(members_.size(), 0);
    for (size_t m = 0; m < members_.size(); ++m)
      for (size_t o : members_[m].operands)
        if (o >= inputs_) last[o - inputs_] = m;
    std::vector<size_t> free;
    for (size_t m = 0; m < members_.size(); ++m) {
      // An operand's place may be taken at once: every loop reads an element before it writes it.
      for (size_t o : members_[m].operands)
        if (o >= inputs_ && last[o - inputs_] == m && std::find(free.begin(), free.end(), members_[o - inputs_].place) == free.end()) free.push_back(members_[o - inputs_].place);
      if (free.empty()) free.push_back(places_++);
      members_[m].place = free.back();
      free.pop_back();
    }
  }

  static Tensor compute_small(const Member& member, const std::vector<Operand>& operands, const Shape& shape) {
    Tensor y(DType::F32, shape);
    const Operand& a = operands[member.operands[0]];
    if (member.operands.size() == 1) member.map.f32(reinterpret_cast<const float*>(a.data), y.mutable_data<float>(), y.size(), member.map.a, member.map.b);
    else run_binary_loop(member.loop, a, operands[member.operands[1]], shape, y.mutable_raw(), DType::F32);
    return y;
  }

  void run_tiles(const std::vector<Operand>& operands, const std::vector<bool>& small, const Shape& result, float* y) const {
    std::vector<size_t> read;  // the operands that lie in memory
    std::vector<Shape> shapes;
    std::vector<size_t> slot(operands.size());
    for (size_t i = 0; i < operands.size(); ++i) {
      if (!operands[i].data) continue;
      slot[i] = read.size();
      read.push_back(i);
      shapes.push_back(operands[i].shape);
    }
    const Loops loops = plan_loops(result, shapes);
    const size_t depth = loops.sizes.size();
    const int64_t n = loops.sizes[depth - 1], rows = depth > 1 ? loops.sizes[depth - 2] : 1;
    int64_t outer = 1;
    for (size_t d = 0; d + 2 < depth; ++d) outer *= loops.sizes[d];
    const int64_t width = std::min(n, kTile), height = std::clamp<int64_t>(kTile / width, 1, rows);
    const int64_t across = (n + width - 1) / width, down = (rows + height - 1) / height, tiles = outer * down * across;
    share_work(tiles, std::max<int64_t>(1, kLeastElements / (width * height)), [&](int64_t begin, int64_t end) {
      std::vector<float> memory(places_ * static_cast<size_t>(kTile));
      std::vector<Source> sources(operands.size());
      for (int64_t t = begin; t < end; ++t) {
        const int64_t column = t % across * width, line = t / across % down * height, block = t / (across * down);
        BinaryRows shape;
        shape.n = std::min(width, n - column);
        shape.rows = std::min(height, rows - line);
        for (size_t r : read) {
          const auto& strides = loops.strides[slot[r]];
          int64_t at = column * strides[depth - 1] + (depth > 1 ? line * strides[depth - 2] : 0), rest = block;
          for (size_t d = depth - std::min<size_t>(depth, 2); d-- > 0; rest /= loops.sizes[d]) at += rest % loops.sizes[d] * strides[d];
          sources[r] = {reinterpret_cast<const float*>(operands[r].data) + at, depth > 1 ? strides[depth - 2] : 0, strides[depth - 1]};
        }
        run_tile(shape, small, sources, memory.data(), y + (block * rows + line) * n + column);
      }
    });
  }

  void run_tile(BinaryRows shape, const std::vector<bool>& small, std::vector<Source>& sources, float* memory, float* y) const {
    for (size_t m = 0; m < members_.size(); ++m) {
      if (small[m]) continue;
      const Member& member = members_[m];
      float* to = m + 1 == members_.size() ? y : memory + member.place * static_cast<size_t>(kTile);
      const Source& a = sources[member.operands[0]];
      if (member.operands.size() == 1) {
        member.map.f32(a.data, to, shape.rows * shape.n, member.map.a, member.map.b);
      } else {
        const Source& b = sources[member.operands[1]];
        shape.a_row = a.row, shape.a_step = a.step;
        shape.b_row = b.row, shape.b_step = b.step;
        member.loop(a.data, b.data, to, shape);
      }
      sources[inputs_ + m] = {to, shape.n, 1};
    }
  }

  /// Other element types: node by node.
  void run_apart(KernelContext& context) const {
    std::vector<Tensor> values;
    for (size_t i = 0; i < inputs_; ++i) values.push_back(context.in(i));
    for (const Member& member : members_) {
      const Node& node = graph_.node(member.node);
      std::vector<Tensor> inputs;
      for (size_t o : member.operands) inputs.push_back(values[o]);
      inputs.insert(inputs.end(), member.constants.begin(), member.constants.end());
      values.push_back(run_alone(*member.kernel, node, inputs).at(0));
    }
    context.set(0, values.back());
  }

  const Graph& graph_;
  std::vector<Member> members_;
  size_t inputs_, places_ = 0;
};

/// The node as a member, but for its operands; nothing where it is no elementwise function of one or two values.
std::optional<Member> as_member(PlanView& view, const Node& node, std::vector<ValueId>& operands) {
  if (!is_elementwise(node) || node.inputs.empty()) return std::nullopt;
  const DType declared = view.graph().value(node.outputs[0]).type.dtype;
  if (declared != DType::Undefined && declared != DType::F32) return std::nullopt;
  const int64_t version = view.opset("");
  const OpDef* op = find_op("", node.op, version);
  if (!op) return std::nullopt;
  Member member;
  member.node = node.id;
  try {
    member.kernel = op->cpu({view.graph(), node, version, {}, &view});
  } catch (const Error&) {
    return std::nullopt;
  }
  if (const FloatMap* map = member.kernel->as_map(); map && map->f32) {
    member.map = *map;
    operands = {node.inputs[0]};
    for (size_t i = 1; i < node.inputs.size(); ++i) {
      const Tensor* t = view.constant(node.inputs[i]);
      member.constants.push_back(t ? *t : Tensor());
    }
    return member;
  }
  const BinaryOp* binary = member.kernel->as_binary();
  if (!binary || binary->gives_bool || node.inputs.size() != 2 || node.inputs[0] == kNone || node.inputs[1] == kNone) return std::nullopt;
  member.loop = binary->loop(DType::F32);
  if (!member.loop) return std::nullopt;
  operands = node.inputs;
  return member;
}

bool is_small_float(DType t) { return t == DType::F32 || t == DType::F16 || t == DType::BF16; }

/// The value is float32 or a 16-bit float for sure, by its declared type or by those it is computed from.
bool holds_floats(PlanView& view, ValueId value, int depth = 24) {
  const DType declared = view.graph().value(value).type.dtype;
  if (declared != DType::Undefined) return is_small_float(declared);
  if (const Tensor* t = view.constant(value)) return is_small_float(t->dtype());
  if (is_float32(view, value)) return true;
  const Node* node = view.producer(value);
  if (!node || depth == 0) return false;
  const bool same = is_elementwise(*node) || node->is("MatMul") || node->is("Conv") || node->is("Gemm") || node->is("Reshape") || node->is("Transpose");
  return same && node->input(0) != kNone && holds_floats(view, node->input(0), depth - 1);
}

/// The same for a device, which makes its kernel from the node and takes 16-bit floats and powers too.
std::optional<Member> as_device_member(PlanView& view, const Node& node, std::vector<ValueId>& operands) {
  if (!is_elementwise(node) || node.inputs.empty() || node.is("Identity") || view.opset("") < 7 || !holds_floats(view, node.outputs[0])) return std::nullopt;
  Member member;
  member.node = node.id;
  for (const char* op : {"Add", "Sub", "Mul", "Div", "PRelu", "Sum", "Min", "Max", "Pow"}) {
    if (node.op != op) continue;
    if (node.inputs.size() != 2 || node.inputs[0] == kNone || node.inputs[1] == kNone) return std::nullopt;
    if (node.is("Pow"))
      if (const Tensor* t = view.constant(node.inputs[1]); !t || t->size() != 1) return std::nullopt;
    operands = node.inputs;
    return member;
  }
  operands = {node.inputs[0]};
  for (size_t i = 1; i < node.inputs.size(); ++i) {
    const Tensor* t = view.constant(node.inputs[i]);
    if (node.inputs[i] != kNone && (!t || t->size() != 1 || !is_small_float(t->dtype()))) return std::nullopt;
    member.constants.push_back(t ? *t : Tensor());
  }
  return member;
}

struct Link {
  Member member;
  std::vector<ValueId> operands;
};

/// What the links read and none of them makes.
std::vector<ValueId> inputs_of(const PlanView& view, const std::vector<Link>& links) {
  std::vector<ValueId> inputs;
  for (const Link& link : links)
    for (ValueId v : link.operands) {
      const bool made = std::any_of(links.begin(), links.end(), [&](const Link& l) { return view.graph().node(l.member.node).outputs[0] == v; });
      if (!made && std::find(inputs.begin(), inputs.end(), v) == inputs.end()) inputs.push_back(v);
    }
  return inputs;
}

std::unique_ptr<Kernel> make_device_chain(PlanView& view, const std::vector<Member>& members, const std::vector<ValueId>& inputs, const std::optional<CodeEnd>& codes) {
  FusedChain how;
  how.codes = codes;
  for (const Member& m : members) how.members.push_back({m.node, m.operands, m.constants});
  how.inputs = inputs.size();
  for (ValueId v : inputs) {
    const Tensor* t = view.constant(v);
    how.known.push_back(t ? *t : Tensor());
  }
  how.opset = view.opset("");
  return view.device()->chain(view.graph(), std::move(how));
}

/// The elementwise node whose float32 result, which nobody else reads, the node quantizes; null where there is none.
const Node* quantized_node(PlanView& view, const Node& node) {
  const Node* maker = view.only_for_one(node.input(0));
  return maker && is_elementwise(*maker) && is_float32(view, node.input(0)) && !view.constant(node.input(0)) && !view.taken(*maker) ? maker : nullptr;
}

}  // namespace

std::optional<FusedStep> fuse_chain(PlanView& view, const Node& asked) {
  const std::optional<CodeEnd> codes = view.device() ? code_end(view, asked) : std::nullopt;
  const Node* end = codes ? quantized_node(view, asked) : &asked;
  if (!end) return std::nullopt;
  const Node& last = *end;
  const auto as_link = [&](const Node& node, std::vector<ValueId>& operands) { return view.device() ? as_device_member(view, node, operands) : as_member(view, node, operands); };
  std::vector<Link> links(1);  // from the last node back
  std::vector<NodeId> inside{last.id};
  auto first = as_link(last, links[0].operands);
  if (!first) return std::nullopt;
  links[0].member = std::move(*first);
  for (bool grown = true; grown && links.size() < kMostMembers;) {
    grown = false;
    for (size_t l = 0; l < links.size() && !grown && links.size() < kMostMembers; ++l)
      for (size_t k = 0; k < links[l].operands.size() && !grown; ++k) {
        const ValueId value = links[l].operands[k];
        const Node* node = view.producer(value);
        if (!node || std::find(inside.begin(), inside.end(), node->id) != inside.end() || !view.hidden(value) || view.constant(value)) continue;
        const auto& uses = view.graph().value(value).uses;
        const bool ours = std::all_of(uses.begin(), uses.end(), [&](const Use& u) { return std::find(inside.begin(), inside.end(), u.node) != inside.end(); });
        if (!ours) continue;
        Link link;
        auto member = as_link(*node, link.operands);
        if (!member || view.taken(*node)) continue;
        link.member = std::move(*member);
        links.push_back(std::move(link));
        if (view.device() && inputs_of(view, links).size() > kMostDeviceInputs) {
          links.pop_back();
          continue;
        }
        inside.push_back(node->id);
        grown = true;
      }
  }
  if (links.size() < 2 && !codes) return std::nullopt;
  // In the graph's order, operands first.
  std::sort(links.begin(), links.end(), [&](const Link& a, const Link& b) { return view.position(a.member.node) < view.position(b.member.node); });
  FusedStep step;
  step.inputs = inputs_of(view, links);
  std::unordered_map<ValueId, size_t> made;
  for (size_t l = 0; l < links.size(); ++l) made[view.graph().node(links[l].member.node).outputs[0]] = l;
  std::vector<Member> members;
  for (Link& link : links) {
    for (ValueId v : link.operands) {
      const auto it = made.find(v);
      link.member.operands.push_back(it != made.end() ? step.inputs.size() + it->second : static_cast<size_t>(std::find(step.inputs.begin(), step.inputs.end(), v) - step.inputs.begin()));
    }
    step.covers.push_back(link.member.node);
    members.push_back(std::move(link.member));
  }
  if (view.device()) step.kernel = make_device_chain(view, members, step.inputs, codes);
  else step.kernel = std::make_unique<ChainKernel>(view.graph(), std::move(members), step.inputs.size());
  if (!step.kernel) return std::nullopt;
  return step;
}

}  // namespace infopt

#include "passes/support/remove_channels.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "lib/base/error.h"
#include "passes/support/dimension_rules.h"
#include "passes/support/patterns.h"
#include "passes/support/permute_channels.h"

namespace infopt {
namespace {

/// Constants that change along their axes, one change of a constant for all of its uses that change alike.
class Cutter {
 public:
  explicit Cutter(GraphEdit& edit) : edit_(edit), graph_(edit.graph()) {}

  struct Cut {
    int64_t axis = 0;
    std::vector<int64_t> from;      ///< where each new position is taken from
    std::vector<int> divided;       ///< by what; empty: by nothing
    auto operator<=>(const Cut&) const = default;
  };
  void add(const AxisUse& u, Cut cut) { inputs_[{u.node, u.input}].push_back(std::move(cut)); }

  void run() {
    std::map<std::pair<ValueId, std::vector<Cut>>, ValueId> made;
    for (auto& [place, cuts] : inputs_) {
      std::sort(cuts.begin(), cuts.end());
      const ValueId v = graph_.node(place.first).input(place.second);
      ValueId& now = made.emplace(std::pair(v, cuts), kNone).first->second;
      if (now == kNone) {
        Tensor t = *graph_.constant(v);
        for (const Cut& cut : cuts) {
          t = take_positions(t, cut.axis, cut.from);
          if (!cut.divided.empty()) t = divide(t, cut);
        }
        now = edit_.add_constant(t, name_for(v));
      }
      edit_.set_input(place.first, place.second, now);
    }
  }

 private:
  static Tensor divide(const Tensor& t, const Cut& cut) {
    if (!is_float(t.dtype())) throw Error(ErrorKind::Unsupported, "weights that aren't floats can't be divided");
    std::vector<double> values = to_vector<double>(t);
    size_t inner = 1;
    for (int64_t a = cut.axis + 1; a < t.rank(); ++a) inner *= static_cast<size_t>(t.dim(a));
    for (size_t i = 0; i < values.size(); ++i) values[i] /= cut.divided[i / inner % cut.divided.size()];
    return rounded(values, t.shape(), t.dtype());
  }

  /// The constant's own name where nothing else reads it.
  std::string name_for(ValueId v) {
    const std::string name = graph_.value(v).name;
    if (name.empty() || graph_.value(v).uses.size() != 1 || graph_.value(v).producer != kNone || graph_.value(v).graph_input) return {};
    edit_.set_name(v, {});
    return name;
  }

  GraphEdit& edit_;
  const Graph& graph_;
  std::map<std::pair<NodeId, size_t>, std::vector<Cut>> inputs_;
};

class Remover {
 public:
  Remover(GraphEdit& edit, const Dimensions& dimensions, const std::vector<int>& copies) : edit_(edit), graph_(edit.graph()), dimensions_(dimensions), copies_(copies), removal_(dimensions, copies) {}

  void run() {
    slice_constants();
    const std::vector<NodeId> nodes = graph_.order();
    std::vector<ValueId> shapes;
    for (NodeId id : nodes) {
      const Node& n = graph_.node(id);
      if (n.is("Shape") && removal_.touches(n.input(0))) shapes.push_back(n.outputs[0]);
      if (const DimensionRule* rule = find_dimension_rule(n); rule && rule->rewrite) rewrite(*rule, n);
    }
    for (ValueId v : shapes) keep_old_sizes(v);
    for (const auto& [at, atoms] : dimensions_.axes()) forget_shape(at.first);
  }

 private:
  void rewrite(const DimensionRule& rule, const Node& n) {
    const std::vector<ValueId> before = n.inputs;
    rule.rewrite(edit_, n.id, removal_);
    for (size_t i = 1; i < before.size(); ++i)
      if (before[i] != kNone && before[i] != graph_.node(n.id).input(i)) remove_unused(edit_, before[i]);
  }

  Cutter::Cut cut_of(const AxisUse& u) const {
    Cutter::Cut cut{u.axis, repeated_positions(u.atoms, dimensions_, copies_), {}};
    const auto more = [&](int64_t i) { return removal_.copies(u.atoms[static_cast<size_t>(i)]); };
    if (u.role == AxisRole::Reads && std::any_of(cut.from.begin(), cut.from.end(), [&](int64_t i) { return more(i) > 1; }))
      for (int64_t i : cut.from) cut.divided.push_back(more(i));
    return cut;
  }

  void slice_constants() {
    Cutter cutter(edit_);
    for (const AxisUse& u : dimensions_.uses())
      if (std::any_of(u.atoms.begin(), u.atoms.end(), [&](int32_t a) { return removal_.copies(a) != 1; })) cutter.add(u, cut_of(u));
    cutter.run();
  }

  /// What a Shape gives out where dimensions have shrunk: the sizes that they had, for whatever counts with them.
  void keep_old_sizes(ValueId v) {
    const Node* n = graph_.value_alive(v) ? graph_.producer(v) : nullptr;
    if (!n || !n->is("Shape") || graph_.value(v).uses.empty()) return;
    const int64_t rank = dimensions_.rank(n->input(0));
    const auto clamp = [&](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + rank : i, 0, rank); };
    std::vector<int64_t> sizes;
    std::vector<bool> mask;
    for (int64_t a = clamp(n->i("start", 0)); a < clamp(n->i("end", rank)); ++a) {
      const Positions* p = dimensions_.axis(n->input(0), a);
      mask.push_back(p && removal_.kept(*p) != static_cast<int64_t>(p->size()));
      sizes.push_back(mask.back() ? static_cast<int64_t>(p->size()) : 0);
    }
    std::vector<Use> readers;
    for (const Use& u : graph_.value(v).uses)
      if (u.index < 0 || !picks_others(graph_.node(u.node), mask)) readers.push_back(u);
    if (readers.empty()) return;
    Tensor flags(DType::Bool, {static_cast<int64_t>(mask.size())});
    std::copy(mask.begin(), mask.end(), flags.mutable_data<bool>());
    const ValueId mask_value = edit_.add_constant(flags), old = edit_.add_constant(Tensor::vector(sizes));
    const ValueId fixed = edit_.add({.op = "Where"}, {mask_value, old, v});
    edit_.replace_uses_except(v, fixed, graph_.value(fixed).producer);
  }
  bool picks_others(const Node& n, const std::vector<bool>& mask) const {
    const Tensor* index = n.is("Gather") ? graph_.constant(n.input(1)) : nullptr;
    if (!index) return false;
    for (int64_t i : to_vector<int64_t>(*index)) {
      const auto place = i < 0 ? i + static_cast<int64_t>(mask.size()) : i;
      if (place < 0 || place >= static_cast<int64_t>(mask.size()) || mask[static_cast<size_t>(place)]) return false;
    }
    return true;
  }

  void forget_shape(ValueId v) {
    if (!graph_.value_alive(v) || graph_.value(v).producer == kNone || !removal_.touches(v)) return;
    Type type = graph_.value(v).type;
    for (size_t a = 0; a < type.shape.size(); ++a)
      if (const Positions* p = dimensions_.axis(v, static_cast<int64_t>(a))) type.shape[a] = {removal_.kept(*p), {}};
    edit_.set_type(v, type);
  }

  GraphEdit& edit_;
  const Graph& graph_;
  const Dimensions& dimensions_;
  const std::vector<int>& copies_;
  Removal removal_;
};

}  // namespace

std::vector<int64_t> repeated_positions(const Positions& atoms, const Dimensions& dimensions, const std::vector<int>& copies) {
  std::vector<int64_t> from;
  for (size_t begin = 0, end = 0; begin < atoms.size(); begin = end) {
    const int32_t c = dimensions.find(atoms[begin]);
    while (end < atoms.size() && dimensions.find(atoms[end]) == c) ++end;
    for (int k = 0; k < copies[static_cast<size_t>(c)]; ++k)
      for (size_t i = begin; i < end; ++i) from.push_back(static_cast<int64_t>(i));
  }
  return from;
}

Tensor take_positions(const Tensor& t, int64_t axis, const std::vector<int64_t>& from) {
  if (bits_of(t.dtype()) < 8) return cast(take_positions(cast(t, DType::I8), axis, from), t.dtype());
  Shape shape = t.shape();
  shape[static_cast<size_t>(axis)] = static_cast<int64_t>(from.size());
  Tensor out(t.dtype(), shape);
  size_t inner = bits_of(t.dtype()) / 8, outer = 1;
  for (int64_t a = 0; a < t.rank(); ++a) (a < axis ? outer : inner) *= a == axis ? 1 : static_cast<size_t>(t.dim(a));
  const Tensor aligned = t.aligned_for_now();
  const std::byte* slab = aligned.raw();
  std::byte* to = out.mutable_raw();
  for (size_t o = 0; o < outer; ++o, slab += inner * static_cast<size_t>(t.dim(axis)))
    for (int64_t i : from) std::memcpy(to, slab + static_cast<size_t>(i) * inner, inner), to += inner;
  return out;
}

void permute_channels(GraphEdit& edit, const Dimensions& dimensions, const std::vector<int32_t>& moved) {
  Cutter cutter(edit);
  std::set<ValueId> old;
  for (const AxisUse& u : dimensions.uses()) {
    std::map<int32_t, std::vector<int64_t>> places;  // of each class, in their order
    for (size_t i = 0; i < u.atoms.size(); ++i) places[dimensions.find(u.atoms[i])].push_back(static_cast<int64_t>(i));
    std::vector<int64_t> from(u.atoms.size());
    for (const auto& [c, mine] : places) {
      const std::vector<int64_t>& to = places.at(moved[static_cast<size_t>(c)]);
      for (size_t i = 0; i < mine.size(); ++i) from[static_cast<size_t>(to[i])] = mine[i];
    }
    if (std::is_sorted(from.begin(), from.end())) continue;
    old.insert(edit.graph().node(u.node).input(u.input));
    cutter.add(u, {u.axis, std::move(from), {}});
  }
  cutter.run();
  for (const ValueId v : old) {
    const Value& value = edit.graph().value(v);
    if (value.uses.empty() && value.producer == kNone && !value.graph_input) edit.remove_value(v);
  }
}

void repeat_channels(GraphEdit& edit, const Dimensions& dimensions, const std::vector<int>& copies) { Remover(edit, dimensions, copies).run(); }

void remove_channels(GraphEdit& edit, const Dimensions& dimensions, const std::vector<bool>& gone) {
  std::vector<int> copies;
  for (bool g : gone) copies.push_back(g ? 0 : 1);
  repeat_channels(edit, dimensions, copies);
}

}  // namespace infopt

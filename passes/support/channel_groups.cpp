#include "passes/support/channel_groups.h"

#include <algorithm>
#include <map>
#include <set>

namespace infopt {

std::string_view name_of(GroupKind kind) {
  switch (kind) {
    case GroupKind::Channels: return "channels";
    case GroupKind::Neurons: return "neurons";
    case GroupKind::Heads: return "heads";
    case GroupKind::Width: return "width";
  }
  return "";
}

ChannelGroups::ChannelGroups(const Dimensions& dimensions) : dimensions_(dimensions), group_of_(static_cast<size_t>(dimensions.atoms()), -1) {
  const auto& uses = dimensions.uses();
  std::map<int32_t, std::vector<size_t>> makers;  // by class
  std::vector<int32_t> order;
  for (size_t u = 0; u < uses.size(); ++u) {
    if (uses[u].role != AxisRole::Makes) continue;
    positions_ += static_cast<int64_t>(uses[u].atoms.size());
    std::map<std::string, size_t> reasons;
    for (int32_t atom : uses[u].atoms) {
      const int32_t c = dimensions.find(atom);
      std::vector<size_t>& list = makers[c];
      if (list.empty()) order.push_back(c);
      if (list.empty() || list.back() != u) list.push_back(u);
      const Lock* lock = dimensions.locked(c);
      if (!lock) continue;
      const auto [it, added] = reasons.emplace(lock->reason, locked_.size());
      if (added) locked_.push_back({uses[u].node, 0, *lock});
      ++locked_[it->second].positions;
    }
  }
  std::map<std::vector<size_t>, size_t> known;
  for (int32_t c : order) {
    if (dimensions.locked(c)) continue;
    const auto [it, added] = known.emplace(makers[c], groups_.size());
    if (added) {
      ChannelGroup g;
      g.makers = makers[c];
      g.node = uses[g.makers[0]].node;
      const Node& n = dimensions.graph().node(g.node);
      g.kind = dimensions.is_width(c) ? GroupKind::Width : dimensions.is_head(c) ? GroupKind::Heads : n.is("Conv") || n.is("ConvTranspose") ? GroupKind::Channels : GroupKind::Neurons;
      groups_.push_back(g);
    }
    groups_[it->second].classes.push_back(c);
    group_of_[static_cast<size_t>(c)] = static_cast<int>(it->second);
  }
  for (ChannelGroup& g : groups_) {
    const Positions& first = uses[g.makers[0]].atoms;
    g.width = std::max<int64_t>(1, std::count_if(first.begin(), first.end(), [&](int32_t a) { return dimensions.find(a) == g.classes[0]; }));
  }
  for (size_t u = 0; u < uses.size(); ++u) {
    std::set<int> met;
    for (int32_t atom : uses[u].atoms)
      if (const int g = group_of(atom); g >= 0 && uses[u].role == AxisRole::Reads && met.insert(g).second) groups_[static_cast<size_t>(g)].readers.push_back(u);
  }
}

int64_t ChannelGroups::impossible() const {
  int64_t count = 0;
  for (const LockedChannels& l : locked_) count += l.lock.output ? 0 : l.positions;
  return count;
}

int ChannelGroups::group_of(int32_t atom) const { return group_of_[static_cast<size_t>(dimensions_.find(atom))]; }

RemovalCosts::RemovalCosts(const Dimensions& dimensions, const GraphCosts& costs, Unit unit, std::vector<double> weights, int64_t at_once) : dimensions_(&dimensions), places_(static_cast<size_t>(dimensions.atoms())), at_once_(at_once) {
  const Graph& graph = dimensions.graph();
  if (unit == Unit::Macs || unit == Unit::Time) {
    for (NodeId id : graph.order()) {
      const Node& n = graph.node(id);
      const auto cost = std::find_if(costs.nodes.begin(), costs.nodes.end(), [&](const CountedNode& c) { return c.node == id; });
      Term t{unit == Unit::Time ? weights[static_cast<size_t>(id)] : cost == costs.nodes.end() ? 0 : static_cast<double>(cost->macs), {}};
      if (t.cost <= 0) continue;
      for (int64_t a = 0; !n.outputs.empty() && a < dimensions.rank(n.outputs[0]); ++a)
        if (const Positions* p = dimensions.axis(n.outputs[0], a)) t.axes.push_back(axis_of(*p));
      bool reads = false;
      for (const AxisUse& u : dimensions.uses())
        if (u.node == id && u.role == AxisRole::Reads) t.axes.push_back(axis_of(u.atoms)), reads = true;
      if (!reads && (n.is("MatMul") || n.is("Gemm")))
        if (const Positions* p = dimensions.axis(n.input(0), dimensions.rank(n.input(0)) - 1)) t.axes.push_back(axis_of(*p));
      terms_.push_back(t);
    }
    if (unit == Unit::Macs) add_rest(static_cast<double>(costs.macs));  // bodies of control flow
  } else {
    std::map<std::pair<NodeId, size_t>, std::vector<size_t>> inputs;
    for (const AxisUse& u : dimensions.uses()) {
      const bool code_scale = graph.node(u.node).is("DequantizeLinear") && u.input > 0;
      if (unit == Unit::Bytes || !code_scale) inputs[{u.node, u.input}].push_back(axis_of(u.atoms));
    }
    std::set<ValueId> met;
    for (const auto& [place, axes] : inputs) {
      const ValueId v = graph.node(place.first).input(place.second);
      const Tensor& t = *graph.constant(v);
      if (met.insert(v).second) terms_.push_back({static_cast<double>(unit == Unit::Bytes ? static_cast<int64_t>(t.bytes()) : t.size()), axes});
    }
    add_rest(static_cast<double>(unit == Unit::Bytes ? costs.parameter_bytes : costs.parameters));
  }
  terms_of_axis_.resize(axes_.size());
  for (size_t t = 0; t < terms_.size(); ++t) {
    std::set<size_t> met;
    for (size_t a : terms_[t].axes)
      if (met.insert(a).second) terms_of_axis_[a].push_back(t);
    total_ += value(terms_[t]);
  }
}

void RemovalCosts::add_rest(double total) {
  for (const Term& t : terms_) total -= t.cost;
  terms_.push_back({std::max(0.0, total), {}});
}

size_t RemovalCosts::axis_of(const Positions& atoms) {
  Axis axis;
  for (int32_t a : atoms) axis.classes.push_back(dimensions_->find(a));
  axis.kept = static_cast<int64_t>(atoms.size());
  const auto [it, added] = known_.emplace(axis.classes, axes_.size());
  if (!added) return it->second;
  std::map<int32_t, int64_t> count;
  for (int32_t c : axis.classes) ++count[c];
  for (const auto& [c, n] : count) places_[static_cast<size_t>(c)].emplace_back(axes_.size(), n);
  axes_.push_back(std::move(axis));
  return it->second;
}

double RemovalCosts::value(const Term& t) const {
  const auto counted = [this](int64_t channels) { return static_cast<double>((channels + at_once_ - 1) / at_once_); };
  double v = t.cost;
  for (size_t a : t.axes) v *= counted(axes_[a].kept) / counted(static_cast<int64_t>(axes_[a].classes.size()));
  return v;
}

void RemovalCosts::change(const std::vector<int32_t>& classes, int64_t by, std::vector<size_t>& touched) const {
  for (int32_t c : classes)
    for (const auto& [axis, count] : places_[static_cast<size_t>(c)]) {
      axes_[axis].kept += by * count;
      touched.push_back(axis);
    }
}

double RemovalCosts::saving(const std::vector<int32_t>& classes) const {
  std::vector<size_t> touched, back;
  std::set<size_t> terms;
  change(classes, -1, touched);
  for (size_t a : touched) terms.insert(terms_of_axis_[a].begin(), terms_of_axis_[a].end());
  double after = 0, before = 0;
  for (size_t t : terms) after += value(terms_[t]);
  change(classes, 1, back);
  for (size_t t : terms) before += value(terms_[t]);
  return before - after;
}

void RemovalCosts::remove(const std::vector<int32_t>& classes) {
  total_ -= saving(classes);
  std::vector<size_t> touched;
  change(classes, -1, touched);
}

void RemovalCosts::restore(const std::vector<int32_t>& classes) {
  std::vector<size_t> touched;
  change(classes, 1, touched);
  total_ += saving(classes);
}

}  // namespace infopt

// Concat, Split, Slice and Pad: parts of an axis.
#include <algorithm>
#include <numeric>

#include "passes/support/dimension_rules.h"

namespace infopt {
namespace {

size_t at(int64_t i) { return static_cast<size_t>(i); }

void write_integers(GraphEdit& edit, NodeId id, size_t input, const char* attribute, const std::vector<int64_t>& values) {
  const ValueId v = edit.graph().node(id).input(input);
  if (v == kNone) edit.set_attribute(id, attribute, values);
  else edit.set_input(id, input, edit.add_constant(cast(Tensor::vector(values), edit.graph().constant(v)->dtype())));
}

void link_concat(Dimensions& d, const Node& n) {
  const int64_t rank = d.rank(n.outputs[0]) >= 0 ? d.rank(n.outputs[0]) : d.rank(n.input(0)), given = n.i("axis", 1), axis = given < 0 ? given + rank : given;
  for (int64_t a = 0; a < rank; ++a) {
    const auto first = std::find_if(n.inputs.begin(), n.inputs.end(), [&](ValueId v) { return d.axis(v, a); });
    if (first == n.inputs.end()) continue;
    Positions out;
    for (size_t i = 0; i < n.inputs.size(); ++i) {
      const ValueId v = n.inputs[i];
      if (a != axis) {
        if (out.empty()) out = *d.axis(*first, a);
        d.tie(n, i, a, AxisRole::Follows, out);
      } else if (const Positions* p = d.axis(v, a)) {
        out.insert(out.end(), p->begin(), p->end());
      } else {  // stays whole
        const int64_t size = d.size(v, a);
        if (size < 0) return d.lock_inputs(n, "a part's size isn't known");
        const Positions fixed = d.fresh(size);
        d.lock(fixed, n.id, "a part that isn't made by weights");
        out.insert(out.end(), fixed.begin(), fixed.end());
      }
    }
    d.set(n.outputs[0], a, out);
  }
}

/// Where each output's part of the axis begins, and the end; empty where it isn't known.
std::vector<int64_t> parts_of(const Dimensions& d, const Node& n, int64_t size) {
  std::vector<int64_t> begins{0};
  const auto count = static_cast<int64_t>(n.outputs.size());
  if (n.input(1) != kNone || n.find("split")) {
    const auto sizes = integers(d, n, 1, "split");
    if (!sizes || static_cast<int64_t>(sizes->size()) != count) return {};
    for (int64_t s : *sizes) begins.push_back(begins.back() + s);
  } else {
    const int64_t each = (size + count - 1) / count;
    for (int64_t i = 0; i < count; ++i) begins.push_back(std::min(size, begins.back() + each));
  }
  return begins.back() == size ? begins : std::vector<int64_t>{};
}

int64_t split_axis(const Dimensions& d, const Node& n) {
  const int64_t given = n.i("axis", 0);
  return given < 0 ? given + d.rank(n.input(0)) : given;
}

void link_split(Dimensions& d, const Node& n) {
  const int64_t axis = split_axis(d, n);
  for (int64_t a = 0; a < d.rank(n.input(0)); ++a) {
    const Positions* p = d.axis(n.input(0), a);
    if (!p) continue;
    const Positions atoms = *p;
    const std::vector<int64_t> begins = a == axis ? parts_of(d, n, static_cast<int64_t>(atoms.size())) : std::vector<int64_t>{};
    if (a == axis && begins.empty()) d.lock(atoms, n.id, "the parts' sizes aren't known");
    for (size_t i = 0; i < n.outputs.size(); ++i) {
      if (a != axis) d.set(n.outputs[i], a, atoms);
      else if (!begins.empty()) d.set(n.outputs[i], a, Positions(atoms.begin() + begins[i], atoms.begin() + begins[i + 1]));
    }
  }
}

void rewrite_split(GraphEdit& edit, NodeId id, const Removal& removal) {
  const Dimensions& d = removal.dimensions();
  const Node n = edit.graph().node(id);
  const Positions* p = d.axis(n.input(0), split_axis(d, n));
  if (!p || removal.kept(*p) == static_cast<int64_t>(p->size())) return;
  const std::vector<int64_t> begins = parts_of(d, n, static_cast<int64_t>(p->size()));
  std::vector<int64_t> sizes;
  for (size_t i = 0; i < n.outputs.size(); ++i) sizes.push_back(removal.kept(*p, begins[i], begins[i + 1]));
  edit.remove_attribute(id, "num_outputs");
  if (edit.graph().opset() < 13) edit.set_attribute(id, "split", sizes);
  else edit.set_input(id, 1, edit.add_constant(Tensor::vector(sizes)));
}

/// Begin, end and step of a slice along each axis; step 0 where the axis is whole. Empty where they aren't constant.
struct Cut { int64_t begin = 0, end = 0, step = 0; size_t place = 0; };
std::optional<std::vector<Cut>> cuts_of(const Dimensions& d, const Node& n) {
  const int64_t rank = d.rank(n.input(0));
  const bool old = n.find("starts") != nullptr;
  const auto starts = integers(d, n, 1, "starts"), ends = integers(d, n, 2, "ends");
  std::optional<std::vector<int64_t>> axes = integers(d, n, 3, "axes"), steps = integers(d, n, 4, "steps");
  if (!old && ((n.input(3) != kNone && !axes) || (n.input(4) != kNone && !steps))) return std::nullopt;
  std::vector<Cut> cuts(at(std::max<int64_t>(rank, 0)));
  if (!axes) {
    axes.emplace(starts ? starts->size() : ends ? ends->size() : at(rank));
    std::iota(axes->begin(), axes->end(), 0);
  }
  for (size_t i = 0; i < axes->size(); ++i) {
    const int64_t a = (*axes)[i] < 0 ? (*axes)[i] + rank : (*axes)[i];
    if (a < 0 || a >= rank) return std::nullopt;
    Cut& c = cuts[at(a)];
    c.place = i;
    if (!starts || !ends || starts->size() <= i || ends->size() <= i) {
      c.step = -1;  // unknown
      continue;
    }
    c.step = steps && steps->size() > i ? (*steps)[i] : 1;
    const int64_t size = d.size(n.input(0), a);
    const auto bound = [&](int64_t v) { return std::clamp<int64_t>(v < 0 ? v + size : v, 0, std::max<int64_t>(size, 0)); };
    c.begin = bound((*starts)[i]), c.end = bound((*ends)[i]);
  }
  return cuts;
}

void link_slice(Dimensions& d, const Node& n) {
  const auto cuts = cuts_of(d, n);
  if (!cuts) return d.lock_inputs(n, "its axes aren't constant");
  for (int64_t a = 0; a < d.rank(n.input(0)); ++a) {
    const Positions* p = d.axis(n.input(0), a);
    if (!p) continue;
    const Cut& c = (*cuts)[at(a)];
    if (c.step == 0) d.set(n.outputs[0], a, *p);
    else if (c.step != 1 || c.begin >= c.end) d.lock(*p, n.id, "single channels are picked from it");
    else d.set(n.outputs[0], a, Positions(p->begin() + c.begin, p->begin() + c.end));
  }
}

void rewrite_slice(GraphEdit& edit, NodeId id, const Removal& removal) {
  const Dimensions& d = removal.dimensions();
  const Node n = edit.graph().node(id);
  if (!removal.touches(n.input(0))) return;
  const auto cuts = cuts_of(d, n);
  auto starts = integers(d, n, 1, "starts"), ends = integers(d, n, 2, "ends");
  if (!cuts || !starts || !ends) return;  // none of its own axes shrinks
  for (int64_t a = 0; a < d.rank(n.input(0)); ++a) {
    const Positions* p = d.axis(n.input(0), a);
    const Cut& c = (*cuts)[at(a)];
    if (!p || c.step != 1) continue;
    (*starts)[c.place] = removal.kept(*p, 0, c.begin);
    (*ends)[c.place] = removal.kept(*p, 0, c.end);
  }
  write_integers(edit, id, 1, "starts", *starts);
  write_integers(edit, id, 2, "ends", *ends);
}

/// The pads before and behind each axis, and where they stand in the list.
std::optional<std::vector<int64_t>> pads_of(const Dimensions& d, const Node& n) {
  const int64_t rank = d.rank(n.input(0));
  const auto pads = integers(d, n, 1, "pads");
  if (!pads || rank < 0) return std::nullopt;
  std::vector<int64_t> axes(at(rank)), all(at(2 * rank), 0);
  std::iota(axes.begin(), axes.end(), 0);
  if (n.input(3) != kNone) {
    const auto given = integers(d, n, 3, "axes");
    if (!given) return std::nullopt;
    axes = *given;
  }
  if (pads->size() != 2 * axes.size()) return std::nullopt;
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t a = axes[i] < 0 ? axes[i] + rank : axes[i];
    if (a < 0 || a >= rank) return std::nullopt;
    all[at(a)] = (*pads)[i], all[at(a + rank)] = (*pads)[i + axes.size()];
  }
  return all;
}

/// Channels that are added are constant, and may go like others.
void link_pad(Dimensions& d, const Node& n) {
  const auto pads = pads_of(d, n);
  const int64_t rank = d.rank(n.input(0));
  if (!pads) return d.lock_inputs(n, "its pads aren't constant");
  for (int64_t a = 0; a < rank; ++a) {
    const Positions* p = d.axis(n.input(0), a);
    if (!p) continue;
    const int64_t before = (*pads)[at(a)], behind = (*pads)[at(a + rank)];
    if (before < 0 || behind < 0 || ((before || behind) && n.s("mode", "constant") != "constant")) {
      d.lock(*p, n.id, "it is padded with itself");
      continue;
    }
    Positions out = d.fresh(before);
    out.insert(out.end(), p->begin(), p->end());
    const Positions more = d.fresh(behind);
    out.insert(out.end(), more.begin(), more.end());
    d.set(n.outputs[0], a, out);
  }
}

void rewrite_pad(GraphEdit& edit, NodeId id, const Removal& removal) {
  const Dimensions& d = removal.dimensions();
  const Node n = edit.graph().node(id);
  const int64_t rank = d.rank(n.input(0));
  const auto old = pads_of(d, n);
  if (!old || !removal.touches(n.outputs[0])) return;
  std::vector<int64_t> pads = *old;
  for (int64_t a = 0; a < rank; ++a) {
    const Positions* out = d.axis(n.outputs[0], a);
    if (!out) continue;
    const auto size = static_cast<int64_t>(out->size());
    pads[at(a)] = removal.kept(*out, 0, (*old)[at(a)]);
    pads[at(a + rank)] = removal.kept(*out, size - (*old)[at(a + rank)], size);
  }
  if (pads == *old) return;
  if (n.input(3) != kNone) edit.set_input(id, 3, kNone);
  write_integers(edit, id, 1, "pads", pads);
}
}  // namespace

std::vector<DimensionRule> part_dimension_rules() {
  return {
      {{"Concat"}, link_concat},
      {{"Split"}, link_split, rewrite_split},
      {{"Slice"}, link_slice, rewrite_slice},
      {{"Pad"}, link_pad, rewrite_pad},
  };
}

}  // namespace infopt

#include <algorithm>

#include "passes/support/dimension_rules.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

size_t at(int64_t i) { return static_cast<size_t>(i); }

/// A shape input: the numbers, and where there is none the element of what was there.
void write_shape(GraphEdit& edit, NodeId id, size_t input, const std::vector<std::optional<int64_t>>& elements) {
  std::vector<ValueId> parts;
  std::vector<int64_t> run;
  const ValueId before = edit.graph().node(id).input(input);
  const auto flush = [&] {
    if (!run.empty()) parts.push_back(edit.add_constant(Tensor::vector(run)));
    run.clear();
  };
  for (size_t i = 0; i < elements.size(); ++i) {
    if (elements[i]) {
      run.push_back(*elements[i]);
      continue;
    }
    flush();
    parts.push_back(edit.add({.op = "Gather"}, {before, edit.add_constant(Tensor::vector(std::vector<int64_t>{static_cast<int64_t>(i)}))}, id));
  }
  flush();
  edit.set_input(id, input, parts.size() == 1 ? parts[0] : edit.add({.op = "Concat", .attributes = {{"axis", int64_t{0}, {}}}}, parts, id));
}

void link_transpose(Dimensions& d, const Node& n) {
  const int64_t rank = d.rank(n.input(0));
  std::vector<int64_t> perm = n.ints("perm"), to(at(std::max<int64_t>(rank, 0)));
  if (perm.empty())
    for (int64_t i = rank; i-- > 0;) perm.push_back(i);
  if (static_cast<int64_t>(perm.size()) != rank) return d.lock_inputs(n, "its permutation has another rank");
  for (int64_t i = 0; i < rank; ++i) to[at(std::clamp<int64_t>(perm[at(i)], 0, rank - 1))] = i;
  pass_axes(d, n, n.input(0), n.outputs[0], to);
}

void link_squeeze(Dimensions& d, const Node& n) {
  const bool adds = n.op == "Unsqueeze";
  const auto axes = axes_of(d.graph(), n, 1);
  const int64_t rank = d.rank(n.input(0)), full = rank + (adds && axes ? static_cast<int64_t>(axes->size()) : 0);
  if (!axes || rank < 0) return d.lock_inputs(n, "its axes aren't constant");
  std::vector<bool> one(at(full), false);
  for (int64_t a : *axes)
    if (a >= -full && a < full) one[at(a < 0 ? a + full : a)] = true;
  std::vector<int64_t> to(at(rank), -1);
  int64_t own = 0, given = 0;
  for (int64_t a = 0; a < full; ++a) {
    if (adds && !one[at(a)] && own < rank) to[at(own++)] = a;
    if (!adds && !one[at(a)]) to[at(a)] = given++;
  }
  pass_axes(d, n, n.input(0), n.outputs[0], to);
}

/// Of the axes that one axis is split into, the one whose positions go: the first, but not a small factor that holds queries, keys and values side by
/// side, and not the last, which is what a head or a group holds.
int64_t chosen_axis(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> able;
  for (size_t i = 0; i < sizes.size(); ++i)
    if (sizes[i] != 1) able.push_back(static_cast<int64_t>(i));
  if (able.empty()) return 0;
  if (able.size() > 2) {
    able.pop_back();
    const auto large = std::find_if(able.begin(), able.end(), [&](int64_t i) { return sizes[at(i)] > 3; });
    return large == able.end() ? able.back() : *large;
  }
  return able[0];
}

/// x's axes [a0, a1) become y's [b0, b1), element after element.
void tie_segment(Dimensions& d, const Node& n, int64_t a0, int64_t a1, int64_t b0, int64_t b1) {
  const ValueId x = n.input(0), y = n.outputs[0];
  int64_t along = -1, outer = 1, inner = 1, tracked = 0;
  for (int64_t a = a0; a < a1; ++a)
    if (d.axis(x, a)) along = a, ++tracked;
  if (tracked == 0) return;
  const Positions atoms = *d.axis(x, along);
  const auto give_up = [&](const std::string& why) {
    for (int64_t a = a0; a < a1; ++a)
      if (const Positions* p = d.axis(x, a)) d.lock(*p, n.id, why);
  };
  if (tracked > 1) return give_up("two axes that shrink become one");
  std::vector<int64_t> sizes;
  for (int64_t b = b0; b < b1; ++b) sizes.push_back(d.size(y, b));
  const bool alone = std::count_if(sizes.begin(), sizes.end(), [](int64_t s) { return s != 1; }) <= 1;
  for (int64_t a = a0; a < a1; ++a) {
    if (a < along) outer = d.size(x, a) < 0 ? -1 : outer * d.size(x, a);
    if (a > along) inner = inner < 0 || d.size(x, a) < 0 ? -1 : inner * d.size(x, a);
  }
  const int64_t count = static_cast<int64_t>(atoms.size());
  int64_t target = b0;
  for (int64_t b = b0; b < b1; ++b)
    if (sizes[at(b - b0)] != 1) target = b;
  if (alone && outer > 0) {
    const int64_t whole = d.size(y, target);
    if (inner < 0 && whole > 0 && whole % (outer * count) == 0) inner = whole / (outer * count);
    if (inner < 1 || outer * count * inner != whole) return give_up("the shape that it becomes isn't known");
    Positions out;
    for (int64_t o = 0; o < outer; ++o)
      for (int32_t atom : atoms) out.insert(out.end(), at(inner), atom);
    return d.set(y, target, out);
  }
  if (count == 1) return;
  if (outer != 1) {  // places side by side become one place with the channels of all of them
    const int64_t whole = sizes.back();
    if (inner != 1 || whole < count || whole % count != 0) return give_up("it is taken apart inside");
    Positions out;
    for (int64_t k = 0; k < whole / count; ++k) out.insert(out.end(), atoms.begin(), atoms.end());
    return d.set(y, b1 - 1, out);
  }
  target = b0 + (a1 - a0 == 1 || inner == 1 ? chosen_axis(sizes) : 0);
  while (target + 1 < b1 && d.size(y, target) == 1) ++target;
  const int64_t size = d.size(y, target);
  int64_t before = 1, within = 1;  // of the axes beside it
  for (int64_t b = b0; b < b1; ++b) {
    if (b < target) before *= d.size(y, b);
    if (b > target) within = within < 0 || d.size(y, b) < 0 ? -1 : within * d.size(y, b);
  }
  if (size < 1 || before < 1) return give_up("the shape that it becomes isn't known");
  Positions out;
  if (inner == 1 && count % (size * before) == 0) {  // split: a block of channels for each position
    const int64_t each = count / (size * before);
    for (int64_t k = 0; k < size; ++k) {
      out.push_back(atoms[at(k * each)]);
      for (int64_t o = 0; o < before; ++o)
        for (int64_t i = 0; i < each; ++i) d.join(out.back(), atoms[at((o * size + k) * each + i)]);
    }
  } else if (before == 1 && count % size == 0) {
    for (int64_t c = 0; c < count; ++c) {
      if (c % (count / size) == 0) out.push_back(atoms[at(c)]);
      d.join(out.back(), atoms[at(c)]);
    }
  } else if (before == 1 && size % count == 0) {
    for (int32_t atom : atoms) out.insert(out.end(), at(size / count), atom);
  } else {
    return give_up("it is cut across channels");
  }
  d.set(y, target, out);
}

/// Segments of axes that hold the same elements, from the right while sizes are known, then from the left.
void tie_reshaped(Dimensions& d, const Node& n) {
  const ValueId x = n.input(0), y = n.outputs[0];
  const int64_t ra = d.rank(x), rb = d.rank(y);
  if (ra < 0 || rb < 0) return d.lock_inputs(n, "its shape isn't known");
  int64_t left = 0;
  const Tensor* shape = n.is("Reshape") ? d.graph().constant(n.input(1)) : nullptr;
  const std::vector<int64_t> wanted = shape ? to_vector<int64_t>(*shape) : std::vector<int64_t>{};
  const auto same = [&](int64_t i) {
    if (static_cast<int64_t>(wanted.size()) > i && wanted[at(i)] == 0 && n.i("allowzero", 0) == 0) return true;
    return d.same_size(x, i, y, i) && (i == 0 || d.axis(x, i) || d.size(x, i) == d.size(y, i));
  };
  int64_t ea = ra, eb = rb;
  while (ea > 0 && eb > 0) {
    int64_t i = ea - 1, j = eb - 1, p = d.size(x, i), q = d.size(y, j);
    while (p >= 0 && q >= 0 && p != q && (p < q ? i > 0 : j > 0)) {
      if (p < q) p = d.size(x, --i) < 0 ? -1 : p * d.size(x, i);
      else q = d.size(y, --j) < 0 ? -1 : q * d.size(y, j);
    }
    if (p < 0 || p != q) break;
    tie_segment(d, n, i, ea, j, eb);
    ea = i, eb = j;
  }
  while (left < ea && left < eb && same(left)) {
    tie_segment(d, n, left, left + 1, left, left + 1);
    ++left;
  }
  if (left < ea && left < eb) return tie_segment(d, n, left, ea, left, eb);
  for (int64_t a = left; a < ea; ++a)
    if (const Positions* p = d.axis(x, a); p && p->size() > 1) d.lock(*p, n.id, "the shape that it becomes isn't known");
}

void link_flatten(Dimensions& d, const Node& n) {
  const int64_t rank = d.rank(n.input(0)), given = n.i("axis", 1), axis = given < 0 ? given + rank : given;
  if (rank < 0 || axis < 0 || axis > rank) return d.lock_inputs(n, "its shape isn't known");
  tie_segment(d, n, 0, axis, 0, 1);
  tie_segment(d, n, axis, rank, 1, 2);
}

/// Tracked axes get their new sizes, others keep what they had.
void rewrite_reshape(GraphEdit& edit, NodeId id, const Removal& removal) {
  const Dimensions& d = removal.dimensions();
  const Node& n = edit.graph().node(id);
  const ValueId x = n.input(0), y = n.outputs[0];
  if (!removal.touches(x) && !removal.touches(y)) return;
  if (n.find("shape")) return;  // opset 1 to 4; fixed shapes only, and those are upgraded before
  const Elements* known = d.shapes().elements(n.input(1));
  std::vector<std::optional<int64_t>> shape;
  bool free = true;
  for (int64_t a = 0; a < d.rank(y); ++a) {
    std::optional<int64_t> e;
    if (const Positions* p = d.axis(y, a)) e = removal.kept(*p);
    else if (known && at(a) < known->size() && (*known)[at(a)].number) e = (*known)[at(a)].number;
    if (e && *e == -1) free = false;
    shape.push_back(e);
  }
  for (int64_t a = 0; a < d.rank(y); ++a)
    if (!shape[at(a)] && a < d.rank(x) && d.same_size(x, a, y, a) && n.i("allowzero", 0) == 0) shape[at(a)] = 0;
  if (free)
    if (const auto it = std::find(shape.begin(), shape.end(), std::nullopt); it != shape.end()) *it = -1;
  write_shape(edit, id, 1, shape);
}

/// Only axes of one element are stretched; the others keep their size.
void link_expand(Dimensions& d, const Node& n) {
  const ValueId x = n.input(0), y = n.outputs[0];
  const int64_t rx = d.rank(x), ry = d.rank(y);
  if (rx < 0 || ry < rx) return d.lock_inputs(n, "its shape isn't known");
  for (int64_t a = 0; a < rx; ++a) {
    const Positions* p = d.axis(x, a);
    if (!p) continue;
    if (p->size() == 1) d.lock(*p, n.id, "it is one channel for all");
    else d.set(y, ry - rx + a, *p);
  }
}

void rewrite_expand(GraphEdit& edit, NodeId id, const Removal& removal) {
  const Dimensions& d = removal.dimensions();
  const Node& n = edit.graph().node(id);
  if (!removal.touches(n.input(0))) return;
  const Elements* known = d.shapes().elements(n.input(1));
  const int64_t ry = d.rank(n.outputs[0]), given = known ? static_cast<int64_t>(known->size()) : d.size(n.input(1), 0);
  std::vector<std::optional<int64_t>> shape;
  for (int64_t i = 0; i < given; ++i) {
    if (d.axis(n.outputs[0], ry - given + i)) shape.push_back(1);
    else shape.push_back(known ? (*known)[at(i)].number : std::nullopt);
  }
  write_shape(edit, id, 1, shape);
}

void link_tile(Dimensions& d, const Node& n) {
  const auto repeats = integers(d, n, 1, "repeats");
  for (int64_t a = 0; a < d.rank(n.input(0)); ++a)
    if (const Positions* p = d.axis(n.input(0), a)) {
      if (!repeats || at(a) >= repeats->size() || (*repeats)[at(a)] != 1) d.lock(*p, n.id, "it is repeated");
      else d.set(n.outputs[0], a, *p);
    }
}

void link_resize(Dimensions& d, const Node& n) {
  for (int64_t a = 0; a < d.rank(n.input(0)); ++a)
    if (const Positions* p = d.axis(n.input(0), a)) {
      const bool crops = n.s("coordinate_transformation_mode", "") == "tf_crop_and_resize";
      if (crops || d.size(n.outputs[0], a) != static_cast<int64_t>(p->size())) d.lock(*p, n.id, "it is resized");
      else d.set(n.outputs[0], a, *p);
    }
}

void rewrite_resize(GraphEdit& edit, NodeId id, const Removal& removal) {
  const Dimensions& d = removal.dimensions();
  const Node& n = edit.graph().node(id);
  if (n.input(3) == kNone || !removal.touches(n.input(0))) return;
  const int64_t rank = d.rank(n.input(0));
  std::vector<int64_t> axes = n.ints("axes");
  if (axes.empty())
    for (int64_t a = 0; a < rank; ++a) axes.push_back(a);
  const Elements* known = d.shapes().elements(n.input(3));
  std::vector<std::optional<int64_t>> sizes;
  for (size_t i = 0; i < axes.size(); ++i) {
    const Positions* p = d.axis(n.input(0), axes[i] < 0 ? axes[i] + rank : axes[i]);
    if (p) sizes.push_back(removal.kept(*p));
    else sizes.push_back(known && i < known->size() ? (*known)[i].number : std::nullopt);
  }
  write_shape(edit, id, 3, sizes);
}

/// Blocks of pixels and channels: a channel of the larger image is as many of the smaller one's.
void link_depth(Dimensions& d, const Node& n) {
  const Positions* p = d.axis(n.input(0), 1);
  const int64_t b = n.i("blocksize", 1), blocks = b * b;
  if (!p) return d.lock_inputs(n, "pixels and channels change places");
  for (int64_t a = 2; a < 4; ++a)
    if (const Positions* q = d.axis(n.input(0), a)) d.lock(*q, n.id, "pixels and channels change places");
  const Positions in = *p;
  const auto count = static_cast<int64_t>(in.size());
  Positions out;
  if (n.op == "SpaceToDepth") {
    for (int64_t k = 0; k < blocks; ++k) out.insert(out.end(), in.begin(), in.end());
  } else {
    if (blocks < 1 || count % blocks != 0) return d.lock(in, n.id, "its blocks don't divide the channels");
    const int64_t channels = count / blocks;
    const bool crd = n.s("mode", "DCR") == "CRD";
    for (int64_t c = 0; c < channels; ++c) {
      out.push_back(in[at(crd ? c * blocks : c)]);
      for (int64_t k = 1; k < blocks; ++k) d.join(out.back(), in[at(crd ? c * blocks + k : k * channels + c)]);
    }
  }
  d.set(n.outputs[0], 1, out);
  if (const Positions* batch = d.axis(n.input(0), 0)) d.set(n.outputs[0], 0, *batch);
}

}  // namespace

std::vector<DimensionRule> layout_dimension_rules() {
  return {
      {{"Transpose"}, link_transpose},
      {{"Squeeze", "Unsqueeze"}, link_squeeze},
      {{"Reshape"}, tie_reshaped, rewrite_reshape},
      {{"Flatten"}, link_flatten},
      {{"Expand"}, link_expand, rewrite_expand},
      {{"Tile"}, link_tile},
      {{"Resize"}, link_resize, rewrite_resize},
      {{"DepthToSpace", "SpaceToDepth"}, link_depth},
  };
}

}  // namespace infopt

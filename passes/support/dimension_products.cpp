#include <algorithm>

#include "passes/support/dimension_rules.h"

namespace infopt {
namespace {

Positions repeated(const Positions& atoms, int64_t each) {
  Positions out;
  for (int32_t a : atoms) out.insert(out.end(), static_cast<size_t>(each), a);
  return out;
}

void follow_bias(Dimensions& d, const Node& n, size_t input, const Positions& out) {
  if (n.input(input) == kNone) return;
  if (d.rank(n.input(input)) == 1) d.tie(n, input, 0, AxisRole::Follows, out);
  else d.lock(out, n.id, "its bias has another rank");
}

/// Convolutions of one group: all of the input's channels are summed over.
void link_whole(Dimensions& d, const Node& n, const Positions* in, bool transposed) {
  const ValueId w = n.input(1);
  if (in) d.tie(n, 1, transposed ? 0 : 1, AxisRole::Reads, *in);
  const Positions out = d.fresh(d.size(w, transposed ? 1 : 0));
  d.use(n, 1, transposed ? 1 : 0, AxisRole::Makes, out);
  d.set(n.outputs[0], 1, out);
  follow_bias(d, n, 2, out);
}

/// Of several groups. Where they are many, whole groups go, inputs and outputs together (depthwise ones are groups of one channel); where
/// they are few, the same channels of each group go.
void link_groups(Dimensions& d, const Node& n, const Positions* in, bool transposed, int64_t groups) {
  const ValueId w = n.input(1);
  const int64_t channels = transposed ? d.size(w, 0) : d.size(w, 1) * groups, outputs = transposed ? d.size(w, 1) * groups : d.size(w, 0);
  const int64_t in_each = channels / groups, out_each = outputs / groups;
  Positions out;
  if (in && groups >= in_each) {
    Positions by_group;
    for (int64_t g = 0; g < groups; ++g) {
      by_group.push_back((*in)[static_cast<size_t>(g * in_each)]);
      for (int64_t i = 1; i < in_each; ++i) d.join(by_group.back(), (*in)[static_cast<size_t>(g * in_each + i)]);
    }
    out = repeated(by_group, out_each);
    d.use(n, 1, 0, AxisRole::Follows, transposed ? repeated(by_group, in_each) : out);
  } else {
    const Positions each = d.fresh(out_each);
    for (int64_t g = 0; g < groups; ++g) out.insert(out.end(), each.begin(), each.end());
    d.use(n, 1, transposed ? 1 : 0, AxisRole::Makes, transposed ? each : out);
    for (int64_t i = 0; in && i < channels; ++i) d.join((*in)[static_cast<size_t>(i)], (*in)[static_cast<size_t>(i % in_each)]);
    if (in) d.use(n, 1, transposed ? 0 : 1, AxisRole::Reads, transposed ? *in : Positions(in->begin(), in->begin() + in_each));
  }
  d.set(n.outputs[0], 1, out);
  follow_bias(d, n, 2, out);
}

void link_conv(Dimensions& d, const Node& n) {
  const bool transposed = n.op == "ConvTranspose";
  const ValueId x = n.input(0), w = n.input(1);
  const int64_t groups = n.i("group", 1), rank = d.rank(w);
  if (!d.weights(w) || rank < 3 || groups < 1 || d.size(w, 0) % groups != 0) return d.lock_inputs(n, "its weights aren't constant");
  const Positions* in = d.axis(x, 1);
  for (int64_t a = 0; a < rank; ++a)
    if (const Positions* p = a == 1 ? nullptr : d.axis(x, a)) d.lock(*p, n.id, "a convolution slides along it");
  const int64_t channels = transposed ? d.size(w, 0) : d.size(w, 1) * groups;
  if (in && static_cast<int64_t>(in->size()) != channels) return d.lock(*in, n.id, "its weights are for another number of channels");
  if (groups == 1) link_whole(d, n, in, transposed);
  else link_groups(d, n, in, transposed, groups);
}

/// Only depthwise convolutions and groups that go whole change their number of groups.
void rewrite_conv(GraphEdit& edit, NodeId id, const Removal& removal) {
  const Node& n = edit.graph().node(id);
  const int64_t groups = n.i("group", 1);
  if (groups == 1) return;
  for (const AxisUse& u : removal.dimensions().uses()) {
    const bool grouped = u.node == id && u.input == 1 && u.axis == 0 && u.role == AxisRole::Follows;
    if (!grouped) continue;
    const auto size = static_cast<int64_t>(u.atoms.size());
    edit.set_attribute(id, "group", groups * removal.kept(u.atoms) / size);
    return;
  }
}

void link_gemm(Dimensions& d, const Node& n) {
  const bool turned_a = n.i("transA", 0) != 0, turned_b = n.i("transB", 0) != 0;
  const ValueId a = n.input(0), b = n.input(1), y = n.outputs[0];
  if (d.rank(b) != 2 || (!d.weights(b) && !d.tracked(b) && d.rank(a) != 2)) return d.lock_inputs(n, "its shape isn't known");
  if (const Positions* in = d.axis(a, turned_a ? 0 : 1)) d.tie(n, 1, turned_b ? 1 : 0, AxisRole::Reads, *in);
  else if (const Positions* k = d.axis(b, turned_b ? 1 : 0)) d.tie(n, 0, turned_a ? 0 : 1, AxisRole::Reads, *k);
  if (const Positions* rows = d.axis(a, turned_a ? 1 : 0)) d.set(y, 0, *rows);
  Positions out;
  if (const Positions* p = d.axis(b, turned_b ? 0 : 1)) out = *p;
  else if (d.weights(b)) d.use(n, 1, turned_b ? 0 : 1, AxisRole::Makes, out = d.fresh(d.size(b, turned_b ? 0 : 1)));
  const ValueId c = n.input(2);
  if (c != kNone) {
    const int64_t rank = d.rank(c);
    if (rank < 0 || rank > 2) d.lock(out, n.id, "its bias has an unknown rank");
    else if (rank > 0 && d.size(c, rank - 1) != 1 && !out.empty()) d.tie(n, 2, rank - 1, AxisRole::Follows, out);
    if (rank == 2 && d.size(c, 0) != 1)
      if (const Positions* rows = d.axis(y, 0)) d.tie(n, 2, 0, AxisRole::Follows, *rows);
  }
  d.set(y, 1, out);
}

/// The axis `at` of one factor, from the right; fresh where it is weights and `makes`.
Positions free_axis(Dimensions& d, const Node& n, size_t input, int64_t axis) {
  const ValueId v = n.input(input);
  if (const Positions* p = d.axis(v, axis)) return *p;
  if (!d.weights(v)) return {};
  const Positions out = d.fresh(d.size(v, axis));
  d.use(n, input, axis, AxisRole::Makes, out);
  return out;
}

void link_matmul(Dimensions& d, const Node& n) {
  const ValueId a = n.input(0), b = n.input(1), y = n.outputs[0];
  const int64_t ra = d.rank(a), rb = d.rank(b);
  if (ra < 1 || rb < 1 || (d.weights(a) && d.weights(b))) return d.lock_inputs(n, "its shape isn't known");
  const int64_t ka = ra - 1, kb = std::max<int64_t>(rb - 2, 0), ry = std::max<int64_t>({ra, rb, 2}) - (ra == 1) - (rb == 1);
  if (const Positions* in = d.axis(a, ka)) d.tie(n, 1, kb, AxisRole::Reads, *in);
  else if (const Positions* k = d.axis(b, kb)) d.tie(n, 0, ka, AxisRole::Reads, *k);
  for (int64_t back = 3; back <= std::max(ra, rb); ++back) {  // batch axes
    const Positions *p = d.axis(a, ra - back), *q = d.axis(b, rb - back);
    if (!p && !q) continue;
    const bool both = ra >= back && rb >= back;
    const int64_t sa = ra >= back ? d.size(a, ra - back) : 1, sb = rb >= back ? d.size(b, rb - back) : 1;
    const Positions atoms = p && sa != 1 ? *p : q ? *q : *p;
    const size_t other = p && sa != 1 ? 1 : 0;
    if (both && (other == 1 ? sb : sa) != 1) d.tie(n, other, other == 1 ? rb - back : ra - back, AxisRole::Follows, atoms);
    if (!d.weights(a) && !d.weights(b)) d.mark_head(atoms);
    d.set(y, ry - back, atoms);
  }
  if (ra > 1) d.set(y, ry - (rb == 1 ? 1 : 2), free_axis(d, n, 0, ra - 2));
  if (rb > 1) d.set(y, ry - 1, free_axis(d, n, 1, rb - 1));
}

/// A table that is looked up in makes channels of its other axes; what is picked along an axis that shrinks locks it.
void link_gather(Dimensions& d, const Node& n) {
  const ValueId x = n.input(0), y = n.outputs[0];
  const int64_t rank = d.rank(x), picked = d.rank(n.input(1)), given = n.i("axis", 0), along = given < 0 ? given + rank : given;
  if (rank < 0 || picked < 0) return d.lock_inputs(n, "its shape isn't known");
  const Tensor* table = d.graph().constant(x);
  if (table && (!is_float(table->dtype()) || rank != 2 || d.graph().constant(n.input(1)))) return;
  if (const Positions* p = d.axis(x, along)) d.lock(*p, n.id, "single channels are picked from it");
  for (int64_t a = 0; a < rank; ++a) {
    if (a == along) continue;
    const int64_t to = a < along ? a : a - 1 + picked;
    if (table && a == rank - 1) {
      const Positions out = d.fresh(d.size(x, a));
      d.use(n, 0, a, AxisRole::Makes, out);
      d.set(y, to, out);
    } else if (const Positions* p = d.axis(x, a)) {
      d.set(y, to, *p);
    }
  }
}

}  // namespace

std::vector<DimensionRule> product_dimension_rules() {
  return {
      {{"Conv", "ConvTranspose"}, link_conv, rewrite_conv, true},
      {{"Gemm"}, link_gemm, nullptr, true},
      {{"MatMul"}, link_matmul, nullptr, true},
      {{"Gather"}, link_gather, nullptr, true},
  };
}

}  // namespace infopt

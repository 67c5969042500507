// merge_reshapes
//
// before     Reshape(view(x), shape), view one of Reshape, Flatten, Squeeze, Unsqueeze;
//            Reshape(Transpose<0, 2, 1>(Reshape(x, [A, M, N])), [a, b, N, M]) of x with a·b = A: keys of attention, as exporters write them
// after      Reshape(x, shape);  Transpose<0, 1, 3, 2>(x)
// conditions The shape is constant, and doesn't copy dimensions (0) of what goes. In the second, all dimensions of x but one are known to be those of the result.
// formula    –
#include <algorithm>
#include <numeric>

#include "passes/pass.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

bool is_view(const Node& n) { return n.is("Reshape") || n.is("Flatten") || n.is("Squeeze") || n.is("Unsqueeze"); }

bool copies_dimensions(const Node& reshape, const Tensor& shape) {
  const std::vector<int64_t> target = to_vector<int64_t>(shape);
  return reshape.i("allowzero", 0) == 0 && std::find(target.begin(), target.end(), 0) != target.end();
}

/// Dimension by dimension the same, one at most unknown: with as many elements that one is the same, too.
bool same_but_one(const std::vector<Dim>& a, const std::vector<Dim>& b) {
  if (a.size() != b.size()) return false;
  int unknown = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].size == 0) return false;
    if (a[i].size < 0 || b[i].size < 0) ++unknown;
    else if (a[i].size != b[i].size) return false;
  }
  return unknown <= 1;
}

/// Past a Reshape, a Transpose of the last two of three axes, and this Reshape back to x's rank: x; kNone where they are something else.
ValueId transposed_matrices(const Graph& graph, const Node& last) {
  const Node* turn = last.is("Reshape") ? made_by(graph, last.input(0), "Transpose") : nullptr;
  const Node* first = turn && turn->ints("perm") == std::vector<int64_t>{0, 2, 1} ? made_by(graph, turn->input(0), "Reshape") : nullptr;
  if (!first || first->input(0) == kNone) return kNone;
  const Type &x = graph.value(first->input(0)).type, &merged = graph.value(turn->input(0)).type, &y = graph.value(last.outputs[0]).type;
  if (!x.has_shape || !merged.has_shape || !y.has_shape || x.shape.size() < 3 || merged.shape.size() != 3 || y.shape.size() != x.shape.size()) return kNone;
  const size_t rank = x.shape.size();
  const int64_t rows = x.shape[rank - 2].size, columns = x.shape[rank - 1].size;
  if (rows <= 0 || columns <= 0 || merged.shape[1].size != rows || merged.shape[2].size != columns) return kNone;
  std::vector<Dim> back = y.shape;
  std::swap(back[rank - 2], back[rank - 1]);
  return same_but_one(x.shape, back) ? first->input(0) : kNone;
}

void merge(GraphEdit& edit) {
  edit.finish();
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order) {
    if (!edit.graph().alive(id)) continue;
    const Node& n = edit.graph().node(id);
    if (!n.is("Reshape") || output_of(n) == kNone || n.input(0) == kNone) continue;
    if (const ValueId x = transposed_matrices(edit.graph(), n); x != kNone) {
      std::vector<int64_t> perm(edit.graph().value(x).type.shape.size());
      std::iota(perm.begin(), perm.end(), 0);
      std::swap(perm[perm.size() - 2], perm[perm.size() - 1]);
      const ValueId before = n.input(0);
      edit.set_op(id, "Transpose");
      edit.remove_attribute(id, "allowzero");
      edit.set_attribute(id, "perm", perm);
      edit.set_inputs(id, {x});
      remove_unused(edit, before);
      continue;
    }
    const Tensor* shape = edit.graph().constant(n.input(1));
    if (!shape || copies_dimensions(n, *shape)) continue;
    const ValueId before = n.input(0);
    for (const Node* view = edit.graph().producer(before); view && is_view(*view) && view->input(0) != kNone; view = edit.graph().producer(n.input(0))) edit.set_input(id, 0, view->input(0));
    remove_unused(edit, before);
  }
}

void run(GraphEdit& edit, PassContext&, const Options&) { each_graph(edit, merge); }

}  // namespace

PassDef pass_merge_reshapes() {
  return {"merge_reshapes", "makes chains of reshapes one, and transposed matrices one Transpose", Contract::Exact, {}, false, 0, run};
}

}  // namespace infopt

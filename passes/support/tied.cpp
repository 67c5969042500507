#include "passes/support/tied.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace infopt {
namespace {

Tensor transposed(const Tensor& t) {
  constexpr int64_t kTile = 16;  // both sides of a tile stay in the first cache
  const int64_t rows = t.dim(0), columns = t.dim(1);
  const size_t width = bits_of(t.dtype()) / 8;
  Tensor out(t.dtype(), {columns, rows});
  std::byte* to = out.mutable_raw();
  const std::byte* from = t.raw();
  for (int64_t r0 = 0; r0 < rows; r0 += kTile)
    for (int64_t c0 = 0; c0 < columns; c0 += kTile)
      for (int64_t r = r0; r < std::min(rows, r0 + kTile); ++r)
        for (int64_t c = c0; c < std::min(columns, c0 + kTile); ++c)
          std::memcpy(to + static_cast<size_t>(c * rows + r) * width, from + static_cast<size_t>(r * columns + c) * width, width);
  return out;
}

bool swaps_two_axes(const Node& n) {
  const auto perm = n.ints("perm");
  return perm.empty() || perm == std::vector<int64_t>{1, 0};
}

}  // namespace

std::map<ValueId, ValueId> transpose_constants(GraphEdit& edit) {
  const Graph& graph = edit.graph();
  std::map<ValueId, ValueId> made, of;
  const std::vector<NodeId> order = graph.order();
  for (NodeId id : order) {
    const Node& n = graph.node(id);
    const Node* p = n.is("MatMul") ? graph.producer(n.input(1)) : nullptr;
    const Tensor* t = p && p->is("Transpose") ? graph.constant(p->input(0)) : nullptr;
    if (!t || t->rank() != 2 || !is_float(t->dtype()) || !swaps_two_axes(*p)) continue;
    auto [it, fresh] = made.emplace(p->input(0), kNone);
    if (fresh) {
      it->second = edit.add_constant(transposed(*t));
      of.emplace(it->second, p->input(0));
    }
    const NodeId transpose = p->id;
    edit.set_input(id, 1, it->second);
    if (graph.value(graph.node(transpose).outputs[0]).uses.empty()) edit.remove_node(transpose);
  }
  if (!of.empty()) edit.finish();
  return of;
}

void restore_transposes(GraphEdit& edit, const std::map<ValueId, ValueId>& made) {
  for (const auto& [copy, table] : made) {
    const Graph& graph = edit.graph();
    if (!graph.value_alive(copy) || graph.value(copy).uses.empty() || !graph.value_alive(table) || graph.value(table).uses.empty()) continue;
    const ValueId again = edit.add({.op = "Transpose", .attributes = {{"perm", std::vector<int64_t>{1, 0}, {}}}}, {table});
    edit.replace_uses(copy, again);
    edit.remove_value(copy);
  }
  edit.finish();
}

bool reads_table(const Graph& graph, const Layer& layer, ValueId table) {
  const Tensor& t = *graph.constant(table);
  if (layer.convolution || layer.out != t.dim(0) || layer.in != t.dim(1)) return false;
  const Tensor& w = *graph.constant(layer.weights);
  if (w.dtype() != t.dtype()) return false;
  if (layer.out_axis == 0) return layer.weights == table || std::memcmp(w.raw(), t.raw(), t.bytes()) == 0;
  const size_t width = bits_of(t.dtype()) / 8;
  for (int64_t r = 0; r < layer.out; ++r)
    for (int64_t c = 0; c < layer.in; ++c)
      if (std::memcmp(t.raw() + static_cast<size_t>(r * layer.in + c) * width, w.raw() + static_cast<size_t>(c * layer.out + r) * width, width) != 0) return false;
  return true;
}

}  // namespace infopt

#include "passes/support/layers.h"

#include <algorithm>

#include "lib/base/error.h"

namespace infopt {
namespace {

/// Calls f(index in W[out][in][tap], index in the stored tensor) for every weight.
template <class F> void each_weight(const Layer& l, const Shape& stored, F f) {
  if (!l.convolution && l.out_axis != 0) {  // a transposition: in tiles that stay in the first cache
    constexpr int64_t kTile = 16;
    for (int64_t o0 = 0; o0 < l.out; o0 += kTile)
      for (int64_t i0 = 0; i0 < l.in; i0 += kTile)
        for (int64_t o = o0; o < std::min(l.out, o0 + kTile); ++o)
          for (int64_t i = i0; i < std::min(l.in, i0 + kTile); ++i) f(o * l.in + i, i * stored.back() + o);
    return;
  }
  int64_t index = 0;
  for (int64_t o = 0; o < l.out; ++o)
    for (int64_t i = 0; i < l.in; ++i)
      for (int64_t t = 0; t < l.taps; ++t, ++index) {
        int64_t at;
        if (l.transposed) {  // (C, M/groups, k…)
          const int64_t per_group = l.out / l.groups, group = o / per_group;
          at = ((group * l.in + i) * per_group + o % per_group) * l.taps + t;
        } else {
          at = (o * l.in + i) * l.taps + t;
        }
        f(index, at);
      }
}

template <class T> Tensor write(const Layer& l, const Shape& stored, const std::vector<T>& values) {
  Tensor out(dtype_of<T>, stored);
  T* p = out.mutable_data<T>();
  each_weight(l, stored, [&](int64_t index, int64_t at) { p[at] = values[static_cast<size_t>(index)]; });
  return out;
}

}  // namespace

std::optional<Layer> layer_of(const Graph& graph, NodeId id) {
  const Node& n = graph.node(id);
  const bool conv = n.is("Conv"), transposed = n.is("ConvTranspose"), gemm = n.is("Gemm"), matmul = n.is("MatMul");
  if (!conv && !transposed && !gemm && !matmul) return std::nullopt;
  const Tensor* w = graph.constant(n.input(1));
  if (!w || (w->dtype() != DType::F32 && w->dtype() != DType::F16 && w->dtype() != DType::BF16) || w->size() == 0 || graph.constant(n.input(0))) return std::nullopt;
  Layer l;
  l.node = id;
  l.weights = n.input(1);
  if (conv || transposed) {
    if (w->rank() < 3) return std::nullopt;
    l.convolution = true;
    l.transposed = transposed;
    l.groups = n.i("group", 1);
    for (int64_t i = 2; i < w->rank(); ++i) l.taps *= w->dim(i);
    if (l.groups < 1 || w->dim(0) % l.groups != 0) return std::nullopt;
    l.out = transposed ? w->dim(1) * l.groups : w->dim(0);
    l.in = transposed ? w->dim(0) / l.groups : w->dim(1);
    l.out_axis = transposed ? 1 : 0;
    return l;
  }
  if (w->rank() != 2 || (gemm && (n.i("transA", 0) != 0 || n.f("alpha", 1) != 1))) return std::nullopt;
  l.out_axis = gemm && n.i("transB", 0) != 0 ? 0 : 1;
  l.out = w->dim(l.out_axis);
  l.in = w->dim(1 - l.out_axis);
  l.input_axis = -1;
  return l;
}

std::vector<Layer> find_layers(const Graph& graph) {
  std::vector<Layer> out;
  for (NodeId id : graph.order())
    if (auto l = layer_of(graph, id)) out.push_back(*l);
  return out;
}

int64_t macs_of(const Graph& graph, const Node& node, const std::vector<Observed>& seen) {
  const bool conv = node.is("Conv"), transposed = node.is("ConvTranspose");
  if (!conv && !transposed && !node.is("Gemm") && !node.is("MatMul")) return 0;
  auto shape = [&](ValueId v) -> const Shape* {
    if (v == kNone || seen[static_cast<size_t>(v)].dtype == DType::Undefined) return nullptr;
    return &seen[static_cast<size_t>(v)].shape;
  };
  const Shape* x = shape(node.input(0));
  const Shape* y = shape(node.outputs[0]);
  const Tensor* constant = graph.constant(node.input(1));
  const Shape* w = constant ? &constant->shape() : shape(node.input(1));
  if (!x || !y || !w || x->empty() || w->empty()) return 0;
  if (conv || transposed) {
    int64_t each = (*w)[1];
    for (size_t i = 2; i < w->size(); ++i) each *= (*w)[i];
    return each * element_count(transposed ? *x : *y);
  }
  const int64_t k = node.is("Gemm") ? (*x)[node.i("transA", 0) ? 0 : 1] : x->back();
  return k * element_count(*y);
}

std::optional<LayerReport> product_report(const Graph& graph, const Node& node, const std::optional<Layer>& layer, const std::vector<Observed>& seen) {
  const int64_t macs = seen.empty() ? 0 : macs_of(graph, node, seen);
  if (!layer && macs == 0) return std::nullopt;
  LayerReport r;
  r.node = graph.label(node.id);
  r.op = node.op;
  r.macs = macs;
  if (layer) r.weight_elements = layer->out * layer->in * layer->taps;
  else r.reason = "a product of two activations";
  return r;
}

std::vector<float> read_weights(const Layer& layer, const Tensor& weights) {
  const Tensor w = cast(weights, DType::F32);
  const float* p = w.data<float>();
  std::vector<float> out(static_cast<size_t>(w.size()));
  each_weight(layer, w.shape(), [&](int64_t index, int64_t at) { out[static_cast<size_t>(index)] = p[at]; });
  return out;
}

Tensor write_weights(const Layer& layer, const Shape& stored, const std::vector<int8_t>& codes) { return write(layer, stored, codes); }
Tensor write_weights(const Layer& layer, const Shape& stored, const std::vector<float>& values) { return write(layer, stored, values); }

const Node* absorbed_activation(const Graph& graph, const Node& node) {
  if (node.outputs.empty() || node.outputs[0] == kNone) return nullptr;
  const Node* next = graph.sole_consumer(node.outputs[0]);
  if (!next || next->input(0) != node.outputs[0]) return nullptr;
  if (next->is("Relu")) return next;
  if (!next->is("Clip")) return nullptr;
  auto bound = [&](size_t input, const char* attribute) -> std::optional<float> {
    if (const float* f = next->get<float>(attribute)) return *f;
    const Tensor* t = graph.constant(next->input(input));
    if (!t || t->size() != 1) return std::nullopt;
    return to_scalar<float>(*t);
  };
  const auto low = bound(1, "min");
  if (!low || *low != 0) return nullptr;
  const bool open_above = next->input(2) == kNone && !next->find("max");
  return open_above || bound(2, "max") ? next : nullptr;
}

}  // namespace infopt

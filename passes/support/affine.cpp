#include "passes/support/affine.h"

#include <algorithm>
#include <cmath>

#include "passes/support/patterns.h"

namespace infopt {
namespace {

bool finite(const std::vector<double>& v) {
  return std::all_of(v.begin(), v.end(), [](double x) { return std::isfinite(x); });
}

bool finite(const Tensor& t) { return finite(to_vector<double>(t)); }

bool read_once(const Graph& graph, ValueId v) { return graph.value(v).uses.size() == 1; }

/// The bias that the operator adds now, one a channel; beta of Gemm included.
std::optional<std::vector<double>> bias_of(const Graph& graph, const Node& node, int64_t channels) {
  if (node.input(2) == kNone) return std::vector<double>(static_cast<size_t>(channels), 0);
  const Tensor* t = graph.constant(node.input(2));
  if (!t) return std::nullopt;
  if (!node.is("Gemm")) return t->size() == channels ? std::optional(to_vector<double>(*t)) : std::nullopt;
  auto bias = per_channel(*t, 2, 1, channels);
  if (bias)
    for (double& b : *bias) b *= static_cast<double>(node.f("beta", 1));
  return bias;
}

/// Output channel of the weight at a flat index.
struct OutputChannel {
  int64_t inner = 1, out = 1, in_per_group = 0;
  OutputChannel(const Node& node, const Tensor& w) {
    if (node.is("Gemm")) {
      const bool rows = node.i("transB", 0) != 0;
      inner = rows ? w.dim(1) : 1;
      out = rows ? w.dim(0) : w.dim(1);
      return;
    }
    const int64_t axis = node.is("ConvTranspose") ? 1 : 0;
    for (int64_t i = axis + 1; i < w.rank(); ++i) inner *= w.dim(i);
    out = w.dim(axis);
    if (axis == 1) in_per_group = w.dim(0) / node.i("group", 1);
  }
  int64_t operator()(int64_t index) const {
    const int64_t row = index / inner;
    return in_per_group ? row / out / in_per_group * out + row % out : row % out;
  }
};

void set_bias(GraphEdit& edit, NodeId id, const std::vector<double>& bias, DType dtype) {
  const Node& n = edit.graph().node(id);
  const ValueId old = n.input(2);
  if (old == kNone && std::all_of(bias.begin(), bias.end(), [](double b) { return b == 0; })) return;
  if (n.find("beta")) edit.remove_attribute(id, "beta");
  edit.set_input(id, 2, edit.add_constant(rounded(bias, {static_cast<int64_t>(bias.size())}, dtype)));
}

}  // namespace

std::optional<Affine> batch_normalization(const Graph& graph, const Node& node) {
  if (!node.is("BatchNormalization") || node.i("training_mode", 0) != 0 || node.i("spatial", 1) == 0) return std::nullopt;
  for (size_t i = 1; i < node.outputs.size(); ++i)
    if (node.outputs[i] != kNone) return std::nullopt;  // before opset 14 they mean training
  const Tensor* p[4];
  for (size_t i = 0; i < 4; ++i) {
    p[i] = graph.constant(node.input(i + 1));
    if (!p[i] || !is_float(p[i]->dtype()) || p[i]->size() != graph.constant(node.input(1))->size()) return std::nullopt;
  }
  const auto gain = to_vector<double>(*p[0]), bias = to_vector<double>(*p[1]), mean = to_vector<double>(*p[2]), variance = to_vector<double>(*p[3]);
  const auto epsilon = static_cast<double>(node.f("epsilon", 1e-5f));
  Affine a;
  for (size_t c = 0; c < gain.size(); ++c) {
    a.scale.push_back(gain[c] / std::sqrt(variance[c] + epsilon));
    a.shift.push_back(bias[c] - mean[c] * a.scale[c]);
  }
  return finite(a.scale) && finite(a.shift) ? std::optional(std::move(a)) : std::nullopt;
}

std::optional<Affine> affine_of(const Graph& graph, const Node& node, ValueId x, int64_t rank, int64_t channels) {
  if (node.is("BatchNormalization")) {
    auto a = node.input(0) == x ? batch_normalization(graph, node) : std::nullopt;
    return a && static_cast<int64_t>(a->scale.size()) == channels ? a : std::nullopt;
  }
  const bool add = node.is("Add"), sub = node.is("Sub"), mul = node.is("Mul"), div = node.is("Div");
  if ((!add && !sub && !mul && !div) || node.inputs.size() != 2) return std::nullopt;
  const size_t side = node.input(0) == x ? 1 : 0;
  const Tensor* t = graph.constant(node.input(side));
  if (!t || (div && side == 0)) return std::nullopt;
  const auto c = per_channel(*t, rank, 1, channels);
  if (!c) return std::nullopt;
  const auto n = static_cast<size_t>(channels);
  Affine a{std::vector<double>(n, 1), std::vector<double>(n, 0)};
  for (size_t i = 0; i < n; ++i) {
    if (mul) a.scale[i] = (*c)[i];
    if (div) a.scale[i] = 1 / (*c)[i];
    if (add) a.shift[i] = (*c)[i];
    if (sub) a.shift[i] = side == 1 ? -(*c)[i] : (*c)[i];
    if (sub && side == 0) a.scale[i] = -1;
  }
  return finite(a.scale) && finite(a.shift) ? std::optional(std::move(a)) : std::nullopt;
}

int64_t absorbing_channels(const Graph& graph, const Node& node) {
  const bool gemm = node.is("Gemm"), transposed = node.is("ConvTranspose");
  if (!gemm && !transposed && !node.is("Conv")) return 0;
  const Tensor* w = graph.constant(node.input(1));
  if (!w || !is_float(w->dtype()) || bits_of(w->dtype()) < 16) return 0;
  const int64_t groups = node.i("group", 1);
  if (gemm ? w->rank() != 2 : w->rank() < 3 || groups < 1 || w->dim(0) % groups != 0) return 0;
  const int64_t channels = gemm ? w->dim(node.i("transB", 0) != 0 ? 0 : 1) : transposed ? w->dim(1) * groups : w->dim(0);
  return bias_of(graph, node, channels) ? channels : 0;
}

int64_t output_rank(const Graph& graph, const Node& node) { return node.is("Gemm") ? 2 : graph.constant(node.input(1))->rank(); }

bool scale_outputs(GraphEdit& edit, NodeId id, const Affine& affine) {
  const Node& n = edit.graph().node(id);
  const Tensor& w = *edit.graph().constant(n.input(1));
  std::vector<double> bias = *bias_of(edit.graph(), n, static_cast<int64_t>(affine.scale.size()));
  for (size_t c = 0; c < bias.size(); ++c) bias[c] = bias[c] * affine.scale[c] + affine.shift[c];
  const DType dtype = w.dtype();
  if (!finite(rounded(bias, {static_cast<int64_t>(bias.size())}, dtype))) return false;
  if (std::any_of(affine.scale.begin(), affine.scale.end(), [](double s) { return s != 1; })) {
    if (!read_once(edit.graph(), n.input(1))) return false;
    std::vector<double> values = to_vector<double>(w);
    const OutputChannel channel(n, w);
    for (size_t i = 0; i < values.size(); ++i) values[i] *= affine.scale[static_cast<size_t>(channel(static_cast<int64_t>(i)))];
    Tensor scaled = rounded(values, w.shape(), dtype);
    if (!finite(scaled)) return false;
    edit.set_input(id, 1, edit.add_constant(std::move(scaled), edit.graph().value(n.input(1)).name));
  }
  set_bias(edit, id, bias, dtype);
  return true;
}

bool scale_inputs(GraphEdit& edit, NodeId id, const Affine& affine) {
  const Node& n = edit.graph().node(id);
  const Tensor& w = *edit.graph().constant(n.input(1));
  const int64_t out = w.dim(0), in = w.dim(1), groups = n.i("group", 1), taps = w.size() / std::max<int64_t>(1, out * in);
  if (in * groups != static_cast<int64_t>(affine.scale.size()) || out % groups != 0 || !read_once(edit.graph(), n.input(1))) return false;
  std::vector<double> values = to_vector<double>(w), bias = *bias_of(edit.graph(), n, out);
  for (int64_t o = 0, at = 0; o < out; ++o)
    for (int64_t i = 0; i < in; ++i) {
      const auto c = static_cast<size_t>(o / (out / groups) * in + i);
      for (int64_t t = 0; t < taps; ++t, ++at) {
        double& v = values[static_cast<size_t>(at)];
        bias[static_cast<size_t>(o)] += v * affine.shift[c];
        v *= affine.scale[c];
      }
    }
  Tensor scaled = rounded(values, w.shape(), w.dtype());
  if (!finite(scaled) || !finite(rounded(bias, {out}, w.dtype()))) return false;
  const DType dtype = w.dtype();
  edit.set_input(id, 1, edit.add_constant(std::move(scaled), edit.graph().value(n.input(1)).name));
  set_bias(edit, id, bias, dtype);
  return true;
}

}  // namespace infopt

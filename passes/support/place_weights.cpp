#include "passes/support/place_weights.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "lib/autodiff/fake_quantize.h"
#include "lib/autodiff/tape.h"
#include "lib/base/error.h"
#include "lib/base/threads.h"
#include "passes/support/batches.h"
#include "passes/support/blocks.h"
#include "passes/support/flops.h"

namespace infopt {
namespace {

constexpr double kMostFlops = 3e12;           // forwards and backwards, over all samples
constexpr int64_t kMostValues = int64_t{512} << 20;  // bytes of the runs that go on at once
constexpr int64_t kMostKept = int64_t{128} << 20;    // bytes of weights
constexpr float kMostOfMean = 16;

bool has_discrete_input(const Graph& graph) {
  return std::any_of(graph.inputs().begin(), graph.inputs().end(), [&](ValueId v) { return !graph.constant(v) && !is_float(graph.value(v).type.dtype); });
}

/// What says the same as an output, where gradients don't vanish.
ValueId before_squashing(const Graph& graph, ValueId v) {
  for (const Node* p = graph.producer(v); p && squashes(*p) && graph.producer(p->input(0)); p = graph.producer(v)) v = p->input(0);
  return v;
}

int64_t places_in(const Layer& layer, const Shape& out) {
  const int64_t all = element_count(out);
  return layer.out > 0 ? all / layer.out : 0;
}

/// Σ over channels of g², by place. `g` is [images][channels][places] of a convolution, [places][channels] of a product.
std::vector<float> squares_of(const Layer& layer, const Tensor& g) {
  const int64_t places = places_in(layer, g.shape());
  std::vector<float> sums(static_cast<size_t>(places), 0.0f);
  const int64_t images = layer.convolution ? g.dim(0) : places, channels = layer.out, each = layer.convolution && images > 0 ? places / images : 1;
  const float* p = g.data<float>();
  for (int64_t image = 0; image < images; ++image)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t x = 0; x < each; ++x, ++p) sums[static_cast<size_t>(image * each + x)] += *p * *p;
  return sums;
}

/// Signs as random as the sample's number makes them, over the output's norm.
Tensor probe(const Tensor& y, uint64_t seed, double norm) {
  Tensor d(DType::F32, y.shape());
  auto* p = d.mutable_data<float>();
  const auto size = static_cast<float>(norm > 0 ? 1 / norm : 0);
  for (int64_t i = 0; i < d.size(); ++i) p[i] = mix_bits(seed * 0x9e3779b97f4a7c15ull + static_cast<uint64_t>(i)) & 1 ? size : -size;
  return d;
}

}  // namespace

PlaceWeights::PlaceWeights(const Graph& graph, const std::vector<Layer>& layers, PassContext& context) {
  if (!context.calibration || layers.empty() || !has_discrete_input(graph)) return;
  try {
    find(graph, layers, context);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::Unsupported) throw;
    found_.clear();
  }
  even_out();
}

void PlaceWeights::find(const Graph& graph, const std::vector<Layer>& layers, PassContext& context) {
  const std::vector<Observed> seen = context.calibration->observe(graph);
  DataSet& data = context.calibration->data();
  int64_t values = 0, kept = 0;
  for (NodeId id : graph.order())
    for (ValueId v : graph.node(id).outputs)
      if (v != kNone) values += 4 * element_count(seen[static_cast<size_t>(v)].shape);
  Piece::Spec spec;
  for (const Layer& l : layers) {
    const ValueId y = graph.node(l.node).outputs[0];
    if (seen[static_cast<size_t>(y)].dtype != DType::F32) throw Error(ErrorKind::Unsupported, "not of float32");
    kept += 4 * places_in(l, seen[static_cast<size_t>(y)].shape) * data.size();
    if (!std::count(spec.differentiate.begin(), spec.differentiate.end(), y)) spec.differentiate.push_back(y);
  }
  const double flops = 3 * static_cast<double>(count_costs(graph, seen).flops()) * static_cast<double>(data.size());
  if (flops > kMostFlops || values * context.threads > kMostValues || kept > kMostKept) return;
  for (ValueId v : graph.inputs())
    if (!graph.constant(v)) spec.inputs.push_back(v);
  for (ValueId v : graph.outputs())
    if (const ValueId y = before_squashing(graph, v); seen[static_cast<size_t>(y)].dtype == DType::F32 && !std::count(spec.outputs.begin(), spec.outputs.end(), y)) spec.outputs.push_back(y);
  if (spec.outputs.empty()) return;
  const Piece piece(graph, spec);
  std::vector<double> norms;  // of the outputs, in the first samples
  std::vector<Sample> together;
  int64_t done = 0;
  const auto flush = [&] {
    const auto count = static_cast<int64_t>(together.size());
    std::vector<std::vector<double>> energies(together.size());
    std::vector<std::vector<std::vector<float>>> found(together.size());
    const auto run = [&](int64_t s, bool backwards) {
      std::unordered_map<ValueId, Laid> fed, by_outputs;
      for (ValueId v : spec.inputs) {
        const auto it = together[static_cast<size_t>(s)].inputs.find(graph.value(v).name);
        if (it == together[static_cast<size_t>(s)].inputs.end()) throw Error(ErrorKind::Unsupported, "an input is missing");
        fed[v] = it->second;
      }
      Tape tape(piece);
      tape.forward(fed);
      for (size_t o = 0; o < spec.outputs.size(); ++o) {
        const Tensor y = tape.value(spec.outputs[o]);
        if (!backwards) {
          energies[static_cast<size_t>(s)].push_back(energy(y));
        } else {
          by_outputs[spec.outputs[o]] = probe(y, static_cast<uint64_t>((done + s) * static_cast<int64_t>(spec.outputs.size())) + o, norms[o]);
        }
      }
      if (!backwards) return;
      tape.backward(by_outputs);
      for (const Layer& l : layers) found[static_cast<size_t>(s)].push_back(squares_of(l, tape.gradient(graph.node(l.node).outputs[0])));
    };
    if (norms.empty()) {
      parallel_for(count, context.threads, [&](int64_t s, int) { run(s, false); });
      for (size_t o = 0; o < spec.outputs.size(); ++o) {
        double sum = 0;
        for (const auto& e : energies) sum += e[o];
        norms.push_back(std::sqrt(sum));
      }
    }
    parallel_for(count, context.threads, [&](int64_t s, int) { run(s, true); });
    for (auto& f : found)
      for (size_t l = 0; l < layers.size(); ++l) found_[layers[l].node].push_back(std::move(f[l]));
    done += count;
    together.clear();
    context.tell(done, data.size(), "samples' places weighed");
  };
  data.reset();
  for (Sample s; data.next(s);) {
    together.push_back(std::move(s));
    if (together.size() == 16) flush();
  }
  if (!together.empty()) flush();
}

/// A mean of 1, none far above; layers that nothing reaches have none.
void PlaceWeights::even_out() {
  for (auto it = found_.begin(); it != found_.end();) {
    const auto mean_to_one = [&](float most) {
      double sum = 0, count = 0;
      for (const auto& sample : it->second)
        for (float w : sample) sum += static_cast<double>(w), count += 1;
      if (!(sum > 0) || !std::isfinite(sum)) return false;
      const auto by = static_cast<float>(count / sum);
      for (auto& sample : it->second)
        for (float& w : sample) w = std::min(w * by, most);
      return true;
    };
    if (mean_to_one(kMostOfMean) && mean_to_one(2 * kMostOfMean)) ++it;
    else it = found_.erase(it);
  }
}

const std::vector<float>* PlaceWeights::of(NodeId layer, int64_t sample) const {
  const auto it = found_.find(layer);
  return it == found_.end() || sample >= static_cast<int64_t>(it->second.size()) ? nullptr : &it->second[static_cast<size_t>(sample)];
}

std::vector<float> PlaceWeights::mean_of(const std::vector<NodeId>& layers, int64_t sample) const {
  std::vector<float> sum;
  for (NodeId id : layers) {
    const std::vector<float>* w = of(id, sample);
    if (!w || (!sum.empty() && sum.size() != w->size())) return {};
    if (sum.empty()) sum.assign(w->size(), 0.0f);
    for (size_t i = 0; i < w->size(); ++i) sum[i] += (*w)[i] / static_cast<float>(layers.size());
  }
  return sum;
}

}  // namespace infopt

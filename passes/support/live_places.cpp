#include "passes/support/live_places.h"

#include <algorithm>
#include <unordered_map>

#include "lib/autodiff/tape.h"
#include "lib/base/error.h"
#include "lib/base/threads.h"

namespace infopt {
namespace {

bool has_discrete_input(const Graph& graph) {
  return std::any_of(graph.inputs().begin(), graph.inputs().end(), [&](ValueId v) { return !graph.constant(v) && !is_float(graph.value(v).type.dtype); });
}

/// Places that an extreme of many doesn't take today it may take tomorrow: no gradient doesn't mean that they don't count.
bool takes_extremes(const Graph& graph) {
  return std::any_of(graph.order().begin(), graph.order().end(), [&](NodeId id) {
    const Node& n = graph.node(id);
    return (n.is("ReduceMax") || n.is("ReduceMin") || n.is("MaxPool") || n.is("GlobalMaxPool")) && !graph.constant(n.input(0)) && is_float(graph.value(n.input(0)).type.dtype);
  });
}

std::vector<bool> live_of(const Tensor& gradient, int64_t axis) {
  const int64_t channels = gradient.dim(axis);
  int64_t inner = 1;
  for (int64_t a = axis + 1; a < gradient.rank(); ++a) inner *= gradient.dim(a);
  std::vector<bool> live(static_cast<size_t>(channels > 0 ? gradient.size() / channels : 0), false);
  const float* g = gradient.data<float>();
  for (int64_t i = 0; i < gradient.size(); ++i)
    if (g[i] != 0.0f) live[static_cast<size_t>(i / (inner * channels) * inner + i % inner)] = true;
  return live;
}

}  // namespace

LivePlaces::LivePlaces(const Graph& graph, const std::vector<ChannelAxis>& wanted, VariedSamples& data, int threads) : data_(&data) {
  if (wanted.empty() || !has_discrete_input(graph) || takes_extremes(graph)) return;
  Piece::Spec spec;
  for (ValueId v : graph.inputs())
    if (!graph.constant(v)) spec.inputs.push_back(v);
  for (ValueId v : graph.outputs())
    if (is_float(graph.value(v).type.dtype)) spec.outputs.push_back(v);
  for (const ChannelAxis& w : wanted)
    if (!std::count(spec.differentiate.begin(), spec.differentiate.end(), w.value)) spec.differentiate.push_back(w.value);
  try {
    const Piece piece(graph, spec);
    std::vector<Sample> together;
    const auto flush = [&] {
      std::vector<std::map<ChannelAxis, std::vector<bool>>> found(together.size());
      parallel_for(static_cast<int64_t>(together.size()), threads, [&](int64_t s, int) {
        const auto& inputs = together[static_cast<size_t>(s)].inputs;
        std::unordered_map<ValueId, Laid> fed, by_outputs;
        for (ValueId v : spec.inputs) {
          const auto it = inputs.find(graph.value(v).name);
          if (it == inputs.end()) throw Error(ErrorKind::Unsupported, "an input is missing");
          fed[v] = it->second;
        }
        Tape tape(piece);
        tape.forward(fed);
        for (ValueId v : spec.outputs) {
          Tensor d = tape.value(v).clone();  // the derivative of half its energy
          if (d.dtype() == DType::F32) by_outputs[v] = d;
        }
        tape.backward(by_outputs);
        for (const ChannelAxis& w : wanted) found[static_cast<size_t>(s)].emplace(w, live_of(tape.gradient(w.value), w.axis));
      });
      for (auto& f : found)
        for (auto& [w, live] : f) live_[w].push_back(std::move(live));
      together.clear();
    };
    data.reset();
    int64_t count = 0;
    for (Sample s; count < data.originals() && data.next(s); ++count) {
      together.push_back(std::move(s));
      if (together.size() == 16) flush();
    }
    flush();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::Unsupported) throw;
    live_.clear();
  }
  for (const auto& [w, samples] : live_)
    for (const auto& live : samples) places_ += static_cast<int64_t>(live.size()), dead_ += std::count(live.begin(), live.end(), false);
}

const std::vector<bool>* LivePlaces::of(const ChannelAxis& value, int64_t sample) const {
  const auto it = live_.find(value);
  if (dead_ == 0 || it == live_.end()) return nullptr;
  return &it->second[static_cast<size_t>(data_->origin(sample))];
}

std::vector<int64_t> spread_places(int64_t places, const std::vector<bool>* live, int64_t count) {
  std::vector<int64_t> all;
  for (int64_t p = 0; p < places; ++p)
    if (!live || static_cast<int64_t>(live->size()) != places || (*live)[static_cast<size_t>(p)]) all.push_back(p);
  const auto n = static_cast<int64_t>(all.size()), step = std::max<int64_t>(1, (n + count - 1) / std::max<int64_t>(1, count));
  std::vector<int64_t> out;
  for (int64_t i = 0; i < n; i += step) out.push_back(all[static_cast<size_t>(i)]);
  return out;
}

}  // namespace infopt

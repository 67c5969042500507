#include "passes/support/collect_moments.h"

#include <algorithm>
#include <map>

#include "calibration/calibration.h"
#include "lib/base/error.h"
#include "lib/base/threads.h"
#include "lib/runtime/session.h"

namespace infopt {
namespace {

constexpr int64_t kMostMoments = int64_t{512} << 20;  // bytes

bool same_window(const Graph& graph, const Layer& a, const Layer& b) {
  if (a.convolution != b.convolution || a.in != b.in || a.taps != b.taps || a.groups != b.groups) return false;
  if (!a.convolution) return true;
  const Node &x = graph.node(a.node), &y = graph.node(b.node);
  const Shape &v = graph.constant(a.weights)->shape(), &w = graph.constant(b.weights)->shape();
  const bool kernels = v.size() == w.size() && std::equal(v.begin() + 2, v.end(), w.begin() + 2);
  return kernels && x.ints("strides") == y.ints("strides") && x.ints("pads") == y.ints("pads") && x.ints("dilations") == y.ints("dilations") && x.s("auto_pad", "") == y.s("auto_pad", "");
}

}  // namespace

std::vector<SharedInput> find_shared_inputs(const Graph& graph, const std::vector<Layer>& layers) {
  std::vector<SharedInput> shared;
  std::vector<int64_t> depth(graph.value_capacity(), 0);
  std::map<NodeId, size_t> listed;
  for (size_t i = 0; i < layers.size(); ++i)
    if (InputMoments::possible(layers[i])) listed[layers[i].node] = i;
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    int64_t most = 0;
    for (const auto& list : {n.inputs, n.captures})
      for (ValueId v : list)
        if (v != kNone) most = std::max(most, depth[static_cast<size_t>(v)]);
    if (const auto it = listed.find(id); it != listed.end()) {
      const Layer& layer = layers[it->second];
      const ValueId input = n.input(0);
      auto same = std::find_if(shared.begin(), shared.end(), [&](const SharedInput& s) { return s.input == input && same_window(graph, layers[s.layers[0]], layer); });
      if (same == shared.end()) {
        const int64_t k = layer.in * layer.taps;
        shared.push_back({input, {}, depth[static_cast<size_t>(input)], k * k * layer.groups * 4, nullptr});
        same = shared.end() - 1;
      }
      same->layers.push_back(it->second);
      ++most;
    }
    for (ValueId v : n.outputs)
      if (v != kNone) depth[static_cast<size_t>(v)] = most;
  }
  std::stable_sort(shared.begin(), shared.end(), [](const SharedInput& a, const SharedInput& b) { return a.depth < b.depth; });
  return shared;
}

size_t together(std::span<const SharedInput> inputs, bool by_depth) {
  size_t count = 0;
  for (int64_t bytes = 0; count < inputs.size(); ++count) {
    bytes += inputs[count].bytes;
    if (count > 0 && (bytes > kMostMoments || (by_depth && inputs[count].depth != inputs[0].depth))) break;
  }
  return count;
}

void collect_moments(const Graph& graph, const Graph* quantized, const std::vector<Layer>& layers, std::span<SharedInput> inputs, PassContext& context) {
  if (inputs.empty()) return;
  const bool cross = quantized && inputs.front().depth > 0;
  SessionOptions options;
  options.fold = false;
  std::vector<size_t> place;
  for (SharedInput& input : inputs) {
    input.moments = std::make_unique<InputMoments>(graph, layers[input.layers[0]]);
    const auto at = std::find(options.fetches.begin(), options.fetches.end(), input.input);
    place.push_back(static_cast<size_t>(at - options.fetches.begin()));
    if (at == options.fetches.end()) options.fetches.push_back(input.input);
  }
  const Session exact(graph, options);
  const std::unique_ptr<Session> rounded = cross ? std::make_unique<Session>(*quantized, options) : nullptr;
  DataSet& data = context.calibration->data();
  data.reset();
  std::vector<Sample> samples(static_cast<size_t>(std::max(1, context.threads) * 2));
  std::vector<std::vector<Tensor>> original(samples.size()), seen(samples.size());
  for (bool more = true; more;) {
    size_t count = 0;
    while (count < samples.size() && (more = data.next(samples[count]))) ++count;
    parallel_for(static_cast<int64_t>(count), context.threads, [&](int64_t s, int) {
      const auto i = static_cast<size_t>(s);
      try {
        check_finite(samples[i]);
        original[i] = exact.run(samples[i].inputs);
        if (rounded) seen[i] = rounded->run(samples[i].inputs);
      } catch (const Error& e) {
        throw e.where().find(samples[i].where) == std::string::npos ? e.within(samples[i].where) : e;
      }
    });
    for (size_t s = 0; s < count; ++s)
      for (size_t i = 0; i < inputs.size(); ++i) {
        const LaidOut x{original[s][place[i]], Layout::Plain};
        if (rounded) inputs[i].moments->add({seen[s][place[i]], Layout::Plain}, x, context.threads);
        else inputs[i].moments->add(x, context.threads);
      }
  }
  for (SharedInput& input : inputs) input.moments->finish(context.threads);
}

}  // namespace infopt

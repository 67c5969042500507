#include "passes/support/collect_moments.h"

#include <algorithm>
#include <map>

#include "calibration/staged_run.h"
#include "calibration/sample_order.h"
#include "calibration/tensor_store.h"
#include "lib/base/error.h"
#include "lib/base/finite.h"

namespace infopt {
namespace {

constexpr int64_t kMostMoments = int64_t{512} << 20;  // bytes
constexpr int64_t kMostHeld = int64_t{256} << 20;     // bytes of the float graph's inputs; more go into a file

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
  std::map<ValueId, size_t> first;
  for (size_t i = 0; i < shared.size(); ++i) first.emplace(shared[i].input, i);
  std::stable_sort(shared.begin(), shared.end(), [&](const SharedInput& a, const SharedInput& b) { return std::pair(a.depth, first[a.input]) < std::pair(b.depth, first[b.input]); });
  return shared;
}

size_t together(std::span<const SharedInput> inputs, bool by_depth) {
  size_t count = 0;
  for (int64_t bytes = 0; count < inputs.size(); ++count) {
    bytes += inputs[count].bytes;
    const bool same = count > 0 && inputs[count].input == inputs[count - 1].input;  // is computed once
    if (count > 0 && !same && (bytes > kMostMoments || (by_depth && inputs[count].depth != inputs[0].depth))) break;
  }
  return count;
}

struct MomentsRun::Impl {
  const Graph& graph;
  const std::vector<Layer>& layers;
  PassContext& context;
  const PlaceWeights* weights;
  int64_t skip;
  std::unique_ptr<StagedRun> exact, rounded;

  std::vector<float> weigh(const SharedInput& input, int64_t sample) const {
    std::vector<NodeId> nodes;
    for (size_t l : input.layers) nodes.push_back(layers[l].node);
    return weights ? weights->mean_of(nodes, sample + skip) : std::vector<float>{};
  }

  void check(ValueId value, const Tensor& t) const {
    if (first_nonfinite(t) >= 0) throw Error(ErrorKind::Malformed, "it has a NaN or an infinite element", graph.value(value).name);
  }
};

MomentsRun::MomentsRun(const Graph& graph, const Graph* quantized, const std::vector<Layer>& layers, std::span<const SharedInput> inputs, PassContext& context, int64_t skip,
                       const PlaceWeights* weights)
    : impl_(new Impl{graph, layers, context, weights, skip, nullptr, nullptr}) {
  std::vector<ValueId> values, behind;  // what no layer lies before is the same in both graphs
  for (const SharedInput& input : inputs) {
    if (values.empty() || values.back() != input.input) values.push_back(input.input);
    if (input.depth > 0 && (behind.empty() || behind.back() != input.input)) behind.push_back(input.input);
  }
  const StagedOptions options{.skip = skip, .threads = context.threads};
  impl_->exact = std::make_unique<StagedRun>(graph, *context.calibration, values, options);
  if (quantized && !behind.empty()) impl_->rounded = std::make_unique<StagedRun>(*quantized, *context.calibration, behind, options);
}

MomentsRun::~MomentsRun() = default;

void MomentsRun::collect(std::span<SharedInput> inputs) {
  if (inputs.empty()) return;
  const int threads = impl_->context.threads;
  const bool cross = impl_->rounded && inputs.front().depth > 0;
  std::vector<ValueId> values;
  std::vector<size_t> place;
  for (SharedInput& input : inputs) {
    input.moments = std::make_unique<InputMoments>(impl_->graph, impl_->layers[input.layers[0]]);
    if (values.empty() || values.back() != input.input) values.push_back(input.input);
    place.push_back(values.size() - 1);
  }
  TensorStore originals(kMostHeld);
  std::vector<std::vector<int64_t>> tickets(static_cast<size_t>(impl_->exact->samples()));
  SampleOrder<std::vector<Tensor>> add([&](int64_t sample, const std::vector<Tensor>& seen) {
    std::vector<Tensor> exact;
    for (int64_t ticket : tickets[static_cast<size_t>(sample)]) exact.push_back(originals.get(ticket)), originals.drop(ticket);
    for (size_t i = 0; i < inputs.size(); ++i) {
      const LaidOut x{seen[place[i]], Layout::Plain};
      const std::vector<float> weights = impl_->weigh(inputs[i], sample);
      if (cross) inputs[i].moments->add(x, {exact[place[i]], Layout::Plain}, threads, &weights);
      else inputs[i].moments->add(x, threads, &weights);
    }
  });
  impl_->exact->advance(values, [&](int64_t sample, const std::vector<Tensor>& seen) {
    for (size_t i = 0; i < seen.size(); ++i) impl_->check(values[i], seen[i]);
    if (!cross) return add.take(sample, seen);
    for (const Tensor& t : seen) tickets[static_cast<size_t>(sample)].push_back(originals.put(t));
  });
  if (cross) impl_->rounded->advance(values, [&](int64_t sample, const std::vector<Tensor>& seen) { add.take(sample, seen); });
  for (SharedInput& input : inputs) input.moments->finish(threads);
}

}  // namespace infopt

#include "passes/support/input_moments.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/runtime/layout.h"
#include "lib/runtime/window.h"
#include "passes/support/dense.h"

namespace infopt {
namespace {

constexpr int64_t kPlaces = 1024;    ///< of a convolution, taken from one sample
constexpr int64_t kTogether = 1024;  ///< places that are multiplied at once

/// One place of a convolution's output: its index along each spatial axis.
void place_of(int64_t index, const Shape& out, Shape& place) {
  for (size_t d = out.size(); d-- > 0; index /= out[d]) place[d] = index % out[d];
}

}  // namespace

InputMoments::InputMoments(const Graph& graph, const Layer& layer) : node_(graph.node(layer.node)), layer_(layer), k_(layer.in * layer.taps) {
  const Shape& stored = graph.constant(layer.weights)->shape();
  if (layer.convolution) kernel_.assign(stored.begin() + 2, stored.end());
  const auto groups = static_cast<size_t>(layer.groups);
  h_.assign(groups, std::vector<float>(static_cast<size_t>(k_ * k_), 0.0f));
  rows_.resize(groups);
  originals_.resize(groups);
}

/// The places of one group, [places][k].
std::vector<float> InputMoments::rows_of(LaidOut x, int64_t group) const {
  const Tensor plain = cast(x.layout == Layout::ChannelsLast ? convert_layout(x.tensor, x.layout, Layout::Plain) : x.tensor, DType::F32);
  const float* p = plain.data<float>();
  if (!layer_.convolution) {
    if (plain.rank() < 1 || plain.dim(-1) != k_) throw Error(ErrorKind::Malformed, "an input of " + to_string(plain.shape()) + " for weights of " + std::to_string(k_) + " rows");
    return {p, p + plain.size()};
  }
  const int64_t channels = layer_.in * layer_.groups;
  if (plain.rank() != static_cast<int64_t>(kernel_.size()) + 2 || plain.dim(1) != channels) throw Error(ErrorKind::Malformed, "an input of " + to_string(plain.shape()) + " for a convolution");
  const Shape spatial(plain.shape().begin() + 2, plain.shape().end());
  const Window w = resolve_window(WindowAttributes::of(node_), spatial, kernel_);
  const int64_t area = element_count(spatial), outputs = element_count(w.out), all = plain.dim(0) * outputs, step = (all + kPlaces - 1) / kPlaces;
  std::vector<float> rows(static_cast<size_t>((all + step - 1) / step * k_), 0.0f);
  std::vector<int64_t> from(static_cast<size_t>(layer_.taps));
  Shape place(spatial.size()), tap(spatial.size());
  float* to = rows.data();
  for (int64_t index = 0; index < all; index += step, to += k_) {
    place_of(index % outputs, w.out, place);
    for (int64_t t = 0; t < layer_.taps; ++t) {
      place_of(t, kernel_, tap);
      int64_t at = 0;
      for (size_t d = 0; d < spatial.size() && at >= 0; ++d) {
        const int64_t x_d = place[d] * w.strides[d] + tap[d] * w.dilations[d] - w.pads_begin[d];
        at = x_d < 0 || x_d >= spatial[d] ? -1 : at * spatial[d] + x_d;
      }
      from[static_cast<size_t>(t)] = at;
    }
    const float* image = p + (index / outputs * channels + group * layer_.in) * area;
    for (int64_t c = 0; c < layer_.in; ++c)
      for (int64_t t = 0; t < layer_.taps; ++t)
        if (from[static_cast<size_t>(t)] >= 0) to[c * layer_.taps + t] = image[c * area + from[static_cast<size_t>(t)]];
  }
  return rows;
}

void InputMoments::add(LaidOut quantized, int threads) {
  for (int64_t g = 0; g < groups(); ++g) {
    const std::vector<float> rows = rows_of(quantized, g);
    rows_[static_cast<size_t>(g)].insert(rows_[static_cast<size_t>(g)].end(), rows.begin(), rows.end());
    if (g == 0) places_ += static_cast<int64_t>(rows.size()) / k_;
  }
  if (static_cast<int64_t>(rows_[0].size()) >= kTogether * k_) take(threads);
}

void InputMoments::add(LaidOut quantized, LaidOut original, int threads) {
  if (quantized.tensor.shape() != original.tensor.shape()) throw Error(ErrorKind::Defect, "a layer's input has another shape in the quantized graph", node_.name);
  if (cross_.empty()) cross_ = std::vector<std::vector<float>>(h_.size(), std::vector<float>(h_[0].size(), 0.0f));
  for (int64_t g = 0; g < groups(); ++g) {
    const std::vector<float> rows = rows_of(original, g);
    originals_[static_cast<size_t>(g)].insert(originals_[static_cast<size_t>(g)].end(), rows.begin(), rows.end());
  }
  add(quantized, threads);
}

void InputMoments::take(int threads) {
  for (size_t g = 0; g < h_.size(); ++g) {
    const int64_t count = static_cast<int64_t>(rows_[g].size()) / k_;
    add_gram(rows_[g].data(), count, k_, h_[g].data(), threads);
    if (has_cross()) add_product(k_, k_, count, 1, {originals_[g].data(), 1, k_}, {rows_[g].data(), k_, 1}, cross_[g].data(), k_, threads);
    rows_[g].clear();
    originals_[g].clear();
  }
}

void InputMoments::finish(int threads) {
  take(threads);
  for (size_t g = 0; g < h_.size(); ++g) {
    rows_[g] = originals_[g] = {};
    for (int64_t i = 0; i < k_; ++i)
      for (int64_t j = 0; j < i; ++j) h_[g][static_cast<size_t>(j * k_ + i)] = h_[g][static_cast<size_t>(i * k_ + j)];
  }
}

std::vector<float> InputMoments::corrected(const std::vector<float>& weights, int64_t rows, int64_t group, double damp, int threads) const {
  if (!has_cross()) return weights;
  const std::vector<float>& own = h(group);
  std::vector<float> difference = cross_[static_cast<size_t>(group)], moved(weights.size(), 0.0f), factor = own;
  double mean = 0;
  for (int64_t i = 0; i < k_; ++i) mean += static_cast<double>(own[static_cast<size_t>(i * k_ + i)]) / static_cast<double>(k_);
  for (size_t i = 0; i < difference.size(); ++i) difference[i] -= own[i];
  for (int64_t i = 0; i < k_; ++i) factor[static_cast<size_t>(i * k_ + i)] += static_cast<float>(std::max(damp, 1e-6) * mean);
  if (!(mean > 0) || !cholesky(factor.data(), k_, threads)) return weights;
  add_product(rows, k_, k_, 1, {weights.data(), k_, 1}, {difference.data(), k_, 1}, moved.data(), k_, threads);
  solve_rows(moved.data(), rows, factor.data(), k_, threads);
  for (size_t i = 0; i < moved.size(); ++i) moved[i] += weights[i];
  return moved;
}

}  // namespace infopt

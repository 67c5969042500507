#include "passes/support/input_moments.h"

#include <algorithm>
#include <cmath>

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
  sums_.assign(groups, std::vector<double>(static_cast<size_t>(k_), 0.0));
  original_sums_ = sums_;
  rows_.resize(groups);
  originals_.resize(groups);
}

/// Appends each group's places, [places][k], each times the root of its weight; those without weight are left out. Gives the roots.
std::vector<float> InputMoments::append_rows(LaidOut x, const std::vector<float>* weights, std::vector<std::vector<float>>& to) const {
  const Tensor plain = cast(x.layout == Layout::ChannelsLast ? convert_layout(x.tensor, x.layout, Layout::Plain) : x.tensor, DType::F32);
  const float* p = plain.data<float>();
  std::vector<float> roots;
  if (!layer_.convolution) {
    if (plain.rank() < 1 || plain.dim(-1) != k_) throw Error(ErrorKind::Malformed, "an input of " + to_string(plain.shape()) + " for weights of " + std::to_string(k_) + " rows");
    if (!weights || static_cast<int64_t>(weights->size()) * k_ != plain.size()) {
      to[0].insert(to[0].end(), p, p + plain.size());
      return std::vector<float>(static_cast<size_t>(plain.size() / k_), 1.0f);
    }
    for (float weight : *weights) {
      const float root = std::sqrt(weight);
      if (weight > 0) {
        roots.push_back(root);
        for (int64_t i = 0; i < k_; ++i) to[0].push_back(p[i] * root);
      }
      p += k_;
    }
    return roots;
  }
  const int64_t channels = layer_.in * layer_.groups;
  if (plain.rank() != static_cast<int64_t>(kernel_.size()) + 2 || plain.dim(1) != channels) throw Error(ErrorKind::Malformed, "an input of " + to_string(plain.shape()) + " for a convolution");
  const Shape spatial(plain.shape().begin() + 2, plain.shape().end());
  const int64_t area = element_count(spatial);
  const std::vector<Place> places = find_places(plain.dim(0), spatial, weights);
  for (const Place& place : places) roots.push_back(place.root);
  for (int64_t group = 0; group < groups(); ++group) {
    std::vector<float>& rows = to[static_cast<size_t>(group)];
    const size_t begin = rows.size();
    rows.resize(begin + places.size() * static_cast<size_t>(k_), 0.0f);
    float* row = rows.data() + begin;
    for (const Place& place : places) {
      const float* image = p + (place.image * channels + group * layer_.in) * area;
      for (int64_t c = 0; c < layer_.in; ++c, image += area)
        for (int64_t from : place.taps) {
          if (from >= 0) *row = image[from] * place.root;
          ++row;
        }
    }
  }
  return roots;
}

/// Those that are taken, evenly, and where each tap of the window reads: -1 where that is padding. Those without weight are left out.
std::vector<InputMoments::Place> InputMoments::find_places(int64_t images, const Shape& spatial, const std::vector<float>* weights) const {
  const Window w = resolve_window(WindowAttributes::of(node_), spatial, kernel_);
  const int64_t outputs = element_count(w.out), all = images * outputs, step = (all + kPlaces - 1) / kPlaces;
  if (weights && static_cast<int64_t>(weights->size()) != all) weights = nullptr;
  std::vector<Shape> taps(static_cast<size_t>(layer_.taps), Shape(spatial.size()));
  for (size_t t = 0; t < taps.size(); ++t) place_of(static_cast<int64_t>(t), kernel_, taps[t]);
  std::vector<Place> places;
  Shape place(spatial.size());
  for (int64_t index = 0; index < all; index += step) {
    const float weight = weights ? (*weights)[static_cast<size_t>(index)] : 1;
    if (!(weight > 0)) continue;
    place_of(index % outputs, w.out, place);
    Place& made = places.emplace_back(Place{index / outputs, std::sqrt(weight), {}});
    for (const Shape& tap : taps) {
      int64_t at = 0;
      for (size_t d = 0; d < spatial.size() && at >= 0; ++d) {
        const int64_t x_d = place[d] * w.strides[d] + tap[d] * w.dilations[d] - w.pads_begin[d];
        at = x_d < 0 || x_d >= spatial[d] ? -1 : at * spatial[d] + x_d;
      }
      made.taps.push_back(at);
    }
  }
  return places;
}

void InputMoments::add(LaidOut quantized, int threads, const std::vector<float>* weights) {
  const std::vector<float> roots = append_rows(quantized, weights, rows_);
  roots_.insert(roots_.end(), roots.begin(), roots.end());
  if (static_cast<int64_t>(rows_[0].size()) >= kTogether * k_) take(threads);
}

void InputMoments::add(LaidOut quantized, LaidOut original, int threads, const std::vector<float>* weights) {
  if (quantized.tensor.shape() != original.tensor.shape()) throw Error(ErrorKind::Defect, "a layer's input has another shape in the quantized graph", node_.name);
  if (cross_.empty()) cross_ = std::vector<std::vector<float>>(h_.size(), std::vector<float>(h_[0].size(), 0.0f));
  append_rows(original, weights, originals_);
  add(quantized, threads, weights);
}

void InputMoments::take(int threads) {
  const auto add_sums = [&](const std::vector<float>& rows, std::vector<double>& sums) {
    for (size_t r = 0; r < roots_.size(); ++r)
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += static_cast<double>(roots_[r]) * static_cast<double>(rows[r * sums.size() + i]);
  };
  for (size_t g = 0; g < h_.size(); ++g) {
    const auto count = static_cast<int64_t>(roots_.size());
    add_gram(rows_[g].data(), count, k_, h_[g].data(), threads);
    add_sums(rows_[g], sums_[g]);
    add_sums(has_cross() ? originals_[g] : rows_[g], original_sums_[g]);
    if (has_cross()) add_product(k_, k_, count, 1, {originals_[g].data(), 1, k_}, {rows_[g].data(), k_, 1}, cross_[g].data(), k_, threads);
    rows_[g].clear();
    originals_[g].clear();
  }
  for (float root : roots_) weight_ += static_cast<double>(root * root), squares_ += static_cast<double>(root * root) * static_cast<double>(root * root);
  roots_.clear();
}

void InputMoments::finish(int threads) {
  take(threads);
  for (size_t g = 0; g < h_.size(); ++g) {
    rows_[g] = originals_[g] = {};
    for (int64_t i = 0; i < k_; ++i)
      for (int64_t j = 0; j < i; ++j) h_[g][static_cast<size_t>(j * k_ + i)] = h_[g][static_cast<size_t>(i * k_ + j)];
  }
}

void InputMoments::center() {
  const double n = weight_ > 0 ? weight_ : 1;
  const auto k = static_cast<size_t>(k_);
  for (size_t g = 0; g < h_.size(); ++g)
    for (size_t i = 0; i < k; ++i)
      for (size_t j = 0; j < k; ++j) {
        h_[g][i * k + j] -= static_cast<float>(sums_[g][i] * sums_[g][j] / n);
        if (has_cross()) cross_[g][i * k + j] -= static_cast<float>(original_sums_[g][i] * sums_[g][j] / n);
      }
}

std::vector<float> InputMoments::shift(const std::vector<float>& weights, const std::vector<float>& quantized, int64_t group) const {
  const auto& x = original_sums_[static_cast<size_t>(group)];
  const auto& y = sums_[static_cast<size_t>(group)];
  std::vector<float> out;
  for (size_t from = 0; from < weights.size(); from += x.size()) {
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(weights[from + i]) * x[i] - static_cast<double>(quantized[from + i]) * y[i];
    out.push_back(static_cast<float>(sum / (weight_ > 0 ? weight_ : 1)));
  }
  return out;
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

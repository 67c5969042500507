#include "passes/support/ridge.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/runtime/window.h"
#include "passes/support/dense.h"
#include "passes/support/live_places.h"

namespace infopt {
namespace {

constexpr int64_t kLeastPlaces = 8192, kPlacesPerInput = 4;  ///< over all samples
constexpr int64_t kMostPerInput = 64;   ///< where there are so many
constexpr double kMostProducts = 3e10;  ///< of a layer's XXᵀ, beyond the least places
constexpr float kFactors[] = {1e-2f, 1e-1f, 1e-4f, 1e-3f, 1.0f};    ///< λ over the mean of XXᵀ's diagonal
constexpr int64_t kTogether = 1024;  ///< places that are multiplied at once
constexpr int64_t kLargeK = 2048;                            ///< from here on fewer λ are tried, on one half

void symmetric(std::vector<float>& h, int64_t k) {
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j < i; ++j) h[static_cast<size_t>(j * k + i)] = h[static_cast<size_t>(i * k + j)];
}

/// Δ = R·(H + λ)⁻¹, with next to no λ for the last column where that is the bias.
std::vector<float> solve_ridge(const std::vector<float>& r, std::vector<float> h, int64_t rows, int64_t k, bool bias, float factor, int threads) {
  double mean = 0;
  const int64_t weights = bias ? k - 1 : k;
  for (int64_t i = 0; i < weights; ++i) mean += static_cast<double>(h[static_cast<size_t>(i * k + i)]) / static_cast<double>(weights);
  for (int64_t i = 0; i < k; ++i) h[static_cast<size_t>(i * k + i)] += i < weights ? static_cast<float>(mean) * factor : h[static_cast<size_t>(i * k + i)] * 1e-5f;
  std::vector<float> delta = r;
  if (!(mean > 0) || !cholesky(h.data(), k, threads)) return {};
  solve_rows(delta.data(), rows, h.data(), k, threads);
  return delta;
}

/// What Δ takes off the squared error: 2·tr(ΔRᵀ) − tr(ΔHΔᵀ).
double gain(const std::vector<float>& delta, const std::vector<float>& r, const std::vector<float>& h, int64_t rows, int64_t k, int threads) {
  if (delta.empty()) return -1;
  std::vector<float> dh(delta.size(), 0.0f);
  add_product(rows, k, k, 1, {delta.data(), k, 1}, {h.data(), k, 1}, dh.data(), k, threads);
  double sum = 0;
  for (size_t i = 0; i < delta.size(); ++i) sum += static_cast<double>(delta[i]) * (2 * static_cast<double>(r[i]) - static_cast<double>(dh[i]));
  return sum;
}

/// R = C − W·H.
std::vector<float> residual(const std::vector<float>& w, const std::vector<float>& c, const std::vector<float>& h, int64_t rows, int64_t k, int threads) {
  std::vector<float> r = c;
  add_product(rows, k, k, -1, {w.data(), k, 1}, {h.data(), k, 1}, r.data(), k, threads);
  return r;
}

}  // namespace

RidgeFit::RidgeFit(const Node& node, const Shape& stored, const Layer& layer, bool with_bias, int64_t samples) : node_(node), layer_(layer), bias_(with_bias), alone_(samples == 1), k_(layer.in * layer.taps), width_(k_ + with_bias) {
  if (layer.convolution) kernel_.assign(stored.begin() + 2, stored.end());
  const auto affordable = static_cast<int64_t>(kMostProducts / (static_cast<double>(k_) * static_cast<double>(k_)));
  const int64_t places = std::max({kLeastPlaces, kPlacesPerInput * k_, std::min(kMostPerInput * k_, affordable)});
  most_ = std::max<int64_t>(8, places / std::max<int64_t>(1, samples));
  for (auto& half : halves_) half.assign(static_cast<size_t>(layer.groups), {std::vector<float>(static_cast<size_t>(width_ * width_), 0.0f), std::vector<float>(static_cast<size_t>(rows() * width_), 0.0f), 0, {}, {}});
}

std::vector<float> RidgeFit::inputs(const Tensor& x, int64_t group, const std::vector<int64_t>& places) const {
  const float* p = x.data<float>();
  std::vector<float> out;
  if (!layer_.convolution) {
    for (int64_t place : places) {
      out.insert(out.end(), p + place * k_, p + (place + 1) * k_);
      if (bias_) out.push_back(1);
    }
    return out;
  }
  const int64_t channels = layer_.in * layer_.groups;
  const Shape spatial(x.shape().begin() + 2, x.shape().end());
  const Window w = resolve_window(WindowAttributes::of(node_), spatial, kernel_);
  const int64_t area = element_count(spatial), each = element_count(w.out), count = static_cast<int64_t>(places.size());
  out.assign(static_cast<size_t>(count * width_), 0.0f);
  float* to = out.data();
  for (int64_t index : places) {
    const float* image = p + (index / each * channels + group * layer_.in) * area;
    for (int64_t t = 0; t < layer_.taps; ++t) {
      int64_t at = 0, place = index % each, tap = t, stride = 1;
      for (size_t d = spatial.size(); d-- > 0 && at >= 0;) {
        const int64_t from = place % w.out[d] * w.strides[d] + tap % kernel_[d] * w.dilations[d] - w.pads_begin[d];
        at = from < 0 || from >= spatial[d] ? -1 : at + from * stride;
        place /= w.out[d], tap /= kernel_[d], stride *= spatial[d];
      }
      for (int64_t c = 0; at >= 0 && c < layer_.in; ++c) to[c * layer_.taps + t] = image[c * area + at];
    }
    if (bias_) to[k_] = 1;
    to += width_;
  }
  return out;
}

std::vector<float> RidgeFit::outputs(const LayerTarget& target, int64_t group, const std::vector<int64_t>& places) const {
  const Tensor& y = target.output;
  const int64_t axis = layer_.convolution ? 1 : y.rank() - 1, whole = y.dim(axis);
  int64_t inner = 1;
  for (int64_t a = axis + 1; a < y.rank(); ++a) inner *= y.dim(a);
  std::vector<int64_t> channels;
  for (int64_t c = 0; c < whole; ++c)
    if (target.keep.empty() || target.keep[static_cast<size_t>(c)]) channels.push_back(c);
  if (static_cast<int64_t>(channels.size()) != layer_.out) throw Error(ErrorKind::Defect, "a layer makes other channels than it should", node_.name);
  const bool added = target.residual_then.defined();
  const float *p = y.data<float>(), *then = added ? target.residual_then.data<float>() : nullptr, *now = added ? target.residual_now.data<float>() : nullptr;
  std::vector<float> out;
  for (int64_t place : places) {
    const int64_t from = place / inner * whole * inner + place % inner, short_from = place / inner * layer_.out * inner + place % inner;
    for (int64_t o = group * rows(); o < (group + 1) * rows(); ++o) {
      const int64_t at = from + channels[static_cast<size_t>(o)] * inner;
      out.push_back(added ? p[at] + then[at] - now[short_from + o * inner] : p[at]);
    }
  }
  return out;
}

void RidgeFit::add(int64_t sample, const Tensor& input, const LayerTarget& target, const std::vector<bool>* live, int threads) {
  const int64_t axis = layer_.convolution ? 1 : -1;
  if (input.rank() < 1 || input.dtype() != DType::F32 || target.output.dtype() != DType::F32) throw Error(ErrorKind::Unsupported, "its values aren't float32", node_.name);
  if (input.dim(axis) != layer_.in * layer_.groups) throw Error(ErrorKind::Malformed, "an input of " + to_string(input.shape()) + " doesn't fit the layer", node_.name);
  const int64_t all = target.output.size() / std::max<int64_t>(1, target.output.dim(axis));
  if (!layer_.convolution && input.size() != all * k_) throw Error(ErrorKind::Malformed, "an input of " + to_string(input.shape()) + " doesn't fit the output", node_.name);
  if (layer_.convolution) {
    const Shape spatial(input.shape().begin() + 2, input.shape().end());
    if (input.dim(0) * element_count(resolve_window(WindowAttributes::of(node_), spatial, kernel_).out) != all) throw Error(ErrorKind::Malformed, "an input of " + to_string(input.shape()) + " doesn't fit the output", node_.name);
  }
  const std::vector<int64_t> places = spread_places(all, live, most_);
  for (int64_t g = 0; g < layer_.groups; ++g) {
    const std::vector<float> x = inputs(input, g, places), y = outputs(target, g, places);
    const int64_t count = static_cast<int64_t>(x.size()) / width_;
    if (count * rows() != static_cast<int64_t>(y.size())) throw Error(ErrorKind::Malformed, "an input of " + to_string(input.shape()) + " doesn't fit the output", node_.name);
    const int64_t cut = alone_ ? count / 2 : 0;  // of a single sample, half of the places
    for (int h : {0, 1}) {
      if (!alone_ && h != sample % 2) continue;
      const int64_t from = h == 1 && alone_ ? cut : 0, to = h == 0 && alone_ ? cut : count;
      Half& half = halves_[h][static_cast<size_t>(g)];
      half.x.insert(half.x.end(), x.begin() + from * width_, x.begin() + to * width_);
      half.y.insert(half.y.end(), y.begin() + from * rows(), y.begin() + to * rows());
      half.places += to - from;
      if (static_cast<int64_t>(half.x.size()) >= kTogether * width_) take(half, threads);
    }
  }
}

void RidgeFit::take(Half& half, int threads) {
  const int64_t count = static_cast<int64_t>(half.x.size()) / width_;
  if (count == 0) return;
  add_gram(half.x.data(), count, width_, half.h.data(), threads);
  add_product(rows(), width_, count, 1, {half.y.data(), 1, rows()}, {half.x.data(), width_, 1}, half.c.data(), width_, threads);
  half.x.clear();
  half.y.clear();
}

bool RidgeFit::solve_group(size_t group, std::vector<float>& w, int threads) const {
  Half a = halves_[0][group], b = halves_[1][group];
  if (a.places + b.places == 0) return false;
  symmetric(a.h, width_);
  symmetric(b.h, width_);
  std::vector<float> h = a.h, c = a.c;
  for (size_t i = 0; i < h.size(); ++i) h[i] += b.h[i];
  for (size_t i = 0; i < c.size(); ++i) c[i] += b.c[i];
  const std::vector<float> r = residual(w, c, h, rows(), width_, threads);
  float best = kFactors[1];
  if (a.places > 0 && b.places > 0) {
    const std::vector<float> ra = residual(w, a.c, a.h, rows(), width_, threads), rb = residual(w, b.c, b.h, rows(), width_, threads);
    double most = 0;
    for (float factor : kFactors) {
      if (k_ > kLargeK && factor != kFactors[0] && factor != kFactors[1]) continue;
      double now = gain(solve_ridge(ra, a.h, rows(), width_, bias_, factor, threads), rb, b.h, rows(), width_, threads);
      if (k_ <= kLargeK) now += gain(solve_ridge(rb, b.h, rows(), width_, bias_, factor, threads), ra, a.h, rows(), width_, threads);
      if (now > most) most = now, best = factor;
    }
    if (most <= 0) return false;
  }
  const std::vector<float> delta = solve_ridge(r, h, rows(), width_, bias_, best, threads);
  if (delta.empty()) return false;
  for (size_t i = 0; i < w.size(); ++i) w[i] += delta[i];
  return true;
}

bool RidgeFit::solve(std::vector<float>& weights, std::vector<double>& bias, int threads) {
  for (auto& half : halves_)
    for (Half& group : half) take(group, threads);
  bool any = false;
  for (int64_t g = 0; g < layer_.groups; ++g) {
    std::vector<float> w(static_cast<size_t>(rows() * width_));
    for (int64_t o = 0; o < rows(); ++o) {
      std::copy_n(weights.begin() + (g * rows() + o) * k_, k_, w.begin() + o * width_);
      if (bias_) w[static_cast<size_t>(o * width_ + k_)] = static_cast<float>(bias[static_cast<size_t>(g * rows() + o)]);
    }
    if (!solve_group(static_cast<size_t>(g), w, threads)) continue;
    any = true;
    for (int64_t o = 0; o < rows(); ++o) {
      std::copy_n(w.begin() + o * width_, k_, weights.begin() + (g * rows() + o) * k_);
      if (bias_) bias[static_cast<size_t>(g * rows() + o)] = static_cast<double>(w[static_cast<size_t>(o * width_ + k_)]);
    }
  }
  return any;
}

}  // namespace infopt

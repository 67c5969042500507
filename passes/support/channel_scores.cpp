#include "passes/support/channel_scores.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/base/simd.h"
#include "lib/base/threads.h"
#include "passes/support/dense.h"

namespace infopt {
namespace {

constexpr double kDamp = 0.01;    ///< of the mean variance
constexpr double kShrink = 0.5;   ///< of the mean variance, times channels over places: what few samples can't tell
constexpr size_t kTogether = 64;  ///< a 64th of what is left goes before costs are computed anew

INFOPT_SIMD void add_scaled(float* to, const float* from, float by, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += by * from[i];
}

/// W[out·tap][channel of the input], zero where a group of a convolution doesn't read it.
std::vector<float> by_channel(const Graph& graph, const Layer& l) {
  const std::vector<float> w = read_weights(l, *graph.constant(l.weights));
  const int64_t channels = l.in * l.groups, each = l.out / l.groups;
  std::vector<float> out(static_cast<size_t>(l.out * l.taps * channels), 0.0f);
  for (int64_t o = 0; o < l.out; ++o)
    for (int64_t i = 0; i < l.in; ++i)
      for (int64_t t = 0; t < l.taps; ++t) out[static_cast<size_t>((o * l.taps + t) * channels + o / each * l.in + i)] = w[static_cast<size_t>((o * l.in + i) * l.taps + t)];
  return out;
}

float damping(const ChannelMoments& m) {
  double mean = 0;
  for (int64_t i = 0; i < m.channels; ++i) mean += static_cast<double>(m.covariance[static_cast<size_t>(m.full() ? i * m.channels + i : i)]) / static_cast<double>(m.channels);
  const double few = kShrink * static_cast<double>(m.channels) / static_cast<double>(std::max<int64_t>(1, m.places));
  return static_cast<float>(std::max(std::max(kDamp, few) * mean, 1e-12));
}

/// One reader while classes go: P = (H + λ)⁻¹ and G = WᵀW, both of what is left.
class Eliminator {
 public:
  Eliminator(const Graph& graph, const GroupReader& reader, const ChannelMoments& m, int threads) : columns_(reader.columns), k_(m.channels) {
    const std::vector<float> w = by_channel(graph, reader.layer);
    const auto k = static_cast<size_t>(k_);
    g_.assign(k * k, 0.0f);
    add_gram(w.data(), static_cast<int64_t>(w.size()) / k_, k_, g_.data(), threads);
    for (size_t i = 0; i < k; ++i)
      for (size_t j = 0; j < i; ++j) g_[j * k + i] = g_[i * k + j];
    std::vector<float> h(k * k, 0.0f);
    for (size_t i = 0; i < k; ++i) {
      if (m.full()) std::copy_n(m.covariance.begin() + static_cast<int64_t>(i * k), k, h.begin() + static_cast<int64_t>(i * k));
      else h[i * k + i] = m.covariance[i];
      for (size_t j = 0; j < k; ++j) energy_ += static_cast<double>(h[i * k + j]) * static_cast<double>(g_[i * k + j]);
      h[i * k + i] += damping(m);
    }
    p_.assign(k * k, 0.0f);
    for (size_t i = 0; i < k; ++i) p_[i * k + i] = 1;
    cholesky(h.data(), k_, threads);
    solve_rows(p_.data(), k_, h.data(), k_, threads);
  }

  double cost(size_t c) const {
    const std::vector<int64_t>& columns = columns_[c];
    if (columns.empty() || energy_ <= 0) return 0;
    if (columns.size() == 1) return static_cast<double>(at(g_, columns[0], columns[0])) / std::max(1e-30, static_cast<double>(at(p_, columns[0], columns[0]))) / energy_;
    const auto b = static_cast<int64_t>(columns.size());
    std::vector<float> inverse = block(p_, columns), g = block(g_, columns);
    if (!cholesky(inverse.data(), b)) return 1e30;
    solve_rows(g.data(), b, inverse.data(), b);
    double trace = 0;
    for (int64_t i = 0; i < b; ++i) trace += static_cast<double>(g[static_cast<size_t>(i * b + i)]);
    return trace / energy_;
  }

  void remove(const std::vector<size_t>& classes, int threads) {
    std::vector<int64_t> columns;
    for (size_t c : classes) columns.insert(columns.end(), columns_[c].begin(), columns_[c].end());
    if (columns.empty()) return;
    const auto b = static_cast<int64_t>(columns.size());
    std::vector<float> inverse = block(p_, columns), m(static_cast<size_t>(k_ * b)), rows(static_cast<size_t>(b * k_)), g(static_cast<size_t>(b * k_));
    for (int64_t j = 0; j < b; ++j) {
      std::copy_n(p_.begin() + columns[static_cast<size_t>(j)] * k_, k_, rows.begin() + j * k_);
      std::copy_n(g_.begin() + columns[static_cast<size_t>(j)] * k_, k_, g.begin() + j * k_);
      for (int64_t i = 0; i < k_; ++i) m[static_cast<size_t>(i * b + j)] = rows[static_cast<size_t>(j * k_ + i)];
    }
    const std::vector<float> own = block(g_, columns);
    if (!cholesky(inverse.data(), b)) return;
    solve_rows(m.data(), k_, inverse.data(), b);  // mᵀ = (P_cc)⁻¹ P_c: , k × b
    // G − MᵀG_c − G_cᵀM + MᵀG_ccM; P − MᵀP_c.
    std::vector<float> mt(static_cast<size_t>(b * k_)), mg(static_cast<size_t>(k_ * b), 0.0f);
    for (int64_t i = 0; i < k_; ++i)
      for (int64_t j = 0; j < b; ++j) {
        mt[static_cast<size_t>(j * k_ + i)] = m[static_cast<size_t>(i * b + j)];
        for (int64_t l = 0; l < b; ++l) mg[static_cast<size_t>(i * b + j)] += m[static_cast<size_t>(i * b + l)] * own[static_cast<size_t>(l * b + j)];
      }
    parallel_for(k_, threads, [&](int64_t i, int) {
      float *p = p_.data() + i * k_, *q = g_.data() + i * k_;
      if (p[i] == 0) return;  // gone before
      for (int64_t j = 0; j < b; ++j) {
        const float by = m[static_cast<size_t>(i * b + j)];
        add_scaled(p, rows.data() + j * k_, -by, k_);
        add_scaled(q, g.data() + j * k_, -by, k_);
        add_scaled(q, mt.data() + j * k_, mg[static_cast<size_t>(i * b + j)] - g[static_cast<size_t>(j * k_ + i)], k_);
      }
    });
    for (int64_t x : columns)
      for (int64_t i = 0; i < k_; ++i)
        for (std::vector<float>* a : {&p_, &g_}) (*a)[static_cast<size_t>(i * k_ + x)] = (*a)[static_cast<size_t>(x * k_ + i)] = 0;
  }

 private:
  float at(const std::vector<float>& a, int64_t i, int64_t j) const { return a[static_cast<size_t>(i * k_ + j)]; }
  std::vector<float> block(const std::vector<float>& a, const std::vector<int64_t>& columns) const {
    std::vector<float> out;
    for (int64_t i : columns)
      for (int64_t j : columns) out.push_back(at(a, i, j));
    return out;
  }
  std::vector<std::vector<int64_t>> columns_;
  int64_t k_;
  double energy_ = 0;
  std::vector<float> p_, g_;
};

Ranking by_reconstruction(const Graph& graph, const ChannelGroup& group, const std::vector<GroupReader>& readers, const std::map<ChannelAxis, ChannelMoments>& moments, int threads) {
  std::vector<Eliminator> each;
  for (const GroupReader& r : readers) each.emplace_back(graph, r, moments.at(r.input), threads);
  Ranking out{{}, {0}};
  std::vector<size_t> left(group.classes.size());
  std::iota(left.begin(), left.end(), 0);
  while (left.size() > 1) {
    std::vector<std::pair<double, size_t>> costs;
    for (size_t c : left) {
      double cost = 0;
      for (const Eliminator& e : each) cost += e.cost(c);
      costs.emplace_back(cost, c);
    }
    std::sort(costs.begin(), costs.end());
    std::vector<size_t> away;  // of many, some at a time
    for (size_t i = 0; i < std::max<size_t>(1, left.size() / kTogether); ++i) {
      away.push_back(costs[i].second);
      out.order.push_back(group.classes[costs[i].second]);
      out.cost.push_back(out.cost.back() + std::max(0.0, costs[i].first));
    }
    for (Eliminator& e : each) e.remove(away, threads);
    std::erase_if(left, [&](size_t c) { return std::count(away.begin(), away.end(), c) > 0; });
  }
  return out;
}

/// Σ|w| or √Σw² of what makes each class, or |γ|, over the makers, each as a share of its mean.
std::vector<double> maker_scores(const Dimensions& d, const ChannelGroup& group, const std::string& score) {
  std::map<int32_t, size_t> place;
  for (size_t c = 0; c < group.classes.size(); ++c) place[group.classes[c]] = c;
  std::vector<double> total(group.classes.size(), 0);
  for (int round = score == "bn_scale" ? 0 : 1; round < 2; ++round) {  // where there is no scale, by L1
    for (const AxisUse& u : d.uses()) {
      const Node& n = d.graph().node(u.node);
      if (round == 0 ? !(n.is("BatchNormalization") && u.input == 1) : u.role != AxisRole::Makes) continue;
      const Tensor* t = d.graph().constant(n.input(u.input));
      if (!t) continue;
      const std::vector<double> values = to_vector<double>(*t);
      int64_t inner = 1;
      for (int64_t a = u.axis + 1; a < t->rank(); ++a) inner *= t->dim(a);
      std::vector<double> sums(group.classes.size(), 0);
      double mean = 0;
      for (size_t i = 0; i < values.size(); ++i) {
        const auto it = place.find(d.find(u.atoms[static_cast<size_t>(static_cast<int64_t>(i) / inner % t->dim(u.axis))]));
        if (it != place.end()) sums[it->second] += score == "l2" ? values[i] * values[i] : std::fabs(values[i]);
      }
      for (double& s : sums) s = score == "l2" ? std::sqrt(s) : s, mean += s / static_cast<double>(sums.size());
      for (size_t c = 0; mean > 0 && c < sums.size(); ++c) total[c] += sums[c] / mean;
    }
    if (std::any_of(total.begin(), total.end(), [](double s) { return s > 0; })) break;
  }
  return total;
}

}  // namespace

std::vector<GroupReader> readers_of(const Dimensions& d, const ChannelGroup& group) {
  std::vector<GroupReader> out;
  std::map<int32_t, size_t> place;
  for (size_t c = 0; c < group.classes.size(); ++c) place[group.classes[c]] = c;
  for (size_t u : group.readers) {
    const AxisUse& use = d.uses()[u];
    const auto layer = use.input == 1 ? layer_of(d.graph(), use.node) : std::nullopt;
    if (!layer) continue;
    const ValueId x = d.graph().node(use.node).input(0);
    const int64_t axis = layer->convolution ? 1 : d.rank(x) - 1;
    const Positions* in = d.axis(x, axis);
    if (!in) continue;
    GroupReader r{*layer, {x, axis}, std::vector<std::vector<int64_t>>(group.classes.size())};
    for (size_t i = 0; i < in->size(); ++i)
      if (const auto it = place.find(d.find((*in)[i])); it != place.end()) r.columns[it->second].push_back(static_cast<int64_t>(i));
    out.push_back(std::move(r));
  }
  return out;
}

Ranking rank_classes(const Dimensions& d, const ChannelGroup& group, const std::vector<GroupReader>& readers, const std::map<ChannelAxis, ChannelMoments>& moments, const std::string& score, int threads) {
  if (score == "reconstruction") return by_reconstruction(d.graph(), group, readers, moments, threads);
  std::vector<double> scores(group.classes.size(), 0);
  if (score == "activation") {
    for (const GroupReader& r : readers) {
      const ChannelMoments& m = moments.at(r.input);
      const double all = std::accumulate(m.square.begin(), m.square.end(), 0.0);
      for (size_t c = 0; c < scores.size(); ++c)
        for (int64_t i : r.columns[c]) scores[c] += all > 0 ? m.square[static_cast<size_t>(i)] / all : 0;
    }
  } else {
    scores = maker_scores(d, group, score);
  }
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  const double all = std::max(1e-30, std::accumulate(scores.begin(), scores.end(), 0.0));
  Ranking out{{}, {0}};
  for (size_t i = 0; i + 1 < order.size(); ++i) {
    out.order.push_back(group.classes[order[i]]);
    out.cost.push_back(out.cost.back() + scores[order[i]] / all);
  }
  return out;
}

Compensated compensate(const Graph& graph, const GroupReader& reader, const ChannelMoments& m, const std::vector<bool>& gone, int threads) {
  const Layer& l = reader.layer;
  const int64_t k = m.channels, rows = l.out * l.taps, each = l.out / l.groups;
  const std::vector<float> whole = by_channel(graph, l);
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < k; ++i)
    if (!gone[static_cast<size_t>(i)]) kept.push_back(i);
  const auto s = static_cast<int64_t>(kept.size());
  std::vector<float> now = whole;
  for (int64_t i = 0; i < rows * k; ++i)
    if (gone[static_cast<size_t>(i % k)]) now[static_cast<size_t>(i)] = 0;
  if (m.full() && l.groups == 1 && s > 0) {  // W_S + W_R·H_RS·(H_SS + λ)⁻¹
    std::vector<float> h(static_cast<size_t>(s * s)), removed, cross, moved(static_cast<size_t>(rows * s), 0.0f);
    for (int64_t i = 0; i < s; ++i) {
      for (int64_t j = 0; j < s; ++j) h[static_cast<size_t>(i * s + j)] = m.covariance[static_cast<size_t>(kept[static_cast<size_t>(i)] * k + kept[static_cast<size_t>(j)])];
      h[static_cast<size_t>(i * s + i)] += damping(m);
    }
    const int64_t away = k - s;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < k; ++i)
        if (gone[static_cast<size_t>(i)]) removed.push_back(whole[static_cast<size_t>(r * k + i)]);
    for (int64_t i = 0; i < k; ++i)
      if (gone[static_cast<size_t>(i)])
        for (int64_t j : kept) cross.push_back(m.covariance[static_cast<size_t>(i * k + j)]);
    if (away > 0 && cholesky(h.data(), s, threads)) {
      add_product(rows, s, away, 1, {removed.data(), away, 1}, {cross.data(), s, 1}, moved.data(), s, threads);
      solve_rows(moved.data(), rows, h.data(), s, threads);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t j = 0; j < s; ++j) now[static_cast<size_t>(r * k + kept[static_cast<size_t>(j)])] += moved[static_cast<size_t>(r * s + j)];
    }
  }
  Compensated out{std::vector<float>(static_cast<size_t>(l.out * l.in * l.taps)), std::vector<double>(static_cast<size_t>(l.out), 0)};
  for (int64_t o = 0; o < l.out; ++o)
    for (int64_t t = 0; t < l.taps; ++t)
      for (int64_t i = 0; i < l.in; ++i) {
        const int64_t c = o / each * l.in + i;
        const auto place = static_cast<size_t>((o * l.taps + t) * k + c);
        out.weights[static_cast<size_t>((o * l.in + i) * l.taps + t)] = now[place];
        out.bias[static_cast<size_t>(o)] += static_cast<double>(whole[place] - now[place]) * m.mean[static_cast<size_t>(c)];
      }
  return out;
}

}  // namespace infopt

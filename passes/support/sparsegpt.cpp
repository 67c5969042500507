#include "passes/support/sparsegpt.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/base/error.h"
#include "lib/base/simd.h"
#include "lib/base/threads.h"
#include "passes/support/dense.h"

namespace infopt {
namespace {

constexpr int64_t kSlab = 64;  ///< rows that one thread works on

INFOPT_SIMD void add_scaled(const float* x, float by, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += by * x[i];
}

/// H with λ on its diagonal, rows and columns in the given order.
std::vector<float> damped(const std::vector<float>& h, const std::vector<int64_t>& order, double damp) {
  const auto k = static_cast<int64_t>(order.size());
  double mean = 0;
  for (int64_t i = 0; i < k; ++i) mean += static_cast<double>(h[static_cast<size_t>(i * k + i)]) / static_cast<double>(k);
  if (!std::isfinite(mean)) throw Error(ErrorKind::Malformed, "its inputs' squares overflow");
  const float lambda = static_cast<float>(mean > 0 ? damp * mean : 1);
  std::vector<float> out(h.size());
  for (int64_t v = 0; v < k; ++v)
    for (int64_t u = 0; u < k; ++u) out[static_cast<size_t>(v * k + u)] = h[static_cast<size_t>(order[static_cast<size_t>(v)] * k + order[static_cast<size_t>(u)])] + (u == v ? lambda : 0);
  return out;
}

/// Arrays are [column in reverse order of passing][row]: column k − 1 is passed first.
class Sweep {
 public:
  Sweep(const std::vector<float>& weights, int64_t out, const std::vector<float>& h, const SparseGptOptions& options)
      : options_(options), out_(out), k_(static_cast<int64_t>(weights.size()) / out), order_(static_cast<size_t>(k_)) {
    if (options.order.empty()) std::iota(order_.begin(), order_.end(), 0);
    else order_ = options.order;
    std::reverse(order_.begin(), order_.end());
    factorize(h);
    w_.assign(weights.size(), 0.0f);  // of inputs that are always 0, too: those weights have no price
    for (int64_t u = 0; u < k_; ++u)
      for (int64_t r = 0, i = order_[static_cast<size_t>(u)]; r < out_ && h[static_cast<size_t>(i * k_ + i)] != 0; ++r) w_[at(u, r)] = weights[static_cast<size_t>(r * k_ + i)];
    error_.assign(w_.size(), 0.0f);
    value_.assign(w_.size(), 0.0f);
    kept_.assign(w_.size(), 1);
  }

  PrunedWeights run() {
    const int64_t step = options_.pattern.kind == PrunePattern::Kind::Unstructured ? kSparseBlock : whole_groups();
    for (int64_t end = k_; end > 0;) {
      // The first columns to be passed are the last: groups are counted from there.
      const int64_t n = std::min(step, end);
      pass(end - n, n);
      end -= n;
    }
    PrunedWeights pruned{std::vector<float>(w_.size()), PruneMask(w_.size())};
    for (int64_t u = 0; u < k_; ++u)
      for (int64_t r = 0; r < out_; ++r) {
        const auto to = static_cast<size_t>(r * k_ + order_[static_cast<size_t>(u)]);
        pruned.weights[to] = value_[at(u, r)];
        pruned.mask[to] = kept_[at(u, r)];
      }
    return pruned;
  }

 private:
  size_t at(int64_t column, int64_t row) const { return static_cast<size_t>(column * out_ + row); }
  bool grouped() const { return options_.pattern.kind == PrunePattern::Kind::NM; }
  int64_t group() const { return grouped() ? options_.pattern.m : options_.pattern.columns; }
  int64_t whole_groups() const { return std::max(group(), kSparseBlock / group() * group()); }

  void factorize(const std::vector<float>& h) {
    for (double damp = std::max(options_.damp, 1e-6);; damp *= 10) {
      factor_ = damped(h, order_, damp);
      if (cholesky(factor_.data(), k_, options_.threads)) break;
      if (damp > 10) throw Error(ErrorKind::Malformed, "its inputs' moments aren't finite");
    }
    for (int64_t u = 0; u < k_; ++u) {
      const float d = factor_[static_cast<size_t>(u * k_ + u)];
      price_.push_back(static_cast<double>(d) * static_cast<double>(d));
    }
    for (int64_t v = 0; v < k_; ++v)
      for (int64_t u = 0; u < v; ++u) factor_[static_cast<size_t>(v * k_ + u)] /= factor_[static_cast<size_t>(u * k_ + u)];
  }

  /// Columns [from, from + n), of which the later ones are passed.
  void pass(int64_t from, int64_t n) {
    std::vector<float> target(w_.begin() + static_cast<std::ptrdiff_t>(at(from, 0)), w_.begin() + static_cast<std::ptrdiff_t>(at(from + n, 0)));
    add_product(n, out_, k_ - from - n, 1, {factor_.data() + (from + n) * k_ + from, 1, k_}, {error_.data() + at(from + n, 0), out_, 1}, target.data(), out_, options_.threads);
    if (!grouped()) choose(from, n, 0, out_, options_.pattern, share(n), target);
    parallel_for((out_ + kSlab - 1) / kSlab, options_.threads, [&](int64_t slab, int) {
      const int64_t first = slab * kSlab, rows = std::min(kSlab, out_ - first);
      for (int64_t u = n - 1; u >= 0; --u) {
        if (grouped() && (n - 1 - u) % group() == 0) {
          const int64_t columns = std::min(group(), u + 1);
          choose_group(from, u + 1 - columns, columns, first, rows, target);
        }
        pass_column(from, u, first, rows, target);
      }
    });
  }

  /// What brings all columns so far, with these n, nearest to the share that is wanted.
  double share(int64_t n) {
    passed_ += n * out_;
    const int64_t count = static_cast<int64_t>(std::floor(options_.sparsity * static_cast<double>(passed_) + 0.5)) - dropped_;
    return std::clamp(static_cast<double>(count) / static_cast<double>(n * out_), 0.0, 1.0);
  }

  void choose(int64_t from, int64_t n, int64_t first, int64_t rows, const PrunePattern& pattern, double sparsity, const std::vector<float>& target) {
    std::vector<double> scores(static_cast<size_t>(n * rows));
    for (int64_t i = 0; i < n; ++i)  // in the order of passing
      for (int64_t r = 0; r < rows; ++r) scores[static_cast<size_t>(r * n + i)] = price(from, n - 1 - i, first + r, target);
    const PruneMask mask = prune_mask(scores, rows, n, pattern, sparsity, PruneRank::Layer);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t r = 0; r < rows; ++r) kept_[at(from + n - 1 - i, first + r)] = mask[static_cast<size_t>(r * n + i)];
    dropped_ += std::count(mask.begin(), mask.end(), uint8_t{0});
  }

  void choose_group(int64_t from, int64_t u, int64_t columns, int64_t first, int64_t rows, const std::vector<float>& target) {
    std::vector<std::pair<double, int64_t>> scored(static_cast<size_t>(columns));
    for (int64_t r = first; r < first + rows; ++r) {
      // The lowest go; of equal ones those that are passed first.
      for (int64_t i = 0; i < columns; ++i) scored[static_cast<size_t>(i)] = {price(from, u + columns - 1 - i, r, target), i};
      std::sort(scored.begin(), scored.end());
      for (int64_t i = 0; i < columns - options_.pattern.n; ++i) kept_[at(from + u + columns - 1 - scored[static_cast<size_t>(i)].second, r)] = 0;
    }
  }

  double price(int64_t from, int64_t u, int64_t row, const std::vector<float>& target) const {
    const double t = static_cast<double>(target[at(u, row)]), s = t * t * price_[static_cast<size_t>(from + u)];
    if (!std::isfinite(s)) throw Error(ErrorKind::Malformed, "its weights have a NaN or an infinity");
    return s;
  }

  void pass_column(int64_t from, int64_t u, int64_t first, int64_t rows, std::vector<float>& target) {
    const size_t place = at(from + u, first);
    const float* t = target.data() + at(u, first);
    for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
      value_[place + r] = kept_[place + r] ? t[r] : 0.0f;
      error_[place + r] = w_[place + r] - value_[place + r];
    }
    for (int64_t v = 0; v < u; ++v) add_scaled(error_.data() + place, factor_[static_cast<size_t>((from + u) * k_ + from + v)], target.data() + at(v, first), rows);
  }

  const SparseGptOptions& options_;
  int64_t out_, k_, passed_ = 0, dropped_ = 0;
  std::vector<int64_t> order_;
  std::vector<float> factor_, w_, value_, error_;
  std::vector<double> price_;
  PruneMask kept_;
};

/// sum[row] += a[row]·b[row].
INFOPT_SIMD void add_products(const float* a, const float* b, double* sum, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
}

/// y[row] = x[row] + by[row]·y[row].
INFOPT_SIMD void renew(const float* x, const float* by, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] + by[i] * y[i];
}

/// y[row] += by[row]·x[row].
INFOPT_SIMD void add_by_row(const float* x, const float* by, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += by[i] * x[i];
}

INFOPT_SIMD void multiply(const float* by, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] *= by[i];
}

INFOPT_SIMD void scale(const float* x, float by, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = by * x[i];
}

/// [rows][columns] as [columns][rows].
std::vector<float> turned(const std::vector<float>& m, size_t rows) {
  const size_t columns = m.size() / rows;
  std::vector<float> out(m.size());
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < columns; ++c) out[c * rows + r] = m[r * columns + c];
  return out;
}

}  // namespace

PrunedWeights sparsegpt(const std::vector<float>& weights, int64_t out, const std::vector<float>& h, const SparseGptOptions& options) {
  if (weights.empty() || out <= 0) return {weights, PruneMask(weights.size(), 1)};
  PrunedWeights pruned = Sweep(weights, out, h, options).run();
  if (options.refit_steps > 0) pruned.weights = refit_masked(weights, pruned.weights, pruned.mask, out, h, options.damp, options.refit_steps, options.threads);
  return pruned;
}

std::vector<float> refit_masked(const std::vector<float>& weights, const std::vector<float>& start, const PruneMask& mask, int64_t out, const std::vector<float>& h, double damp, int steps, int threads) {
  if (weights.empty() || out <= 0) return start;
  // Arrays are [column][row]; each row has gradients of its own, which share the products with H.
  const auto rows = static_cast<size_t>(out), k = weights.size() / rows;
  const auto wide = static_cast<int64_t>(k);
  std::vector<int64_t> natural(k);
  std::iota(natural.begin(), natural.end(), 0);
  const std::vector<float> full = damped(h, natural, std::max(damp, 1e-6));
  const std::vector<float> w = turned(weights, rows), kept = turned(std::vector<float>(mask.begin(), mask.end()), rows);
  std::vector<float> x = turned(start, rows), residual(w.size()), direction(w.size(), 0.0f), image(w.size()), scaled(w.size());
  const auto each_column = [&](auto f) {
    for (size_t c = 0; c < k; ++c) f(c, c * rows);
  };
  const auto times_h = [&](const std::vector<float>& from, std::vector<float>& to) {
    std::fill(to.begin(), to.end(), 0.0f);
    add_product(wide, out, wide, 1, {full.data(), wide, 1}, {from.data(), out, 1}, to.data(), out, threads);
    multiply(kept.data(), to.data(), static_cast<int64_t>(to.size()));
  };
  const auto dots = [&](const std::vector<float>& a, const std::vector<float>& b) {
    std::vector<double> sum(rows, 0);
    each_column([&](size_t, size_t at) { add_products(a.data() + at, b.data() + at, sum.data(), out); });
    return sum;
  };
  for (size_t i = 0; i < w.size(); ++i) image[i] = w[i] - x[i];
  times_h(image, residual);
  std::vector<double> old(rows, 0);
  std::vector<float> ratio(rows), length(rows), back(rows);
  for (int s = 0; s < steps; ++s) {
    each_column([&](size_t c, size_t at) { scale(residual.data() + at, 1 / full[c * k + c], scaled.data() + at, out); });
    const std::vector<double> now = dots(residual, scaled);
    for (size_t r = 0; r < rows; ++r) ratio[r] = old[r] > 0 ? static_cast<float>(now[r] / old[r]) : 0.0f;
    each_column([&](size_t, size_t at) { renew(scaled.data() + at, ratio.data(), direction.data() + at, out); });
    times_h(direction, image);
    const std::vector<double> curvature = dots(direction, image);
    for (size_t r = 0; r < rows; ++r) length[r] = curvature[r] > 0 ? static_cast<float>(now[r] / curvature[r]) : 0.0f, back[r] = -length[r];
    each_column([&](size_t, size_t at) {
      add_by_row(direction.data() + at, length.data(), x.data() + at, out);
      add_by_row(image.data() + at, back.data(), residual.data() + at, out);
    });
    old = now;
  }
  for (float f : x)
    if (!std::isfinite(f)) return start;
  return turned(x, k);
}

}  // namespace infopt

#include "passes/support/gptq.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "lib/base/error.h"
#include "lib/base/float8.h"
#include "lib/base/threads.h"
#include "passes/support/dense.h"
#include "passes/support/round_block.h"

namespace infopt {
namespace {

constexpr int64_t kSlab = 4 * kRows;      ///< rows worked on together
constexpr int64_t kFixedColumns = 64;     ///< rounded together where the scale is given
constexpr double kPays = 0.002;            ///< a sweep that takes away less of the error is the last

/// H as the rounding sees it: columns in the order of rounding from the last to the first, its factor, and the forms of blocks.
class Quadratic {
 public:
  Quadratic(const std::vector<float>& h, int64_t k, int64_t block, const GptqOptions& options) : k_(k), block_(block) {
    find_order(h, options.act_order);
    find_parts();
    double mean = 0;
    for (int64_t i = 0; i < k; ++i) mean += static_cast<double>(h[static_cast<size_t>(i * k + i)]);
    mean /= static_cast<double>(k);
    if (!std::isfinite(mean)) throw Error(ErrorKind::Malformed, "its inputs' squares overflow");
    // An input that is always zero needs something on the diagonal, too.
    for (double damp = options.damp;; damp = std::max(damp * 10, 1e-4)) {
      permute(h, static_cast<float>(mean > 0 ? std::max(damp, 1e-6) * mean : 1));
      factor_ = h_;
      if (cholesky(factor_.data(), k, options.threads)) break;
      if (damp > 10) throw Error(ErrorKind::Malformed, "its inputs' moments aren't finite");
    }
    for (const Part& p : parts_) {
      forms_.push_back(block_form(factor_.data() + p.from * k + p.from, k, p.n));
      std::vector<float> own(static_cast<size_t>(p.n * p.n));
      for (int64_t u = 0; u < p.n; ++u) std::copy_n(h_.data() + (p.from + u) * k + p.from, p.n, own.data() + u * p.n);
      if (!cholesky(own.data(), p.n)) throw Error(ErrorKind::Defect, "a block of a positive definite matrix isn't");
      alone_.push_back(block_form(own.data(), p.n, p.n));
      apart_[p.n] = {p.n, std::vector<float>(own.size(), 0.0f), std::vector<float>(static_cast<size_t>(p.n), 1.0f)};
    }
    for (int64_t v = k - 1; v >= 0; --v)  // columns over their diagonal element: what an error moves the targets by
      for (int64_t u = 0; u < v; ++u) factor_[static_cast<size_t>(v * k + u)] /= factor_[static_cast<size_t>(u * k + u)];
  }

  /// Columns [from, from + n) of one block of the grid, rounded together.
  struct Part {
    int64_t from, n, block;
    bool first;  ///< of its block that is rounded
    int64_t block_from;
  };
  const std::vector<Part>& parts() const { return parts_; }  ///< in the order of rounding
  int64_t column(int64_t u) const { return order_[static_cast<size_t>(u)]; }
  const BlockForm& form(size_t part) const { return forms_[part]; }   ///< what later columns can't mend
  const BlockForm& alone(size_t part) const { return alone_[part]; }  ///< with all others held
  const BlockForm& apart(int64_t n) const { return apart_.at(n); }    ///< columns that don't see each other
  const float* h() const { return h_.data(); }
  const float* factor() const { return factor_.data(); }
  int64_t k() const { return k_; }

 private:
  void find_order(const std::vector<float>& h, bool by_energy) {
    auto energy = [&](int64_t i) { return static_cast<double>(h[static_cast<size_t>(i * k_ + i)]); };
    const int64_t blocks = (k_ + block_ - 1) / block_;
    std::vector<int64_t> sequence(static_cast<size_t>(blocks));
    std::iota(sequence.begin(), sequence.end(), 0);
    std::vector<double> total(sequence.size(), 0);
    for (int64_t i = 0; i < k_; ++i) total[static_cast<size_t>(i / block_)] += energy(i);
    if (by_energy) std::stable_sort(sequence.begin(), sequence.end(), [&](int64_t a, int64_t b) { return total[static_cast<size_t>(a)] > total[static_cast<size_t>(b)]; });
    for (int64_t b : sequence) {
      std::vector<int64_t> columns(static_cast<size_t>(std::min(block_, k_ - b * block_)));
      std::iota(columns.begin(), columns.end(), b * block_);
      if (by_energy) std::stable_sort(columns.begin(), columns.end(), [&](int64_t x, int64_t y) { return energy(x) > energy(y); });
      order_.insert(order_.end(), columns.begin(), columns.end());
    }
    std::reverse(order_.begin(), order_.end());  // the factor's last column is rounded first
  }

  void find_parts() {
    const bool whole = block_ <= kMostColumns;
    for (int64_t end = k_; end > 0;) {
      const int64_t block = order_[static_cast<size_t>(end - 1)] / block_, block_from = end - std::min(block_, k_ - block * block_);
      for (bool first = true; end > block_from; first = false) {
        const int64_t n = whole ? end - block_from : std::min(kFixedColumns, end - block_from);
        end -= n;
        parts_.push_back({end, n, block, first, block_from});
      }
    }
  }

  void permute(const std::vector<float>& h, float damp) {
    h_.resize(static_cast<size_t>(k_ * k_));
    for (int64_t v = 0; v < k_; ++v) {
      const float* row = h.data() + column(v) * k_;
      for (int64_t u = 0; u < k_; ++u) h_[static_cast<size_t>(v * k_ + u)] = row[column(u)];
      h_[static_cast<size_t>(v * k_ + v)] += damp;
    }
  }

  int64_t k_, block_;
  std::vector<int64_t> order_;
  std::vector<Part> parts_;
  std::vector<float> h_, factor_;
  std::vector<BlockForm> forms_, alone_;
  std::map<int64_t, BlockForm> apart_;  ///< by columns
};

/// A slab of rows on their way from weights to codes. Arrays are [column in the order of rounding][row].
class Slab {
 public:
  Slab(const std::vector<float>& weights, const Quadratic& q, int64_t first, CodedWeights& out, const GptqOptions& options)
      : q_(q), out_(out), grid_(out.grid), options_(options), k_(q.k()), first_(first), rows_(std::min(kSlab, grid_.out - first)), w_(zeros()), value_(zeros()), codes_(zeros()) {
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t u = 0; u < k_; ++u) w_[static_cast<size_t>(u * kSlab + r)] = weights[static_cast<size_t>((first + r) * k_ + q.column(u))];
    if (!options.keep.empty()) {
      keep_.assign(w_.size(), 1.0f);
      for (int64_t r = 0; r < rows_; ++r)
        for (int64_t u = 0; u < k_; ++u) keep_[static_cast<size_t>(u * kSlab + r)] = options.keep[static_cast<size_t>((first + r) * k_ + q.column(u))] ? 1.0f : 0.0f;
    }
    scale_.assign(static_cast<size_t>(grid_.blocks * kSlab), 1);
    zero_.assign(scale_.size(), 0);
  }

  void run() {
    round();
    if (options_.sweeps > 0) descend();
    store();
  }

 private:
  using Part = Quadratic::Part;
  std::vector<float> zeros() const { return std::vector<float>(static_cast<size_t>(k_ * kSlab), 0.0f); }
  bool searches() const { return options_.fit == GridFit::LeastSquares && grid_.block <= kMostColumns && grid_.format.block >= 0; }
  size_t grid_at(const Part& p, int64_t row) const { return static_cast<size_t>(p.block * kSlab + row); }

  const float* kept(const Part& p, int64_t row) const { return keep_.empty() ? nullptr : keep_.data() + p.from * kSlab + row; }

  RowGrids grids(const Part& p, int64_t row) const {
    RowGrids g;
    std::copy_n(scale_.data() + grid_at(p, row), kRows, g.scale);
    std::copy_n(zero_.data() + grid_at(p, row), kRows, g.zero);
    return g;
  }

  void round() {
    std::vector<float> error = zeros(), target(w_.size());
    BlockCodes best, other;
    const std::vector<Part>& parts = q_.parts();
    for (size_t i = 0; i < parts.size(); ++i) {
      const Part& p = parts[i];
      if (p.first && p.block_from != p.from) {  // all of the block's targets make its scales
        move_targets(p.block_from, p.from + p.n - p.block_from, error, target);
        fit(p, p.block_from, p.from + p.n - p.block_from, target);
      }
      move_targets(p.from, p.n, error, target);
      const BlockForm& form = options_.nearest ? q_.alone(i) : q_.form(i);
      if (p.first && p.block_from == p.from) fit(p, p.from, p.n, target);
      for (int64_t r = 0; r < rows_; r += kRows) {
        const float *w = w_.data() + p.from * kSlab + r, *t = target.data() + p.from * kSlab + r;
        propose(form, w, w, t, kept(p, r), grids(p, r), best);
        if (searches()) search(form, w, w, t, kept(p, r), 40, 0.025f, best, other);
        take(p, r, best);
      }
      if (options_.nearest) continue;
      for (size_t x = static_cast<size_t>(p.from * kSlab); x < static_cast<size_t>((p.from + p.n) * kSlab); ++x) error[x] = w_[x] - value_[x];
    }
  }

  /// Targets of columns [from, from + n): weights, moved by the errors of all columns from there on that are rounded (others have none yet).
  void move_targets(int64_t from, int64_t n, const std::vector<float>& error, std::vector<float>& target) const {
    const int64_t later = k_ - from - n;
    std::copy_n(w_.data() + from * kSlab, n * kSlab, target.data() + from * kSlab);
    add_product(n, kSlab, later, 1, {q_.factor() + (from + n) * k_ + from, 1, k_}, {error.data() + (from + n) * kSlab, kSlab, 1}, target.data() + from * kSlab, kSlab);
  }

  CodeRange range() const { return {static_cast<float>(grid_.low), static_cast<float>(grid_.high), CodeSpacing::of(grid_.format.dtype)}; }

  /// The grid of one block for the slab's rows, from their targets.
  void fit(const Part& p, int64_t from, int64_t n, const std::vector<float>& target) {
    if (grid_.format.block < 0) {
      std::fill_n(scale_.begin(), kSlab, grid_.scales[0]);
      std::fill_n(zero_.begin(), kSlab, static_cast<float>(grid_.zeros[0]));
      return;
    }
    std::vector<float> values(static_cast<size_t>(rows_ * n));
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t u = 0; u < n; ++u) if (const auto x = static_cast<size_t>((from + u) * kSlab + r); keep_.empty() || keep_[x] != 0) values[static_cast<size_t>(r * n + u)] = target[x];
    std::vector<double> importance;
    if (!searches())
      for (int64_t u = 0; u < n; ++u) importance.push_back(static_cast<double>(q_.h()[(from + u) * k_ + from + u]));
    WeightFormat format = grid_.format;
    format.block = 0;
    const WeightGrid own = fit_grid(values, rows_, n, format, searches() ? GridFit::Extremes : options_.fit, importance);
    for (int64_t r = 0; r < rows_; ++r) {
      scale_[grid_at(p, r)] = own.scales[static_cast<size_t>(r)];
      zero_[grid_at(p, r)] = static_cast<float>(own.zeros[static_cast<size_t>(r)]);
    }
    for (int64_t r = rows_; r < kSlab; ++r) zero_[grid_at(p, r)] = static_cast<float>(own.zeros[0]);
  }

  /// Codes of `own`, the block's weights, on a grid; w and t as price_block has them.
  void propose(const BlockForm& form, const float* own, const float* w, const float* t, const float* keep, const RowGrids& g, BlockCodes& out) const {
    if (!options_.nearest) return round_block(form, w, t, kSlab, g, range(), out, keep);
    round_block(q_.apart(form.n), own, own, kSlab, g, range(), out, keep);
    price_block(form, w, t, kSlab, out);
  }

  /// Other scales, `down` steps narrower and a few wider than best's, and zero points beside the best one's.
  void search(const BlockForm& form, const float* own, const float* w, const float* t, const float* keep, int down, float step, BlockCodes& best, BlockCodes& other) const {
    const RowGrids start = best.grids;
    for (int j = -down; j <= 8; ++j) {
      if (j == 0 || (down > 8 && j < -2 && j % 2 != 0)) continue;
      RowGrids g = start;
      for (float& s : g.scale) s *= 1 + step * static_cast<float>(j) * (down > 8 ? 0.5f : 1.0f);
      propose(form, own, w, t, keep, g, other);
      keep_cheaper(form.n, other, best);
    }
    if (grid_.format.two_signs() && down > 8)  // the lowest code for the largest weight, where that is positive
      for (int j = -28; j <= 4; j += 2) {
        RowGrids g = start;
        for (float& s : g.scale) s *= -1 - step * static_cast<float>(j) * 0.5f;
        propose(form, own, w, t, keep, g, other);
        keep_cheaper(form.n, other, best);
      }
    if (grid_.format.symmetric) return;
    for (float move : {-1.0f, 1.0f}) {
      RowGrids g = best.grids;
      for (float& z : g.zero) z = std::clamp(z + move, range().low, range().high);
      propose(form, own, w, t, keep, g, other);
      keep_cheaper(form.n, other, best);
    }
  }

  void take(const Part& p, int64_t row, const BlockCodes& best) {
    std::copy_n(best.grids.scale, kRows, scale_.data() + grid_at(p, row));
    std::copy_n(best.grids.zero, kRows, zero_.data() + grid_at(p, row));
    for (int64_t u = 0; u < p.n; ++u)
      for (int64_t r = 0; r < kRows; ++r) {
        const size_t at = static_cast<size_t>((p.from + u) * kSlab + row + r);
        codes_[at] = best.codes[u * kRows + r];
        value_[at] = (codes_[at] - best.grids.zero[r]) * best.grids.scale[r];
      }
  }

  /// Block by block, the others held, until a sweep takes little away.
  void descend() {
    std::vector<float> residual = zeros(), error(w_.size()), target(w_.size()), change(static_cast<size_t>(kMostColumns * kSlab));
    for (size_t i = 0; i < error.size(); ++i) error[i] = w_[i] - value_[i];
    add_product(k_, kSlab, k_, 1, {q_.h(), k_, 1}, {error.data(), kSlab, 1}, residual.data(), kSlab);  // H·e
    double cost = 0;
    for (size_t i = 0; i < error.size(); ++i) cost += static_cast<double>(error[i]) * static_cast<double>(residual[i]);
    float step = 0.04f;
    for (int sweep = 0; sweep < options_.sweeps && cost > 0; ++sweep, step = std::max(step * 0.6f, 0.004f)) {
      double gain = 0;
      for (size_t i = q_.parts().size(); i-- > 0;) gain += improve(i, step, residual, target, change);
      cost -= gain;
      if (gain < kPays * cost) break;
    }
  }

  double improve(size_t part, float step, std::vector<float>& residual, std::vector<float>& target, std::vector<float>& change) {
    const Part& p = q_.parts()[part];
    const BlockForm& form = q_.alone(part);
    float* t = target.data() + p.from * kSlab;
    solve(form, residual.data() + p.from * kSlab, t);
    for (size_t x = 0, at = static_cast<size_t>(p.from * kSlab); x < static_cast<size_t>(p.n * kSlab); ++x) t[x] += value_[at + x];
    BlockCodes best, other;
    double gain = 0;
    for (int64_t r = 0; r < rows_; r += kRows) {
      for (int64_t u = 0; u < p.n; ++u) std::copy_n(codes_.data() + (p.from + u) * kSlab + r, kRows, best.codes + u * kRows);
      best.grids = grids(p, r);
      price_block(form, t + r, t + r, kSlab, best);
      for (int64_t x = 0; x < kRows; ++x) gain += static_cast<double>(best.cost[x]);
      const float* own = w_.data() + p.from * kSlab + r;
      propose(form, own, t + r, t + r, kept(p, r), grids(p, r), other);
      keep_cheaper(form.n, other, best);
      if (searches()) search(form, own, t + r, t + r, kept(p, r), 3, step, best, other);
      for (int64_t x = 0; x < kRows; ++x) gain -= static_cast<double>(best.cost[x]);
      for (int64_t u = 0; u < p.n; ++u)
        for (int64_t x = 0; x < kRows; ++x) change[static_cast<size_t>(u * kSlab + r + x)] = -value_[static_cast<size_t>((p.from + u) * kSlab + r + x)];
      take(p, r, best);
      for (int64_t u = 0; u < p.n; ++u)
        for (int64_t x = 0; x < kRows; ++x) change[static_cast<size_t>(u * kSlab + r + x)] += value_[static_cast<size_t>((p.from + u) * kSlab + r + x)];
    }
    add_product(k_, rows_, p.n, -1, {q_.h() + p.from, k_, 1}, {change.data(), kSlab, 1}, residual.data(), kSlab);
    return gain;
  }

  /// x = H⁻¹·r for the form's own block of H.
  void solve(const BlockForm& form, const float* r, float* x) const {
    const int64_t n = form.n;
    std::copy_n(r, n * kSlab, x);
    auto add = [&](int64_t to, int64_t from, float by) {
      for (int64_t i = 0; i < kSlab; ++i) x[to * kSlab + i] -= by * x[from * kSlab + i];
    };
    for (int64_t v = 0; v < n; ++v) {  // L = unit·diagonal: H = unit·weight·unitᵀ
      for (int64_t u = 0; u < v; ++u) add(v, u, form.factor[static_cast<size_t>(v * n + u)]);
    }
    for (int64_t v = 0; v < n; ++v)
      for (int64_t i = 0; i < kSlab; ++i) x[v * kSlab + i] /= form.weight[static_cast<size_t>(v)];
    for (int64_t v = n - 1; v >= 0; --v)
      for (int64_t u = 0; u < v; ++u) add(u, v, form.factor[static_cast<size_t>(v * n + u)]);
  }

  int16_t stored(float code) const {
    const DType type = grid_.format.dtype;
    return static_cast<int16_t>(is_float(type) ? static_cast<float>(encode_small_float(type, code)) : code);
  }

  void store() {
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t u = 0; u < k_; ++u) out_.codes[static_cast<size_t>((first_ + r) * k_ + q_.column(u))] = stored(codes_[static_cast<size_t>(u * kSlab + r)]);
      if (grid_.format.block < 0) continue;
      for (int64_t b = 0; b < grid_.blocks; ++b) {
        out_.grid.scales[static_cast<size_t>((first_ + r) * grid_.blocks + b)] = scale_[static_cast<size_t>(b * kSlab + r)];
        out_.grid.zeros[static_cast<size_t>((first_ + r) * grid_.blocks + b)] = static_cast<int32_t>(zero_[static_cast<size_t>(b * kSlab + r)]);
      }
    }
  }

  const Quadratic& q_;
  CodedWeights& out_;
  const WeightGrid& grid_;
  const GptqOptions& options_;
  int64_t k_, first_, rows_;
  std::vector<float> w_, value_, codes_, scale_, zero_, keep_;
};

}  // namespace

CodedWeights gptq(const std::vector<float>& weights, int64_t out, const std::vector<float>& h, const WeightFormat& format, const GptqOptions& options) {
  const int64_t k = out > 0 ? static_cast<int64_t>(weights.size()) / out : 0;
  // Checks the weights; its scales serve where the whole layer has one.
  CodedWeights coded{fit_grid(weights, out, k, format, format.block < 0 ? options.fit : GridFit::Extremes), std::vector<int16_t>(weights.size())};
  if (weights.empty()) return coded;
  const Quadratic q(h, k, coded.grid.block, options);
  parallel_for((out + kSlab - 1) / kSlab, options.threads, [&](int64_t slab, int) { Slab(weights, q, slab * kSlab, coded, options).run(); });
  return coded;
}

double quadratic_error(const std::vector<float>& weights, const std::vector<float>& quantized, int64_t out, const std::vector<float>& h, int threads) {
  const int64_t k = out > 0 ? static_cast<int64_t>(weights.size()) / out : 0;
  std::vector<float> error(weights.size()), moved(weights.size(), 0.0f);
  for (size_t i = 0; i < weights.size(); ++i) error[i] = weights[i] - quantized[i];
  add_product(out, k, k, 1, {error.data(), k, 1}, {h.data(), k, 1}, moved.data(), k, threads);
  double sum = 0;
  for (size_t i = 0; i < error.size(); ++i) sum += static_cast<double>(error[i]) * static_cast<double>(moved[i]);
  return sum;
}

}  // namespace infopt

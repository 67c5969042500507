#include "lib/runtime/cpu/sparse_product.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "lib/base/share.h"
#include "lib/runtime/cpu/post_activation.h"
#include "lib/runtime/cpu/sparse_tiles.h"

namespace infopt::cpu {
namespace {

constexpr double kWorthIt = 0.9;           // of the time without zeros
constexpr int64_t kLeastWork = 1 << 18;    // multiplications that are worth a thread
constexpr int64_t kLeastWeights = 1024;
constexpr double kWorthSaying = 0.3;       // zeros
constexpr int64_t kChunkRows = 64;         // that read a panel while it is in the nearest cache
constexpr int64_t kMostLanes = 16;

int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }
std::string percent(double share) { return std::to_string(static_cast<int>(std::lround(share * 100))) + " %"; }

/// One call: what all parts of its work read.
struct Call {
  const SparseTiles& tiles;
  const float* x;
  int64_t rows, depth, columns;
  const float* bias;
  const PostActivation& post;
  bool adds;
  float* y;

  /// The activation, where columns [begin, end) of rows [from, to) are done.
  void finish(int64_t from, int64_t to, int64_t begin, int64_t end) const {
    if (post.kind == PostActivation::None) return;
    if (begin == 0 && end == columns) return activate(post, y + from * columns, (to - from) * columns);
    for (int64_t r = from; r < to; ++r) activate(post, y + r * columns + begin, end - begin);
  }
  int64_t least_parts(double products) const { return std::max<int64_t>(1, static_cast<int64_t>(kLeastWork / (products + 1))); }
};

/// Rows [from, from + n) of x as depth × tile rows; rows behind the last repeat it.
void lay_out(const Call& c, int64_t from, int64_t n, float* to) {
  const int64_t lanes = c.tiles.lanes, stride = c.tiles.list_rows;
  alignas(64) float narrow[kMostLanes * kMostLanes];
  std::array<const float*, kMostLanes> rows{};
  for (int64_t v = 0; v < up(n, lanes); ++v) {
    for (int64_t i = 0; i < lanes; ++i) rows[static_cast<size_t>(i)] = c.x + (from + std::min(v * lanes + i, n - 1)) * c.depth;
    if (c.depth < lanes) {
      std::fill_n(narrow, lanes * lanes, 0.0f);
      for (int64_t i = 0; i < lanes; ++i) {
        std::copy_n(rows[static_cast<size_t>(i)], c.depth, narrow + i * lanes);
        rows[static_cast<size_t>(i)] = narrow + i * lanes;
      }
      c.tiles.transpose(rows.data(), to + v * lanes, stride);
      continue;
    }
    for (int64_t k = 0, before = 0; before < c.depth; before = k + lanes, k = std::min(before, c.depth - lanes)) {
      for (int64_t i = 0; i < lanes; ++i) rows[static_cast<size_t>(i)] = c.x + (from + std::min(v * lanes + i, n - 1)) * c.depth + k;
      c.tiles.transpose(rows.data(), to + k * stride + v * lanes, stride);
    }
  }
}

/// Columns [begin, end) of sums, columns × tile rows, into rows [from, from + n) of y.
void lay_back(const Call& c, const float* sums, int64_t from, int64_t n, int64_t begin, int64_t end) {
  const int64_t lanes = c.tiles.lanes, stride = c.tiles.list_rows;
  alignas(64) float part[kMostLanes * kMostLanes];
  std::array<const float*, kMostLanes> columns{};
  for (int64_t column = begin; column < end; column += lanes)
    for (int64_t v = 0; v < up(n, lanes); ++v) {
      for (int64_t i = 0; i < lanes; ++i) columns[static_cast<size_t>(i)] = sums + (std::min(column + i, end - 1) - begin) * stride + v * lanes;
      const int64_t width = std::min(lanes, end - column), height = std::min(lanes, n - v * lanes);
      float* y = c.y + (from + v * lanes) * c.columns + column;
      if (width == lanes && height == lanes && !c.adds) {
        c.tiles.transpose(columns.data(), y, c.columns);
        continue;
      }
      c.tiles.transpose(columns.data(), part, lanes);
      for (int64_t r = 0; r < height; ++r, y += c.columns) {
        if (!c.adds) std::copy_n(part + r * lanes, width, y);
        else
          for (int64_t i = 0; i < width; ++i) y[i] += part[r * lanes + i];
      }
    }
}

void run_lists(const Call& c, const SparseLists& form) {
  const int64_t tile_rows = form.tile_rows, tiles = up(c.rows, tile_rows), parts = up(c.depth, form.part);
  const auto run_tiles = [&](int64_t first, int64_t last, int64_t begin, int64_t end) {
    Tensor xs(DType::F32, {std::max(c.depth, c.tiles.lanes), tile_rows}), sums(DType::F32, {end - begin, tile_rows});
    float *x = xs.mutable_data<float>(), *to = sums.mutable_data<float>();
    for (int64_t t = first; t < last; ++t) {
      const int64_t from = t * tile_rows, n = std::min(tile_rows, c.rows - from);
      lay_out(c, from, n, x);
      for (int64_t p = 0; p < parts; ++p)
        c.tiles.lists({x + p * form.part * tile_rows, form.values.data(), form.offsets.data(), form.ends.data() + 1 + p * c.columns + begin, end - begin, up(n, c.tiles.lanes),
                       p == 0 && c.bias ? c.bias + begin : nullptr, p > 0, to});
      lay_back(c, to, from, n, begin, end);
      c.finish(from, from + n, begin, end);
    }
  };
  const double products = static_cast<double>(form.values.size()) * static_cast<double>(tile_rows);
  if (tiles >= run_threads()) return share_work(tiles, c.least_parts(products), [&](int64_t b, int64_t e) { run_tiles(b, e, 0, c.columns); });
  const int64_t groups = up(c.columns, kSparsePanel);
  share_work(groups, c.least_parts(products * static_cast<double>(tiles) / static_cast<double>(groups)),
             [&](int64_t b, int64_t e) { run_tiles(0, tiles, b * kSparsePanel, std::min(c.columns, e * kSparsePanel)); });
}

/// Calls multiply(row, rows, bias, y, y stride, adds) for parts of a panel of columns, the last of which may have fewer than 16.
template <class Multiply>
void run_panel(const Call& c, int64_t panel, int64_t from, int64_t to, int64_t most_rows, Multiply multiply) {
  const int64_t column = panel * kSparsePanel, width = std::min(kSparsePanel, c.columns - column);
  alignas(64) float part[kMostLanes * kSparsePanel], bias[kSparsePanel] = {};
  if (c.bias) std::copy_n(c.bias + column, width, bias);
  for (int64_t r = from; r < to; r += most_rows) {
    const int64_t n = std::min(most_rows, to - r);
    float* y = c.y + r * c.columns + column;
    if (width == kSparsePanel) {
      multiply(r, n, bias, y, c.columns, c.adds);
      continue;
    }
    multiply(r, n, bias, part, kSparsePanel, false);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < width; ++j) y[i * c.columns + j] = part[i * kSparsePanel + j] + (c.adds ? y[i * c.columns + j] : 0.0f);
  }
}

void run_panels(const Call& c, const SparsePanels& form) {
  const int64_t panels = up(c.columns, kSparsePanel), chunks = up(c.rows, kChunkRows);
  const auto run_part = [&](int64_t from, int64_t to, int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const uint32_t first = form.ends[static_cast<size_t>(p)], count = form.ends[static_cast<size_t>(p) + 1] - first;
      run_panel(c, p, from, to, c.tiles.panel_rows, [&](int64_t row, int64_t rows, const float* bias, float* y, int64_t y_stride, bool adds) {
        c.tiles.panels({c.x + row * c.depth, c.depth, rows, form.values.data() + first * static_cast<size_t>(kSparsePanel), form.depths.data() + first, count, bias, y, y_stride, adds});
      });
    }
    c.finish(from, to, begin * kSparsePanel, std::min(c.columns, end * kSparsePanel));
  };
  const double values = static_cast<double>(form.values.size());
  if (chunks >= run_threads())
    return share_work(chunks, c.least_parts(values * static_cast<double>(kChunkRows)), [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) run_part(i * kChunkRows, std::min(c.rows, (i + 1) * kChunkRows), 0, panels);
    });
  share_work(panels, c.least_parts(values * static_cast<double>(c.rows) / static_cast<double>(panels)), [&](int64_t b, int64_t e) {
    for (int64_t i = 0; i < chunks; ++i) run_part(i * kChunkRows, std::min(c.rows, (i + 1) * kChunkRows), b, e);
  });
}

void run_tables(const Call& given, const SparseTables& form) {
  Call c = given;
  const int64_t stride = form.blocks * kTableDepth, panels = up(c.columns, kSparsePanel);
  Tensor padded;
  if (stride != c.depth) {
    padded = Tensor::zeros(DType::F32, {c.rows, stride});
    for (int64_t r = 0; r < c.rows; ++r) std::copy_n(c.x + r * c.depth, c.depth, padded.mutable_data<float>() + r * stride);
    c.x = padded.data<float>();
  }
  share_work(panels, c.least_parts(static_cast<double>(form.values.size()) * static_cast<double>(c.rows) / static_cast<double>(panels)), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const size_t first = form.ends[static_cast<size_t>(p)] * static_cast<size_t>(kSparsePanel);
      run_panel(c, p, 0, c.rows, c.tiles.table_rows, [&](int64_t row, int64_t rows, const float* bias, float* y, int64_t y_stride, bool adds) {
        c.tiles.tables({c.x + row * stride, stride, rows, form.blocks, form.steps.data() + p * form.blocks, form.values.data() + first, form.places.data() + first, bias, y, y_stride, adds});
      });
    }
    c.finish(0, c.rows, begin * kSparsePanel, std::min(c.columns, end * kSparsePanel));
  });
}

}  // namespace

bool many_zeros(const Tensor& given) {
  if (given.size() < kLeastWeights) return false;
  constexpr int64_t kRuns = 64, kRun = 64;
  const Tensor weights = given.aligned_for_now();
  const float* w = weights.data<float>();
  int64_t zeros = 0, seen = 0;
  for (int64_t i = 0; i < kRuns; ++i) {
    const int64_t from = weights.size() * i / kRuns, to = std::min(weights.size() * (i + 1) / kRuns, from + kRun);
    for (int64_t j = from; j < to; ++j) zeros += w[j] == 0;
    seen += to - from;
  }
  return static_cast<double>(zeros) > 0.5 * kWorthSaying * static_cast<double>(seen);
}

std::optional<double> sparse_cost(SparseForm form, const SparseCounts& counts, int64_t rows, int64_t depth, int64_t columns, int64_t gathered) {
  const SparseTiles* tiles = sparse_tiles();
  if (!tiles || rows < 1) return std::nullopt;
  // Few rows are bound by the memory that weights take, but the more there are the less.
  const double n = static_cast<double>(rows), few = rows <= 6 ? n - 1 : 0, k = static_cast<double>(depth), m = static_cast<double>(columns);
  const double narrow = tiles->lanes < kMostLanes ? 1.15 : 1;  // loads of 8 floats
  const double gathering = gathered > 0 ? (8 + 120 / static_cast<double>(gathered)) / m + 0.04 + (form == SparseForm::Lists && depth > 1500 ? 0.12 : 0) : 0;
  switch (form) {
    case SparseForm::Panels: return gathering + counts.panels * narrow * (1 + 0.12 * few) + (rows <= 6 ? 0.05 : 0.02);
    case SparseForm::Lists: {
      const int64_t full = rows / tiles->list_rows, rest = up(rows % tiles->list_rows, tiles->lanes);
      const double vectors = static_cast<double>(tiles->list_rows / tiles->lanes), turns = static_cast<double>(full) * (vectors + 1.2) + (rest ? static_cast<double>(rest) + 1.2 : 0);
      return gathering + counts.kept * narrow * turns * static_cast<double>(tiles->lanes) / n + 0.04 + 6 / m + 4 / k;
    }
    case SparseForm::Tables:
      if (rows > tiles->table_rows) return std::nullopt;
      return gathering + counts.slots * (1.25 + 0.1 * few) + 0.06;
  }
  return std::nullopt;
}

SparseProduct::SparseProduct(const Tensor& weights, bool transposed, SparseCounts counts, int64_t gathered)
    : given_(weights.shape()), counts_(counts), gathered_(gathered), weights_(weights) {
  const int64_t a = weights.dim(0), b = weights.dim(1);
  shape_ = transposed ? WeightView{nullptr, b, a, 1, b} : WeightView{nullptr, a, b, b, 1};
}

std::unique_ptr<SparseProduct> SparseProduct::make(const Tensor& given, bool transposed, std::string* why, int64_t gathered) {
  if (given.dtype() != DType::F32 || given.rank() < 2 || given.size() != given.dim(0) * given.dim(1) || !sparse_tiles() || !many_zeros(given)) return nullptr;
  auto product = std::make_unique<SparseProduct>(given, transposed, SparseCounts{}, gathered);
  {
    const Tensor weights = given.aligned_for_now();
    product->counts_ = count_kept(product->view(weights));
  }
  given.release_pages();
  for (const int64_t rows : {int64_t{1}, sparse_tiles()->list_rows})
    if (product->wins(rows)) return product;
  const double zeros = 1 - product->counts_.kept;
  if (!why || zeros < kWorthSaying) return nullptr;
  const auto cost = [&](SparseForm form, double kept) { return *sparse_cost(form, {kept, kept, 0}, sparse_tiles()->list_rows, product->depth(), product->columns(), gathered); };
  const double most = (kWorthIt - cost(SparseForm::Lists, 0)) / (cost(SparseForm::Lists, 1) - cost(SparseForm::Lists, 0));
  const bool blocks = cost(SparseForm::Panels, 0) < kWorthIt;
  *why = "sparse kernel refused: " + percent(zeros) + " zeros, " +
         (most > 0 ? "wins from " + percent(1 - most) + ", or in blocks of 16 outputs" : blocks ? "so small a layer wins in blocks of 16 outputs only" : "so small a layer never wins");
  return nullptr;
}

std::optional<SparseForm> SparseProduct::form_for(int64_t rows) const {
  std::optional<SparseForm> best;
  double least = kWorthIt;
  for (const SparseForm f : {SparseForm::Panels, SparseForm::Lists, SparseForm::Tables})
    if (const auto cost = sparse_cost(f, counts_, rows, depth(), columns(), gathered_); cost && *cost < least) least = *cost, best = f;
  return best;
}

WeightView SparseProduct::view(const Tensor& dense) const {
  WeightView v = shape_;
  v.data = dense.data<float>();
  return v;
}

/// The weights, from whatever holds them. The caller holds the lock.
Tensor SparseProduct::dense() const {
  if (weights_.defined()) return weights_;
  Tensor made = Tensor::zeros(DType::F32, given_);
  float* to = made.mutable_data<float>();
  if (panels_) unpack(*panels_, shape_, to);
  else if (lists_) unpack(*lists_, shape_, to);
  else unpack(*tables_, shape_, to);
  return made;
}

Tensor SparseProduct::weights() const {
  std::lock_guard lock(mutex_);
  return weights_ = dense();
}

template <class Form, class Pack>
std::shared_ptr<const Form> SparseProduct::form(std::shared_ptr<const Form>& kept, Pack pack) const {
  std::lock_guard lock(mutex_);
  if (!kept) {
    {
      const Tensor weights = dense().aligned_for_now();
      kept = std::make_shared<const Form>(pack(view(weights)));
    }
    if (weights_.unique()) weights_ = {};
    else if (weights_.defined()) weights_.release_pages();
  }
  return kept;
}

void SparseProduct::run(const float* x, int64_t rows, const float* bias, const PostActivation& post, bool adds, float* y) const {
  if (rows > 0) run_as(form_for(rows).value(), x, rows, bias, post, adds, y);
}

void SparseProduct::run_as(SparseForm which, const float* x, int64_t rows, const float* bias, const PostActivation& post, bool adds, float* y) const {
  const Call call{*sparse_tiles(), x, rows, depth(), columns(), bias, post, adds, y};
  switch (which) {
    case SparseForm::Panels: return run_panels(call, *form(panels_, pack_panels));
    case SparseForm::Lists: return run_lists(call, *form(lists_, [&](const WeightView& w) { return pack_lists(w, call.tiles.list_rows); }));
    case SparseForm::Tables: return run_tables(call, *form(tables_, pack_tables));
  }
}

std::string SparseProduct::describe() const {
  std::string text = percent(1 - counts_.kept) + " zeros left out";
  const auto few = form_for(1), many = form_for(sparse_tiles()->list_rows);
  constexpr const char* kNames[] = {"in blocks of 16 outputs", "one by one", "by tables of 32 inputs"};
  if (few == many) return text + ", " + kNames[static_cast<int>(*many)];
  if (!many) return text + " where rows are few, " + kNames[static_cast<int>(*few)];
  int64_t from = sparse_tiles()->list_rows;
  while (from > 1 && form_for(from - 1) == many) --from;
  text += ", " + std::string(kNames[static_cast<int>(*many)]) + " from " + std::to_string(from) + " rows on";
  return few ? text + ", else " + kNames[static_cast<int>(*few)] : text;
}

}  // namespace infopt::cpu

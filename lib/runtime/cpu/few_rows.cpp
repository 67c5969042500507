#include "lib/runtime/cpu/few_rows.h"

#include <algorithm>

#include "lib/base/share.h"
#include "lib/runtime/cpu/float_tiles.h"
#include "lib/runtime/cpu/post_activation.h"

namespace infopt::cpu {
namespace {

constexpr int64_t kMostRows = 8, kMostWidth = 64;
constexpr int64_t kDepth = 1024;  // terms of one sum: longer ones are sums of such sums, lest their roundings add up
constexpr int64_t kLeastWork = 1 << 18;  // multiplications that are worth a thread

void multiply_panel(const FewRows& p, const FloatTiles& tiles, int64_t panel) {
  const int64_t width = p.weights.width, column = panel * width, n = std::min(width, p.columns - column);
  const float* weights = p.weights.data + panel * p.weights.panel_floats;
  alignas(64) float sums[kMostRows * kMostWidth], part[kMostRows * kMostWidth];
  for (int64_t k = 0; k < p.depth; k += kDepth) {
    tiles.multiply({p.a + k, p.depth, p.rows, std::min(kDepth, p.depth - k), weights + k * width, width, width / tiles.lanes, k == 0 ? sums : part, width, nullptr});
    if (k > 0) add_floats(sums, part, p.rows * width);
  }
  for (int64_t row = 0; row < p.rows; ++row) {
    if (p.bias) add_floats(sums + row * width, p.bias + column, n);
    activate(p.post, sums + row * width, n);
    std::copy_n(sums + row * width, n, p.y + row * p.columns + column);
  }
}

}  // namespace

bool takes_few_rows(int64_t rows, int64_t panel_width) {
  const FloatTiles& tiles = float_tiles();
  return rows <= std::min(tiles.rows, kMostRows) && panel_width <= kMostWidth && panel_width % tiles.lanes == 0 && panel_width <= tiles.lanes * tiles.vectors;
}

int64_t widest_panel() {
  const FloatTiles& tiles = float_tiles();
  return std::min<int64_t>(kMostWidth / tiles.lanes, tiles.vectors) * tiles.lanes;
}

WeightPanels PackedPanels::get(const float* weights, int64_t columns, int64_t depth) {
  const int64_t width = widest_panel();
  std::lock_guard lock(mutex_);
  if (data_.empty()) {
    data_.assign(static_cast<size_t>((columns + width - 1) / width * width * depth), 0.0F);
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t k = 0; k < depth; ++k) data_[static_cast<size_t>((c / width * depth + k) * width + c % width)] = weights[c * depth + k];
  }
  return {data_.data(), width, depth * width};
}

void multiply_few_rows(const FewRows& product) {
  const FloatTiles& tiles = float_tiles();
  const int64_t panels = (product.columns + product.weights.width - 1) / product.weights.width;
  share_work(panels, std::max<int64_t>(1, kLeastWork / (product.rows * product.depth * product.weights.width + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) multiply_panel(product, tiles, panel);
  });
}

}  // namespace infopt::cpu

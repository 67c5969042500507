#include "lib/runtime/cpu/sparse_weights.h"

#include <algorithm>
#include <array>

#include "lib/runtime/cpu/sparse_tiles.h"

namespace infopt::cpu {
namespace {

constexpr int64_t kPartFloats = 6144;  // of a tile: 24 KiB of the 32 that the nearest cache has

int64_t panels_of(int64_t columns) { return (columns + kSparsePanel - 1) / kSparsePanel; }
int64_t blocks_of(int64_t depth) { return (depth + kTableDepth - 1) / kTableDepth; }

/// How many weights each of a panel's columns has in rows [from, from + 32).
std::array<uint8_t, kSparsePanel> count_block(const WeightView& w, int64_t panel, int64_t from) {
  std::array<uint8_t, kSparsePanel> counts{};
  const int64_t first = panel * kSparsePanel, end = std::min(w.columns, first + kSparsePanel);
  for (int64_t k = from; k < std::min(w.depth, from + kTableDepth); ++k)
    for (int64_t n = first; n < end; ++n) counts[static_cast<size_t>(n - first)] += w.at(k, n) != 0;
  return counts;
}

bool any_in_panel(const WeightView& w, int64_t panel, int64_t k) {
  for (int64_t n = panel * kSparsePanel; n < std::min(w.columns, (panel + 1) * kSparsePanel); ++n)
    if (w.at(k, n) != 0) return true;
  return false;
}

void put(const WeightView& shape, float* to, int64_t k, int64_t n, float v) {
  if (v != 0) to[k * shape.depth_stride + n * shape.column_stride] = v;
}

}  // namespace

SparseCounts count_kept(const WeightView& w) {
  int64_t kept = 0, rows = 0, steps = 0;
  for (int64_t p = 0; p < panels_of(w.columns); ++p) {
    for (int64_t k = 0; k < w.depth; ++k) rows += any_in_panel(w, p, k);
    for (int64_t from = 0; from < w.depth; from += kTableDepth) {
      const auto counts = count_block(w, p, from);
      for (uint8_t c : counts) kept += c;
      steps += *std::max_element(counts.begin(), counts.end());
    }
  }
  const double all = static_cast<double>(w.depth * w.columns);
  return {static_cast<double>(kept) / all, static_cast<double>(rows * kSparsePanel) / all, static_cast<double>(steps * kSparsePanel) / all};
}

SparseLists pack_lists(const WeightView& w, int64_t tile_rows) {
  SparseLists form;
  form.tile_rows = tile_rows;
  const int64_t most = kPartFloats / tile_rows, parts = (w.depth + most - 1) / most;
  form.part = (w.depth + parts - 1) / parts;
  std::vector<float> values;
  std::vector<uint16_t> offsets;
  std::vector<uint32_t> ends{0};
  for (int64_t from = 0; from < w.depth; from += form.part)
    for (int64_t n = 0; n < w.columns; ++n) {
      for (int64_t k = from; k < std::min(w.depth, from + form.part); ++k)
        if (const float v = w.at(k, n); v != 0) {
          values.push_back(v);
          offsets.push_back(static_cast<uint16_t>((k - from) * tile_rows));
        }
      ends.push_back(static_cast<uint32_t>(values.size()));
    }
  form.values = LastingArray(values), form.offsets = LastingArray(offsets), form.ends = LastingArray(ends);
  return form;
}

SparsePanels pack_panels(const WeightView& w) {
  std::vector<float> values;
  std::vector<int32_t> depths;
  std::vector<uint32_t> ends{0};
  for (int64_t p = 0; p < panels_of(w.columns); ++p) {
    for (int64_t k = 0; k < w.depth; ++k) {
      if (!any_in_panel(w, p, k)) continue;
      depths.push_back(static_cast<int32_t>(k));
      for (int64_t n = p * kSparsePanel; n < (p + 1) * kSparsePanel; ++n) values.push_back(n < w.columns ? w.at(k, n) : 0.0f);
    }
    ends.push_back(static_cast<uint32_t>(depths.size()));
  }
  return {LastingArray(values), LastingArray(depths), LastingArray(ends)};
}

SparseTables pack_tables(const WeightView& w) {
  std::vector<uint8_t> steps, places;
  std::vector<float> values;
  std::vector<uint32_t> ends{0};
  for (int64_t p = 0; p < panels_of(w.columns); ++p) {
    for (int64_t from = 0; from < w.depth; from += kTableDepth) {
      const auto counts = count_block(w, p, from);
      const uint8_t most = *std::max_element(counts.begin(), counts.end());
      const size_t at = values.size();
      steps.push_back(most);
      values.resize(at + most * kSparsePanel);
      places.resize(at + most * kSparsePanel);
      for (int64_t n = p * kSparsePanel; n < std::min(w.columns, (p + 1) * kSparsePanel); ++n) {
        size_t to = at + static_cast<size_t>(n - p * kSparsePanel);
        for (int64_t k = from; k < std::min(w.depth, from + kTableDepth); ++k)
          if (const float v = w.at(k, n); v != 0) {
            values[to] = v;
            places[to] = static_cast<uint8_t>(k - from);
            to += kSparsePanel;
          }
      }
    }
    ends.push_back(static_cast<uint32_t>(values.size() / kSparsePanel));
  }
  return {blocks_of(w.depth), LastingArray(steps), LastingArray(values), LastingArray(places), LastingArray(ends)};
}

void unpack(const SparseLists& form, const WeightView& shape, float* to) {
  size_t column = 0, i = 0;
  for (int64_t from = 0; from < shape.depth; from += form.part)
    for (int64_t n = 0; n < shape.columns; ++n)
      for (++column; i < form.ends[column]; ++i) put(shape, to, from + form.offsets[i] / form.tile_rows, n, form.values[i]);
}

void unpack(const SparsePanels& form, const WeightView& shape, float* to) {
  for (size_t p = 0; p + 1 < form.ends.size(); ++p)
    for (size_t i = form.ends[p]; i < form.ends[p + 1]; ++i)
      for (size_t j = 0; j < kSparsePanel; ++j) put(shape, to, form.depths[i], static_cast<int64_t>(p * kSparsePanel + j), form.values[i * kSparsePanel + j]);
}

void unpack(const SparseTables& form, const WeightView& shape, float* to) {
  size_t step = 0;
  for (size_t b = 0; b < form.steps.size(); ++b) {
    const auto blocks = static_cast<size_t>(form.blocks);
    for (size_t s = 0; s < form.steps[b]; ++s, ++step)
      for (size_t j = 0; j < kSparsePanel; ++j)
        put(shape, to, static_cast<int64_t>(b % blocks) * kTableDepth + form.places[step * kSparsePanel + j], static_cast<int64_t>(b / blocks * kSparsePanel + j), form.values[step * kSparsePanel + j]);
  }
}

}  // namespace infopt::cpu

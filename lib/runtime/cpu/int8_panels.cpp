#include "lib/runtime/cpu/int8_panels.h"

#include <algorithm>
#include <cstring>

#include "lib/base/memory.h"
#include "lib/base/simd.h"

namespace infopt::cpu {
namespace {

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

/// How many groups to join so that their columns fill a vector.
int64_t joined_groups(const Int8WeightSource& source, bool zero_points) {
  const int64_t columns = source.columns / source.groups;
  if (zero_points) return 1;
  for (int64_t joined = 1; joined < source.groups; ++joined)
    if (source.groups % joined == 0 && joined * columns >= kInt8Lanes) return joined;
  return source.groups;
}

/// Four weights of each column, side by side.
void gather_fours(const uint8_t* from, int64_t column_stride, const int64_t (&offset)[4], uint32_t flip, int64_t columns, uint8_t* to) {
  const uint8_t *a = from + offset[0], *b = from + offset[1], *c = from + offset[2], *d = from + offset[3];
  if (column_stride == 1) {
    for (int64_t n = 0; n < columns; ++n) to[4 * n] = a[n], to[4 * n + 1] = b[n], to[4 * n + 2] = c[n], to[4 * n + 3] = d[n];
    if (flip) flip_bytes(to, to, 4 * columns, 0x80);
    return;
  }
  for (int64_t n = 0; n < columns; ++n, a += column_stride, b += column_stride, c += column_stride, d += column_stride) {
    const uint8_t four[4] = {*a, *b, *c, *d};
    uint32_t word;
    std::memcpy(&word, four, 4);
    word ^= flip;
    std::memcpy(to + 4 * n, &word, 4);
  }
}

INFOPT_SIMD void add_fours(const int8_t* weights, int64_t lanes, int32_t* sums) {
  for (int64_t i = 0; i < lanes; ++i)
    sums[i] = static_cast<int32_t>(static_cast<uint32_t>(sums[i]) +
                                   static_cast<uint32_t>(weights[4 * i] + weights[4 * i + 1] + weights[4 * i + 2] + weights[4 * i + 3]));
}

int32_t wrapped(uint32_t v) { return static_cast<int32_t>(v); }

}  // namespace

Int8Panels::Int8Panels(const Int8WeightSource& source, int64_t taps_in_run, const int32_t* zero_points) : columns_(source.columns) {
  const int32_t shift = source.is_unsigned ? 128 : 0;
  std::vector<int32_t> zeros;
  for (int64_t n = 0; n < columns_ && (zero_points || shift); ++n) zeros.push_back((zero_points ? zero_points[n] : 0) - shift);
  if (std::all_of(zeros.begin(), zeros.end(), [](int32_t z) { return z == 0; })) zeros.clear();
  const int64_t joined = joined_groups(source, !zeros.empty()), taps = static_cast<int64_t>(source.tap_offsets.size());
  groups_ = source.groups / joined;
  group_channels_ = source.channels * joined;
  runs_ = taps / taps_in_run;
  run_bytes_ = taps_in_run * group_channels_;
  steps_ = round_up(run_bytes_, 4) / 4;
  pack(source, taps_in_run, joined);
  if (!zeros.empty()) place_zeros(zeros);
}

void Int8Panels::pack(const Int8WeightSource& source, int64_t taps_in_run, int64_t joined) {
  int64_t bytes = 0;
  const int64_t group_columns = columns_ / groups_;
  for (int64_t group = 0; group < groups_; ++group)
    for (int64_t n = 0; n < group_columns; n += kInt8Panel) {
      const int64_t columns = std::min(kInt8Panel, group_columns - n), vectors = round_up(columns, kInt8Lanes) / kInt8Lanes;
      panels_.push_back({group, group * group_columns + n, columns, vectors, bytes});
      bytes += runs_ * steps_ * 4 * vectors * kInt8Lanes;
    }
  weights_ = allocate_lasting(static_cast<size_t>(bytes));
  sums_.assign(static_cast<size_t>(columns_), 0);
  for (const Panel& panel : panels_) pack_panel(source, taps_in_run, joined, panel);
}

void Int8Panels::pack_panel(const Int8WeightSource& source, int64_t taps_in_run, int64_t joined, const Panel& panel) {
  const int64_t lanes = panel.vectors * kInt8Lanes, small_columns = columns_ / source.groups;
  const uint32_t flip = source.is_unsigned ? 0x80808080u : 0;
  uint8_t* to = static_cast<uint8_t*>(weights_.get()) + panel.at;
  const uint8_t* from = source.data + panel.first * source.column_stride;
  alignas(64) int32_t sums[kInt8Panel] = {};
  for (int64_t run = 0; run < runs_; ++run)
    for (int64_t step = 0; step < steps_; ++step, to += 4 * lanes) {
      std::memset(to, 0, static_cast<size_t>(4 * lanes));
      int64_t channel[4], offset[4];
      for (int64_t i = 0; i < 4; ++i) {
        const int64_t k = 4 * step + i;
        channel[i] = k < run_bytes_ ? k % group_channels_ : -1;
        offset[i] = k < run_bytes_ ? source.tap_offsets[static_cast<size_t>(run * taps_in_run + k / group_channels_)] : 0;
      }
      if (joined == 1 && channel[3] >= 0) {
        for (int64_t i = 0; i < 4; ++i) offset[i] += channel[i] * source.channel_stride;
        gather_fours(from, source.column_stride, offset, flip, panel.columns, to);
      } else {
        for (int64_t lane = 0; lane < panel.columns; ++lane) {
          const int64_t own = joined > 1 ? (panel.first + lane) / small_columns % joined * source.channels : 0;
          for (int64_t i = 0; i < 4; ++i) {
            const int64_t c = channel[i] - own;
            if (c < 0 || c >= source.channels) continue;
            to[4 * lane + i] = from[lane * source.column_stride + c * source.channel_stride + offset[i]] ^ static_cast<uint8_t>(flip);
          }
        }
      }
      add_fours(reinterpret_cast<const int8_t*>(to), lanes, sums);
    }
  std::copy_n(sums, panel.columns, sums_.begin() + panel.first);
}

/// Into the panels' lanes, and what the activations' zero point will be multiplied with: Σ (w − zero).
void Int8Panels::place_zeros(const std::vector<int32_t>& zeros) {
  const size_t bytes = panels_.size() * static_cast<size_t>(kInt8Panel) * sizeof(int32_t);
  const uint32_t depth = static_cast<uint32_t>(runs_ * run_bytes_);
  zeros_ = allocate_lasting(bytes);
  int32_t* to = static_cast<int32_t*>(zeros_.get());
  std::memset(to, 0, bytes);
  for (const Panel& panel : panels_) {
    std::copy_n(zeros.begin() + panel.first, panel.columns, to);
    to += kInt8Panel;
  }
  for (size_t n = 0; n < zeros.size(); ++n) sums_[n] = wrapped(static_cast<uint32_t>(sums_[n]) - depth * static_cast<uint32_t>(zeros[n]));
}

Int8Panels::Prepared Int8Panels::prepare(const Int8Epilogue& epilogue, int32_t zero, size_t first_panel, size_t last_panel) const {
  const size_t padded = panels_.size() * static_cast<size_t>(kInt8Panel);
  float* scales = static_cast<float*>(int8_scratch(Int8Slot::Columns, padded * (sizeof(float) + sizeof(int32_t))));
  int32_t* starts = reinterpret_cast<int32_t*>(scales + padded);
  for (size_t p = first_panel; p < last_panel; ++p) {
    const Panel& panel = panels_[p];
    float* scale = scales + p * static_cast<size_t>(kInt8Panel);
    int32_t* start = starts + p * static_cast<size_t>(kInt8Panel);
    for (int64_t i = 0; i < panel.columns; ++i) {
      const size_t n = static_cast<size_t>(panel.first + i);
      start[i] = wrapped((epilogue.bias ? static_cast<uint32_t>(epilogue.bias[n]) : 0u) -
                         static_cast<uint32_t>(zero) * static_cast<uint32_t>(sums_[n]));
      scale[i] = epilogue.scale ? epilogue.scale[n] : 0.0f;
    }
    for (int64_t i = panel.columns; i < panel.vectors * kInt8Lanes; ++i) start[i] = 0, scale[i] = 0;
  }
  return {this, starts, scales};
}

Int8Panel Int8Panels::Prepared::panel(size_t i) const {
  const Panel& p = owner->panels_[i];
  const size_t at = i * static_cast<size_t>(kInt8Panel);
  return {static_cast<const int8_t*>(owner->weights_.get()) + p.at,
          p.vectors,
          p.columns,
          p.first,
          start + at,
          scale + at,
          owner->zeros_ ? static_cast<const int32_t*>(owner->zeros_.get()) + at : nullptr,
          false};
}

}  // namespace infopt::cpu

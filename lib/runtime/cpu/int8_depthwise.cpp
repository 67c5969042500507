#include "lib/runtime/cpu/int8_depthwise.h"

#include <algorithm>
#include <cstring>

#include "lib/base/memory.h"
#include "lib/runtime/cpu/int8_centred.h"

namespace infopt::cpu {
namespace {

constexpr int64_t kInterleavedBytes = 20 << 10;  // in the first-level cache, beside the weights and the output

}  // namespace

Int8Depthwise::Int8Depthwise(const uint8_t* weights, bool is_unsigned, const int32_t* zeros, Int8Window& window)
    : channels_(window.channels) {
  plan_taps(window);
  for (int64_t first = 0; first < channels_;) {
    const int64_t rest = channels_ - first, vectors = rest > 48 ? 4 : rest > 16 ? 2 : 1, taken = std::min(rest, vectors * kInt8Lanes);
    blocks_.push_back({first, taken, vectors, 0, 1});
    first += taken;
  }
  const int64_t kernel = window.kernel[1] * window.kernel[2];
  pack(centred_parts(weights, is_unsigned, zeros, channels_, kernel), kernel);
}

/// Four rows of a column make a quad. A row left alone is taken four columns at a time.
void Int8Depthwise::plan_taps(Int8Window& window) {
  const int64_t height = window.kernel[1], width = window.kernel[2], step = window.dilations[2];
  for (int64_t y = 0; y < height; y += 4) {
    const bool lone = height - y == 1;
    Quad quad{};
    for (int64_t i = 0; i < 4; ++i) {
      quad.lines[i] = (lone || y + i >= height ? y : y + i) * window.dilations[1];
      quad.columns[i] = lone && i < width ? i * step : 0;
    }
    for (int64_t x = 0; x < width; x += lone ? 4 : 1) {
      Tap tap{quads_.size(), x * step, {}};
      for (int64_t i = 0; i < 4; ++i) {
        const int64_t row = lone ? y : y + i, column = lone ? x + i : x;
        tap.place[i] = row < height && column < width ? row * width + column : -1;
      }
      taps_.push_back(tap);
    }
    quads_.push_back(quad);
    if (lone && width > 4 && width % 4 != 0) window.slack = 3 * step * channels_;
  }
}

void Int8Depthwise::pack(const std::vector<std::vector<int8_t>>& parts, int64_t kernel) {
  int64_t bytes = 0;
  for (Block& block : blocks_) {
    block.at = bytes;
    for (size_t p = 1; p < parts.size(); ++p) {
      const auto begin = parts[p].begin() + block.first * kernel;
      if (std::any_of(begin, begin + block.channels * kernel, [](int8_t w) { return w != 0; })) block.parts = static_cast<int64_t>(p) + 1;
    }
    bytes += block.parts * static_cast<int64_t>(taps_.size()) * block.vectors * kInt8Lanes * 4;
  }
  packed_ = allocate_lasting(static_cast<size_t>(bytes));
  sums_.assign(static_cast<size_t>(channels_), 0);
  for (const Block& block : blocks_) {
    const int64_t part_bytes = static_cast<int64_t>(taps_.size()) * block.vectors * kInt8Lanes * 4;
    for (int64_t p = 0; p < block.parts; ++p)
      pack_part(parts[static_cast<size_t>(p)], kernel, block, static_cast<int8_t*>(packed_.get()) + block.at + p * part_bytes);
  }
}

void Int8Depthwise::pack_part(const std::vector<int8_t>& part, int64_t kernel, const Block& block, int8_t* to) {
  for (const Tap& tap : taps_)
    for (int64_t p = 0; p < block.vectors * kInt8Lanes; ++p, to += 4) {
      const int64_t channel = int8_lane_order(block.vectors, p), n = block.first + channel;
      for (int64_t i = 0; i < 4; ++i) {
        to[i] = channel < block.channels && tap.place[i] >= 0 ? part[static_cast<size_t>(n * kernel + tap.place[i])] : int8_t{0};
        if (channel < block.channels) sums_[static_cast<size_t>(n)] += to[i];
      }
    }
}

Int8Depthwise::Prepared Int8Depthwise::prepare(const Int8Epilogue& epilogue, int32_t zero) const {
  const size_t padded = blocks_.size() * static_cast<size_t>(kInt8Panel);
  float* scales = static_cast<float*>(int8_scratch(Int8Slot::Columns, padded * (sizeof(float) + sizeof(int32_t))));
  int32_t* starts = reinterpret_cast<int32_t*>(scales + padded);
  for (size_t b = 0; b < blocks_.size(); ++b)
    for (int64_t p = 0; p < blocks_[b].vectors * kInt8Lanes; ++p) {
      const int64_t channel = int8_lane_order(blocks_[b].vectors, p);
      const size_t n = static_cast<size_t>(blocks_[b].first + channel), to = b * static_cast<size_t>(kInt8Panel) + static_cast<size_t>(p);
      const bool there = channel < blocks_[b].channels;
      const uint32_t bias = there && epilogue.bias ? static_cast<uint32_t>(epilogue.bias[n]) : 0;
      starts[to] = there ? static_cast<int32_t>(bias - static_cast<uint32_t>(zero) * static_cast<uint32_t>(sums_[n])) : 0;
      scales[to] = there && epilogue.scale ? epilogue.scale[n] : 0.0f;
    }
  return {starts, scales};
}

Int8Panel Int8Depthwise::panel_of(size_t b, const Prepared& prepared) const {
  const Block& block = blocks_[b];
  const size_t at = b * static_cast<size_t>(kInt8Panel);
  return {static_cast<const int8_t*>(packed_.get()) + block.at,
          block.vectors,
          block.channels,
          block.first,
          prepared.start + at,
          prepared.scale + at,
          nullptr,
          true};
}

void Int8Depthwise::line(const Int8Window& window, const Int8Slab& slab, int64_t pixels, const Prepared& prepared, const Int8Finish& finish,
                         void* dst, const void* residual) const {
  for (size_t b = 0; b < blocks_.size(); ++b) {
    const int64_t first = blocks_[b].first;
    block_line(window, slab, pixels, panel_of(b, prepared), blocks_[b].parts, finish, int8_place(dst, first, finish),
               int8_place(residual, first, finish));
  }
}

bool Int8Depthwise::slides(const Int8Window& window) const {
  return int8_kernels().slide && window.kernel == Int8Axes{1, 3, 3} && window.dilations[2] == 1 && window.strides[2] <= 2 &&
         std::all_of(blocks_.begin(), blocks_.end(), [](const Block& b) { return b.parts <= 2; });
}

void Int8Depthwise::sliding_line(const Int8Window& window, const Int8Extent& extent, const uint8_t* image, int64_t y,
                                 const Prepared& prepared, const Int8Finish& finish, void* dst, const void* residual) const {
  uint8_t outside[kInt8Panel];
  std::memset(outside, window.zero ^ window.flip, sizeof outside);
  Int8SlidingLine line;
  line.width = extent.in[2];
  line.first = -window.pads_begin[2];
  line.count = extent.out[2];
  line.step = window.strides[2];
  line.flip = window.flip;
  line.outside = static_cast<uint8_t>(window.zero);
  line.stride = channels_;
  for (size_t b = 0; b < blocks_.size(); ++b) {
    const int64_t first = blocks_[b].first;
    line.parts = blocks_[b].parts;
    for (int64_t i = 0; i < 3; ++i) {
      const int64_t at = y * window.strides[1] - window.pads_begin[1] + i * window.dilations[1];
      const bool inside = at >= 0 && at < extent.in[1];
      line.sources[i] = inside ? image + at * extent.in[2] * channels_ + first : outside;
      line.strides[i] = inside ? channels_ : 0;
    }
    line.dst = int8_place(dst, first, finish);
    line.residual = int8_place(residual, first, finish);
    int8_kernels().slide(line, panel_of(b, prepared), finish);
  }
}

void Int8Depthwise::block_line(const Int8Window& window, const Int8Slab& slab, int64_t pixels, const Int8Panel& panel, int64_t parts,
                               const Int8Finish& finish, void* dst, const void* residual) const {
  const int64_t vector = panel.vectors * kInt8Lanes * 4, quads = static_cast<int64_t>(quads_.size());
  const int64_t halo = (window.kernel[2] - 1) * window.dilations[2] + 1, stride = window.strides[2];
  const int64_t room = (kInterleavedBytes / (quads * vector) - halo) / stride + 1,
                strip = std::min(pixels, std::max<int64_t>(room / 24 * 24, 24));
  const int64_t quad_bytes = ((strip - 1) * stride + halo) * vector;
  uint8_t* interleaved = static_cast<uint8_t*>(int8_scratch(Int8Slot::Interleaved, static_cast<size_t>(quads * quad_bytes)));
  const size_t all_taps = taps_.size() * static_cast<size_t>(parts);
  int64_t* taps = static_cast<int64_t*>(int8_scratch(Int8Slot::Pointers, all_taps * sizeof(int64_t)));
  for (size_t t = 0; t < taps_.size(); ++t) taps[t] = static_cast<int64_t>(taps_[t].quad) * quad_bytes + taps_[t].column * vector;
  for (size_t t = taps_.size(); t < all_taps; ++t) taps[t] = taps[t - taps_.size()];
  for (int64_t x = 0; x < pixels; x += strip) {
    const int64_t count = std::min(strip, pixels - x);
    for (int64_t q = 0; q < quads; ++q) {
      Int8Interleave job;
      const Quad& quad = quads_[static_cast<size_t>(q)];
      for (size_t i = 0; i < 4; ++i)
        job.sources[i] = slab.data + quad.lines[i] * slab.line_stride + (x * stride + quad.columns[i]) * channels_ + panel.first;
      job.count = (count - 1) * stride + halo;
      job.stride = channels_;
      job.vectors = panel.vectors;
      job.channels = panel.columns;
      job.dst = interleaved + q * quad_bytes;
      job.dst_stride = vector;
      int8_kernels().interleave(job);
    }
    const Int8DepthwiseLine line{interleaved,
                                 count,
                                 stride * vector,
                                 taps,
                                 static_cast<int64_t>(all_taps),
                                 int8_place(dst, x * channels_, finish),
                                 int8_place(residual, x * channels_, finish),
                                 channels_};
    int8_kernels().depthwise(line, panel, finish);
  }
}

}  // namespace infopt::cpu

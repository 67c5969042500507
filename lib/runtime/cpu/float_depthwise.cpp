// What surrounds the loops: which convolutions they take, weights, rows among threads. And the loops of vectors that every processor has.
#include "lib/runtime/cpu/float_depthwise.h"

#include <algorithm>
#include <cstring>

#include "lib/base/memory.h"
#include "lib/base/share.h"
#include "lib/runtime/cpu/float_tiles.h"
#include "lib/runtime/cpu/post_activation.h"
#include "lib/runtime/cpu/vectors_portable.h"

namespace infopt::cpu {
namespace {
constexpr int kPixels = 4;
inline Vec load_some(const float* p, int64_t n) {
  Vec v{};
  if (n == 4) std::memcpy(&v, p, sizeof v);
  else for (int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
inline void store_some(float* p, Vec v, int64_t n) {
  if (n == 4) std::memcpy(p, &v, sizeof v);
  else for (int64_t i = 0; i < n; ++i) p[i] = v[i];
}
}  // namespace
}  // namespace infopt::cpu

#include "lib/runtime/cpu/float_depthwise_body.h"

namespace infopt::cpu {
namespace {

constexpr int64_t kSegment = 64;  ///< pixels of a row in one task: a part that doesn't depend on the number of threads

DepthwiseSegment segment_of_processor() {
#if defined(__x86_64__)
  if (float_tiles().lanes == avx512_float_tiles().lanes) return avx512_depthwise;
  if (float_tiles().lanes == avx2_float_tiles().lanes) return avx2_depthwise;
#endif
  return portable_depthwise;
}

}  // namespace

void portable_depthwise(const DepthwiseImage& image, int64_t row, int64_t first, int64_t count) { segment_any(image, row, first, count); }

bool is_plain_depthwise(const ConvGeometry& g, const Shape& weights) {
  const bool dense = std::all_of(g.dilations.begin(), g.dilations.end(), [](int64_t d) { return d == 1; });
  return !g.transposed && dense && (weights.size() == 3 || weights.size() == 4) && g.groups == weights[0] && weights[1] == 1 && weights[0] > 1;
}

Tensor pack_depthwise(const Tensor& given) {
  const Tensor weights = given.aligned_for_now();
  const int64_t channels = weights.dim(0), taps = weights.size() / channels, blocks = (channels + kDepthwiseBlock - 1) / kDepthwiseBlock;
  const int64_t size = blocks * taps * kDepthwiseBlock;
  const auto memory = allocate_lasting(static_cast<size_t>(size) * sizeof(float));
  Tensor out(DType::F32, {size}, memory, memory.get());
  float* to = out.mutable_data<float>();
  std::fill_n(to, size, 0.0f);
  const float* from = weights.data<float>();
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t k = 0; k < taps; ++k) to[(c / kDepthwiseBlock * taps + k) * kDepthwiseBlock + c % kDepthwiseBlock] = from[c * taps + k];
  return out;
}

void depthwise(const ConvGeometry& g, const Tensor& src, const Shape& weights, const Tensor& packed, const Tensor* bias, bool accumulate, Tensor& dst) {
  const bool row_only = weights.size() == 3;
  DepthwiseImage im;
  im.channels = src.dim(1);
  im.height = row_only ? 1 : src.dim(2);
  im.width = src.shape().back();
  im.kernel_height = row_only ? 1 : weights[2];
  im.kernel_width = weights.back();
  im.stride_y = row_only ? 1 : g.strides[0];
  im.stride_x = g.strides.back();
  im.pad_y = row_only ? 0 : g.pads_begin[0];
  im.pad_x = g.pads_begin.back();
  int64_t out_height = row_only ? 1 : dst.dim(2);
  im.out_width = dst.shape().back();
  if (is_column(src.shape(), weights, dst.shape(), g)) {
    std::swap(im.height, im.width);
    std::swap(im.kernel_height, im.kernel_width);
    std::swap(im.stride_y, im.stride_x);
    std::swap(im.pad_y, im.pad_x);
    std::swap(out_height, im.out_width);
  }
  im.weights = packed.data<float>();
  im.bias = bias ? bias->data<float>() : nullptr;
  im.accumulate = accumulate;
  im.bounded = g.post.kind == PostActivation::Clip;
  im.low = g.post.low, im.high = g.post.high;
  const bool activated = g.post.kind != PostActivation::None && !im.bounded;
  const float* x = src.data<float>();
  float* y = dst.mutable_data<float>();
  const int64_t parts = (im.out_width + kSegment - 1) / kSegment, work = im.kernel_height * im.kernel_width * im.channels * std::min(kSegment, im.out_width);
  const DepthwiseSegment segment = segment_of_processor();
  share_work(src.dim(0) * out_height * parts, std::max<int64_t>(1, (1 << 17) / std::max<int64_t>(1, work)), [&](int64_t begin, int64_t end) {
    DepthwiseImage mine = im;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / (out_height * parts), row = i / parts % out_height, first = i % parts * kSegment, count = std::min(kSegment, im.out_width - first);
      mine.x = x + image * im.height * im.width * im.channels;
      mine.y = y + image * out_height * im.out_width * im.channels;
      segment(mine, row, first, count);
      if (activated) activate(g.post, mine.y + (row * im.out_width + first) * im.channels, count * im.channels);
    }
  });
}

}  // namespace infopt::cpu

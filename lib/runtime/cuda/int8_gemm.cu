#include "lib/runtime/cuda/int8_gemm.h"

#include <utility>

#include "lib/base/error.h"
#include "lib/runtime/cuda/int8_gemm_kernel.h"
#include "lib/runtime/cuda/launch.h"

namespace infopt::cuda {
namespace {

/// Each group's channels brought to `padded` of them by `given`, or by the byte there.
__global__ void pad_channels(const uint8_t* x, uint8_t* y, int64_t runs, int channels, int padded, uint8_t given, const uint8_t* there) {
  const uint8_t fill = there ? *there : given;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, words = runs * padded / 4;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < words; i += step) {
    const int64_t run = i * 4 / padded;
    const int first = static_cast<int>(i * 4 - run * padded);
    uint32_t word = 0;
    for (int j = 0; j < 4; ++j) word |= static_cast<uint32_t>(first + j < channels ? x[run * channels + first + j] : fill) << 8 * j;
    reinterpret_cast<uint32_t*>(y)[i] = word;
  }
}

/// 16 bytes of what padding reads as, then 16 zeros.
__global__ void fill_pads(const uint8_t* zero, uint8_t* pads) { pads[threadIdx.x] = threadIdx.x < 16 ? *zero : uint8_t{0}; }

int64_t rounded_up(int64_t v, int64_t to) { return (v + to - 1) / to * to; }
bool aligned(const void* p, uintptr_t to) { return reinterpret_cast<uintptr_t>(p) % to == 0; }

/// Code as int8: the same value, or one 128 less.
int8_t centred(const Int8Weights& w, int64_t at) {
  const int code = static_cast<int>(w.codes.raw()[at]);
  return static_cast<int8_t>(w.codes.dtype() == DType::U8 ? code - 128 : static_cast<int8_t>(code));
}

}  // namespace

Int8Places int8_places(int64_t images, const Shape& spatial, const Window& window) {
  Int8Places p;
  p.images = images;
  int64_t pixels = 1;
  bool fits = true;
  for (size_t i = 0; i < spatial.size(); ++i) {
    const size_t axis = 3 - spatial.size() + i;
    p.in[axis] = spatial[i], p.out[axis] = window.out[i], p.strides[axis] = window.strides[i], p.before[axis] = window.pads_begin[i];
    constexpr int64_t kMost = 1 << 28;
    for (int64_t v : {spatial[i], window.strides[i] * window.out[i], window.pads_begin[i], -window.pads_begin[i], window.kernel[i] * window.dilations[i]}) fits = fits && v < kMost;
    pixels = std::min(pixels, kMost) * std::max(spatial[i], window.out[i]);
    fits = fits && pixels < (int64_t{1} << 31);
  }
  if (!fits) throw Error(ErrorKind::Unsupported, "an integer convolution on CUDA over " + to_string(spatial));
  return p;
}

Int8Gemm::Int8Gemm(const Int8Weights& w, std::array<int64_t, 3> dilations, CodeStep input, bool known_zero, SparseUse sparse)
    : columns_(w.columns), groups_(w.groups), channels_(w.channels), padded_channels_(rounded_up(w.channels, 4)), granule_(padded_channels_ % 16 == 0 ? 16 : 4),
      pad_(known_zero ? static_cast<uint8_t>(input.zero) : 0), taps_per_column_(w.taps()) {
  const int64_t taps = w.taps(), depth = taps * padded_channels_;
  chunks_ = rounded_up(depth, 64) / 16;
  const int64_t row_bytes = chunks_ * 16, flip = w.codes.dtype() == DType::U8 ? 128 : 0;
  Tensor packed = Tensor::zeros(DType::I8, {columns_, row_bytes});
  bool any_zero = false;
  for (int64_t n = 0; n < columns_; ++n) {
    const size_t i = static_cast<size_t>(n);
    const int32_t zero = static_cast<int32_t>((w.zeros.empty() ? 0 : w.zeros[i]) - flip);
    uint32_t sum = 0;
    auto* row = packed.mutable_data<int8_t>() + n * row_bytes;
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t c = 0; c < channels_; ++c) {
        const int8_t code = centred(w, n * w.column_stride + c * w.channel_stride + t);
        row[t * padded_channels_ + c] = code;
        sum += static_cast<uint32_t>(static_cast<int32_t>(code));
      }
    // The kernel takes Σ a·w − zero·Σ a; the channels added to make the padded ones have the activations' zero point.
    const auto za = static_cast<uint32_t>(input.zero), zw = static_cast<uint32_t>(zero);
    const uint32_t all = static_cast<uint32_t>(depth);
    shift_.push_back(known_zero ? static_cast<int32_t>(za * (zw * all - sum)) : 0);
    factor_.push_back(static_cast<int32_t>(zw * all - sum));
    zeros_.push_back(zero);
    any_zero = any_zero || zero != 0;
  }
  if (!any_zero) zeros_.clear();
  // A step of the widest tile more than the last piece's.
  const int64_t entries = (rounded_up(chunks_, 16) + 16) * (16 / granule_);
  Tensor table(DType::I32, {entries, 4});
  for (int64_t q = 0; q < entries; ++q) {
    const int64_t at = q * granule_, t = at / std::max<int64_t>(padded_channels_, 1);
    const int64_t z = t / (w.kernel[1] * w.kernel[2]), y = t / w.kernel[2] % w.kernel[1], x = t % w.kernel[2];
    const bool there = at < depth;
    const int64_t entry[4] = {there ? z * dilations[0] : kOutside, there ? y * dilations[1] : 0, there ? x * dilations[2] : 0, there ? at - t * padded_channels_ : 0};
    for (int64_t i = 0; i < 4; ++i) table.mutable_data<int32_t>()[q * 4 + i] = static_cast<int32_t>(entry[i]);
  }
  Tensor pads = Tensor::zeros(DType::U8, {32});
  std::fill_n(pads.mutable_data<uint8_t>(), 16, pad_);
  if (groups_ == 1 && zeros_.empty() && columns_ > 0) {
    // Windows of several pixels are one row here, of which the channels that fill it up are no part.
    sparse_ = std::make_unique<Int8Sparse>(WeightMatrix{packed, columns_, taps > 1 ? depth : channels_, row_bytes, 1}, taps == 1, sparse);
    if (!sparse_->worth_saying()) sparse_ = nullptr;
  }
  weights_.set(std::move(packed));
  taps_.set(std::move(table));
  pads_.set(std::move(pads));
  w.codes.release_pages();
}

void Int8Gemm::run(CudaContext& context, const Tensor& x, const Int8Places& places, const Int8End& end, void* y) const {
  const bool rows_as_they_lie = places.in == places.out && places.before == std::array<int64_t, 3>{0, 0, 0};
  if (!sparse_ || !sparse_->has_choice() || !rows_as_they_lie) return run_dense(context, x, places, end, y);
  sparse_->multiply(context, x, places.rows(), end, y, [&] { run_dense(context, x, places, end, y); });
}

void Int8Gemm::run_dense(CudaContext& context, const Tensor& x, const Int8Places& places, const Int8End& end, void* y) const {
  Int8Product p{};
  p.rows = places.rows();
  p.columns = static_cast<int>(columns_ / groups_);
  if (p.rows == 0 || p.columns == 0) return;
  Stream& stream = context.stream();
  const int64_t pixels = places.in[0] * places.in[1] * places.in[2];
  Tensor copy;
  p.a = reinterpret_cast<const uint8_t*>(x.raw());
  if (padded_channels_ != channels_) {
    const int64_t runs = places.images * pixels * groups_;
    copy = context.scratch(DType::U8, {runs, padded_channels_});
    INFOPT_LAUNCH(stream, pad_channels, {std::min<int64_t>(blocks_for(runs * padded_channels_ / 4, 256), 1 << 16)}, {256}, 0, p.a, reinterpret_cast<uint8_t*>(copy.mutable_raw()), runs, static_cast<int>(channels_),
                  static_cast<int>(padded_channels_), pad_, end.run_zero);
  } else if (!aligned(p.a, static_cast<uintptr_t>(granule_))) {
    copy = context.scratch(DType::U8, {x.size()});
    stream.copy_on_device(copy.mutable_raw(), x.raw(), x.bytes());
  }
  if (copy.defined()) p.a = reinterpret_cast<const uint8_t*>(copy.raw());
  p.b = reinterpret_cast<const int8_t*>(weights_.get(context.run()).raw());
  p.taps = reinterpret_cast<const Int8Tap*>(taps_.get(context.run()).raw());
  p.pad = reinterpret_cast<const uint8_t*>(pads_.get(context.run()).raw());
  Tensor pads;
  const bool has_pads = taps_per_column_ > 1 || places.out != places.in || places.before != std::array<int64_t, 3>{0, 0, 0};
  if (end.run_zero && has_pads) {
    pads = context.scratch(DType::U8, {32});
    INFOPT_LAUNCH(stream, fill_pads, {1}, {32}, 0, end.run_zero, reinterpret_cast<uint8_t*>(pads.mutable_raw()));
    p.pad = reinterpret_cast<const uint8_t*>(pads.raw());
  }
  p.group_bytes = static_cast<int>(padded_channels_);
  p.pixel_bytes = static_cast<int>(padded_channels_ * groups_);
  p.image_bytes = pixels * p.pixel_bytes;
  p.chunks = static_cast<int>(chunks_);
  p.row_bytes = chunks_ * 16;
  p.all_columns = columns_;
  const auto set = [](const std::array<int64_t, 3>& from, int& a, int& b, int& c) { a = static_cast<int>(from[0]), b = static_cast<int>(from[1]), c = static_cast<int>(from[2]); };
  set(places.in, p.in0, p.in1, p.in2);
  set(places.out, p.out0, p.out1, p.out2);
  set(places.strides, p.stride0, p.stride1, p.stride2);
  set(places.before, p.before0, p.before1, p.before2);
  p.end = end;
  p.y = y;
  p.vector = 1;
  for (int v : {4, 16})
    if (p.columns % v == 0 && aligned(y, static_cast<uintptr_t>(v)) && (!end.residual || aligned(end.residual_data, static_cast<uintptr_t>(v)))) p.vector = v;
  (x.dtype() == DType::U8 ? launch_unsigned_product : launch_signed_product)(stream, p, groups_, granule_);
}

// What has few channels in a group takes them as they lie: a thread has V neighbouring columns of P neighbouring pixels of a line.
namespace {

struct DirectProduct {
  const uint8_t* a;
  const int16_t* weights;  // [tap][channel of the group][column], less their zero points
  int64_t lines, columns, all_channels;
  int group_columns, channels, pieces;  // pieces of P pixels in a line
  int kernel[3], dilations[3], in[3], out[3], strides[3], before[3];
  int zero;
  const uint8_t* run_zero;
  Int8End end;
  void* y;
};

/// V codes from `at` on, of which code 0 is lowest.
template <int V> INFOPT_DEVICE uint32_t load_codes(const uint8_t* at) {
  if constexpr (V == 4) return *reinterpret_cast<const uint32_t*>(at);
  else return *at;
}

template <bool Unsigned> INFOPT_DEVICE int code_at(uint32_t word, int i) { return Unsigned ? static_cast<int>(word >> 8 * i & 255u) : static_cast<int8_t>(word >> 8 * i & 255u); }

/// V > 1: a column for each channel (depthwise), V at a time. Else one column, of a group with any number of channels.
template <int V, int P, bool Unsigned> __global__ void sum_directly(const DirectProduct p) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, across = p.columns / V, items = p.lines * p.pieces * across;
  const int zero = p.run_zero ? code_of_byte(*p.run_zero, !Unsigned) : p.zero;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; item < items; item += step) {
    const int64_t rest = item / across, line = rest / p.pieces;
    const int n = static_cast<int>(item - rest * across) * V, first = static_cast<int>(rest - line * p.pieces) * P;
    const int oy = static_cast<int>(line % p.out[1]), oz = static_cast<int>(line / p.out[1] % p.out[0]);
    const int64_t image = line / p.out[1] / p.out[0];
    const int channel = V > 1 ? n : n / p.group_columns * p.channels;
    int sums[P][V];
INFOPT_UNROLL
    for (int i = 0; i < P; ++i)
INFOPT_UNROLL
      for (int j = 0; j < V; ++j) sums[i][j] = 0;
    for (int kz = 0; kz < p.kernel[0]; ++kz) {
      const int z = oz * p.strides[0] - p.before[0] + kz * p.dilations[0];
      if (static_cast<unsigned>(z) >= static_cast<unsigned>(p.in[0])) continue;
      for (int ky = 0; ky < p.kernel[1]; ++ky) {
        const int y = oy * p.strides[1] - p.before[1] + ky * p.dilations[1];
        if (static_cast<unsigned>(y) >= static_cast<unsigned>(p.in[1])) continue;
        const uint8_t* source = p.a + ((image * p.in[0] + z) * p.in[1] + y) * p.in[2] * p.all_channels + channel;
        for (int kx = 0; kx < p.kernel[2]; ++kx) {
          const int16_t* w = p.weights + static_cast<int64_t>((kz * p.kernel[1] + ky) * p.kernel[2] + kx) * p.channels * p.columns + n;
          for (int c = 0; c < p.channels; ++c, w += p.columns) {
            int weight[V];
INFOPT_UNROLL
            for (int j = 0; j < V; ++j) weight[j] = w[j];
INFOPT_UNROLL
            for (int i = 0; i < P; ++i) {
              const int x = (first + i) * p.strides[2] - p.before[2] + kx * p.dilations[2];
              if (static_cast<unsigned>(x) >= static_cast<unsigned>(p.in[2])) continue;
              const uint32_t codes = load_codes<V>(source + x * p.all_channels + c);
INFOPT_UNROLL
              for (int j = 0; j < V; ++j) sums[i][j] += (code_at<Unsigned>(codes, j) - zero) * weight[j];
            }
          }
        }
      }
    }
INFOPT_UNROLL
    for (int i = 0; i < P; ++i)
      if (first + i < p.out[2]) store_sums<V>(p.end, sums[i], (line * p.out[2] + first + i) * p.columns + n, n, p.y);
  }
}

template <int V, int P> void launch_direct(Stream& stream, DirectProduct& p, bool is_unsigned) {
  p.pieces = static_cast<int>(blocks_for(p.out[2], P));
  const int64_t blocks = std::min<int64_t>(blocks_for(p.lines * p.pieces * (p.columns / V), 128), int64_t{1} << 20);
  if (is_unsigned) INFOPT_LAUNCH(stream, (sum_directly<V, P, true>), {blocks}, {128}, 0, p);
  else INFOPT_LAUNCH(stream, (sum_directly<V, P, false>), {blocks}, {128}, 0, p);
}

}  // namespace

Int8Direct::Int8Direct(const Int8Weights& w, std::array<int64_t, 3> dilations, CodeStep input) : columns_(w.columns), groups_(w.groups), channels_(w.channels), kernel_(w.kernel), dilations_(dilations), input_(input) {
  const int64_t taps = w.taps();
  Tensor packed(DType::I16, {taps * channels_, columns_});
  for (int64_t t = 0; t < taps; ++t)
    for (int64_t c = 0; c < channels_; ++c)
      for (int64_t n = 0; n < columns_; ++n) {
        const int64_t at = n * w.column_stride + c * w.channel_stride + t;
        const int code = static_cast<int>(w.codes.raw()[at]), value = w.codes.dtype() == DType::U8 ? code : static_cast<int8_t>(code);
        packed.mutable_data<int16_t>()[(t * channels_ + c) * columns_ + n] = static_cast<int16_t>(value - (w.zeros.empty() ? 0 : w.zeros[static_cast<size_t>(n)]));
      }
  weights_.set(std::move(packed));
  w.codes.release_pages();
}

void Int8Direct::run(CudaContext& context, const Tensor& x, const Int8Places& places, const Int8End& end, void* y) const {
  DirectProduct p{};
  p.lines = places.images * places.out[0] * places.out[1];
  p.columns = columns_;
  p.all_channels = groups_ * channels_;
  if (p.lines * places.out[2] * columns_ == 0) return;
  p.a = reinterpret_cast<const uint8_t*>(x.raw());
  p.weights = reinterpret_cast<const int16_t*>(weights_.get(context.run()).raw());
  p.group_columns = static_cast<int>(columns_ / groups_);
  p.channels = static_cast<int>(channels_);
  for (size_t i = 0; i < 3; ++i) {
    p.kernel[i] = static_cast<int>(kernel_[i]), p.dilations[i] = static_cast<int>(dilations_[i]), p.strides[i] = static_cast<int>(places.strides[i]);
    p.in[i] = static_cast<int>(places.in[i]), p.out[i] = static_cast<int>(places.out[i]), p.before[i] = static_cast<int>(places.before[i]);
  }
  p.zero = input_.zero;
  p.end = end;
  p.run_zero = std::exchange(p.end.run_zero, nullptr);  // it is taken off the codes, not off the sums
  p.y = y;
  const bool wide = channels_ == 1 && columns_ == groups_ && columns_ % 4 == 0 && aligned(p.a, 4) && aligned(y, 4) && (!end.residual || aligned(end.residual_data, 4));
  const bool is_unsigned = x.dtype() == DType::U8;
  if (wide && places.out[2] >= 4) launch_direct<4, 4>(context.stream(), p, is_unsigned);
  else if (wide) launch_direct<4, 1>(context.stream(), p, is_unsigned);
  else launch_direct<1, 1>(context.stream(), p, is_unsigned);
}

}  // namespace infopt::cuda

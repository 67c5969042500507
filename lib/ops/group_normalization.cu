// InstanceNormalization, GroupNormalization, MeanVarianceNormalization and LpNormalization on the device.
#include "lib/base/error.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/element.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/reduction.h"
#include "lib/runtime/cuda/team.h"

namespace infopt::cuda {
namespace {

/// Each channel of each image, `space` elements of it: their mean, and the sum of squares around it.
struct Moments {
  const void* x;
  void *means, *squares;  ///< of W
  int64_t rows, channels, space;
  DType type;
  bool by_four;
};

/// Plain layout: a block for each row.
template <class W> __global__ void __launch_bounds__(256) moments_of_rows(const __grid_constant__ Moments m) {
  for (int64_t row = blockIdx.x; row < m.rows; row += gridDim.x) {
    const RowPart<W> part{m.x, row * m.space, m.space, nullptr, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), m.type, m.by_four};
    W v[4], total = W(0);
    for (int64_t i = part.first(); i < m.space; i += part.step()) {
      part.read(i, v, W(0));
      total += (v[0] + v[1]) + (v[2] + v[3]);
    }
    const W mean = block_combine(total, Plus<W>{}, W(0)) / static_cast<W>(m.space);
    total = W(0);
    for (int64_t i = part.first(); i < m.space; i += part.step()) {
      part.read(i, v, mean);
      INFOPT_UNROLL for (int k = 0; k < 4; ++k) total += (v[k] - mean) * (v[k] - mean);
    }
    total = block_combine(total, Plus<W>{}, W(0));
    if (threadIdx.x == 0) static_cast<W*>(m.means)[row] = mean, static_cast<W*>(m.squares)[row] = total;
  }
}

constexpr int kTileRows = 8;

/// Channels last: 32 channels of an image to a block, its eight warps taking turns over space.
template <class W> __global__ void __launch_bounds__(256) moments_of_columns(const __grid_constant__ Moments m) {
  __shared__ W tile[kTileRows][32];
  const int64_t across = (m.channels + 31) / 32, tiles = m.rows / m.channels * across;
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int64_t image = t / across, c = (t - image * across) * 32 + threadIdx.x, n = c < m.channels ? m.space : 0, base = image * m.space * m.channels + c;
    W mean = W(0), total = W(0);
    for (int pass = 0; pass < 2; ++pass) {
      total = W(0);
      for (int64_t i = threadIdx.y; i < n; i += kTileRows) {
        const W v = load_one<W>(m.type, m.x, base + i * m.channels);
        total += pass ? (v - mean) * (v - mean) : v;
      }
      tile[threadIdx.y][threadIdx.x] = total;
      __syncthreads();
      total = tile[0][threadIdx.x];
      INFOPT_UNROLL for (int y = 1; y < kTileRows; ++y) total += tile[y][threadIdx.x];
      __syncthreads();
      if (pass == 0) mean = total / static_cast<W>(m.space);
    }
    if (threadIdx.y == 0 && c < m.channels) static_cast<W*>(m.means)[image * m.channels + c] = mean, static_cast<W*>(m.squares)[image * m.channels + c] = total;
  }
}

struct Groups {
  const void *means, *squares, *gain, *bias;
  void *scale, *shift;  ///< of W, for each channel of each image
  int64_t count, groups, in_group, space;
  double epsilon;
  DType gain_type, bias_type;
  bool gain_of_group;   ///< gain and bias are given for groups, not channels
};

/// A warp for each group of each image: its channels' moments together, and what each channel is then scaled and shifted by.
template <class W> __global__ void __launch_bounds__(128) group_factors(const __grid_constant__ Groups g) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * 4 + threadIdx.x / 32; at < g.count; at += static_cast<int64_t>(gridDim.x) * 4) {
    const int64_t begin = at * g.in_group, group = at % g.groups;
    const W *means = static_cast<const W*>(g.means) + begin, *squares = static_cast<const W*>(g.squares) + begin;
    W total = W(0);
    for (int64_t c = lane; c < g.in_group; c += 32) total += means[c];
    const W mean = warp_combine(total, Plus<W>{}) / static_cast<W>(g.in_group);
    total = W(0);
    for (int64_t c = lane; c < g.in_group; c += 32) total += squares[c] + static_cast<W>(g.space) * ((means[c] - mean) * (means[c] - mean));
    const W variance = warp_combine(total, Plus<W>{}) / static_cast<W>(g.in_group * g.space);
    const W inverse = W(1) / std::sqrt(variance + static_cast<W>(g.epsilon));
    for (int64_t c = lane; c < g.in_group; c += 32) {
      const int64_t k = g.gain_of_group ? group : group * g.in_group + c;
      const W scale = inverse * load_one<W>(g.gain_type, g.gain, k);
      static_cast<W*>(g.scale)[begin + c] = scale;
      static_cast<W*>(g.shift)[begin + c] = load_one<W>(g.bias_type, g.bias, k) - mean * scale;
    }
  }
}

struct Options {
  int64_t groups;  ///< 0: as many as channels
  float epsilon;
  bool gain_of_group;
};

template <class W> void measure(Stream& stream, const Moments& m, bool channels_last, const Groups& g) {
  constexpr int64_t kMostBlocks = 1 << 30;
  if (channels_last) INFOPT_LAUNCH(stream, moments_of_columns<W>, std::min(m.rows / m.channels * blocks_for(m.channels, 32), kMostBlocks), {32, kTileRows}, 0, m);
  else INFOPT_LAUNCH(stream, moments_of_rows<W>, std::min(m.rows, kMostBlocks), m.space > 1024 ? 256 : 64, 0, m);
  INFOPT_LAUNCH(stream, group_factors<W>, std::min(blocks_for(g.count, 4), kMostBlocks), 128, 0, g);
}

void run_groups(CudaContext& context, const Options& options) {
  Layout layout;
  const Tensor x = context.in_any(0, layout);
  const DType dtype = x.dtype();
  if (x.rank() < 2) throw Error(ErrorKind::Malformed, "a tensor of shape " + to_string(x.shape()) + " has no channels");
  const int64_t batch = x.dim(0), channels = x.dim(1), groups = options.groups ? options.groups : channels, gains = options.gain_of_group ? groups : channels;
  if (groups < 0 || (groups > 0 && channels % groups)) throw Error(ErrorKind::Malformed, std::to_string(channels) + " channels don't divide into " + std::to_string(groups) + " groups");
  const Tensor &gain = context.in(1), &bias = context.in(2);
  if (gain.size() != gains || bias.size() != gains) throw Error(ErrorKind::Malformed, "scale and bias should have " + std::to_string(gains) + " elements");
  if (dtype != DType::F32 && dtype != DType::F64 && !is_16_bit_float(dtype)) refuse_type(dtype);
  Tensor& y = context.out(0, dtype, x.shape(), layout);
  if (x.size() == 0) return;
  const int64_t space = x.size() / (batch * channels);
  const DType wide = dtype == DType::F64 ? DType::F64 : DType::F32;
  Tensor means = context.scratch(wide, {batch, channels}), squares = context.scratch(wide, {batch, channels}), scale = context.scratch(wide, {batch, channels}), shift = context.scratch(wide, {batch, channels});
  const Moments m{x.raw(), means.mutable_raw(), squares.mutable_raw(), batch * channels, channels, space, dtype, rows_by_four(dtype, x.raw(), space)};
  const Groups g{means.raw(), squares.raw(), gain.raw(), bias.raw(), scale.mutable_raw(), shift.mutable_raw(), batch * groups, groups, channels / groups, space, static_cast<double>(options.epsilon), gain.dtype(), bias.dtype(), options.gain_of_group};
  const bool last = layout == Layout::ChannelsLast;
  if (dtype == DType::F64) measure<double>(context.stream(), m, last, g);
  else measure<float>(context.stream(), m, last, g);
  const Shape lying = last ? Shape{batch, space, channels} : Shape{batch, channels, space}, by_channel = last ? Shape{batch, 1, channels} : Shape{batch, channels, 1};
  run_elements(context.stream(), compute_for(dtype), {load(0), with_operand(Fn::Mul, 1), with_operand(Fn::Add, 2)},
               {{dtype, x.raw(), lying}, {wide, scale.raw(), by_channel}, {wide, shift.raw(), by_channel}}, lying, dtype, y.mutable_raw());
}

std::unique_ptr<Kernel> make_instance(const KernelSpec& spec) {
  const Options options{0, spec.node.f("epsilon", 1e-5f), false};
  return make_cuda_kernel([options](CudaContext& context) { run_groups(context, options); }, "channels' moments, then one pass over the elements, in either layout");
}

std::unique_ptr<Kernel> make_group(const KernelSpec& spec) {
  const Options options{spec.node.i("num_groups", 0), spec.node.f("epsilon", 1e-5f), spec.opset < 21};
  if (options.groups <= 0) throw Error(ErrorKind::Malformed, "GroupNormalization's num_groups is " + std::to_string(options.groups));
  return make_cuda_kernel([options](CudaContext& context) { run_groups(context, options); }, "channels' moments, then one pass over the elements, in either layout");
}

/// A reduction of x, float32 or wider, whose axes stay.
Tensor reduced(CudaContext& context, ReduceKind kind, const Tensor& x, const std::vector<bool>& along, DType wide) {
  Tensor y = context.scratch(wide, reduced_shape(x.shape(), along, true));
  run_reduction(context.run(), kind, x.dtype(), x.raw(), reduce_view(x.shape(), along), wide, y.mutable_raw());
  return y;
}

/// (x − mean) / (deviation + 1e-9) over the axes.
void run_mean_variance(CudaContext& context, const std::vector<int64_t>& axes) {
  const Tensor& x = context.in(0);
  const DType dtype = x.dtype();
  if (dtype != DType::F32 && dtype != DType::F64 && !is_16_bit_float(dtype)) refuse_type(dtype);
  std::vector<bool> along(x.shape().size(), false);
  for (int64_t axis : axes) along[static_cast<size_t>(normalize_axis(axis, x.rank()))] = true;
  Tensor& y = context.out(0, dtype, x.shape());
  if (x.size() == 0) return;
  const DType wide = dtype == DType::F64 ? DType::F64 : DType::F32;
  const Compute compute = compute_for(dtype);
  const Tensor mean = reduced(context, ReduceKind::Mean, x, along, wide);
  Tensor centred = context.scratch(wide, x.shape()), squares = context.scratch(wide, x.shape());
  run_elements(context.stream(), compute, {load(0), with_operand(Fn::Sub, 1)}, {operand_of(x), operand_of(mean)}, x.shape(), wide, centred.mutable_raw());
  run_elements(context.stream(), compute, {load(0), {.fn = Fn::Square}}, {operand_of(centred)}, x.shape(), wide, squares.mutable_raw());
  const Tensor variance = reduced(context, ReduceKind::Mean, squares, along, wide);
  Tensor deviation = context.scratch(wide, variance.shape());
  run_elements(context.stream(), compute, {load(0), {.fn = Fn::Sqrt}, with_number(Fn::Add, 1e-9f)}, {operand_of(variance)}, variance.shape(), wide, deviation.mutable_raw());
  run_elements(context.stream(), compute, {load(0), with_operand(Fn::Div, 1)}, {operand_of(centred), operand_of(deviation)}, x.shape(), dtype, y.mutable_raw());
}

std::unique_ptr<Kernel> make_mean_variance(const KernelSpec& spec) {
  return make_cuda_kernel([axes = spec.node.ints("axes", {0, 2, 3})](CudaContext& context) { run_mean_variance(context, axes); }, "reductions and passes over the elements");
}

void run_lp(CudaContext& context, int64_t wanted_axis, int64_t p) {
  const Tensor& x = context.in(0);
  const DType dtype = x.dtype();
  if (dtype != DType::F32 && dtype != DType::F64 && !is_16_bit_float(dtype)) refuse_type(dtype);
  std::vector<bool> along(x.shape().size(), false);
  along[static_cast<size_t>(normalize_axis(wanted_axis, x.rank()))] = true;
  Tensor& y = context.out(0, dtype, x.shape());
  if (x.size() == 0) return;
  const Tensor norm = reduced(context, p == 1 ? ReduceKind::L1 : ReduceKind::L2, x, along, dtype == DType::F64 ? DType::F64 : DType::F32);
  run_elements(context.stream(), compute_for(dtype), {load(0), with_operand(Fn::DivOrZero, 1)}, {operand_of(x), operand_of(norm)}, x.shape(), dtype, y.mutable_raw());
}

std::unique_ptr<Kernel> make_lp(const KernelSpec& spec) {
  const int64_t p = spec.node.i("p", 2), axis = spec.node.i("axis", -1);
  if (p != 1 && p != 2) throw Error(ErrorKind::Unsupported, "LpNormalization with p = " + std::to_string(p));
  return make_cuda_kernel([=](CudaContext& context) { run_lp(context, axis, p); }, "a reduction, then one pass over the elements");
}

}  // namespace

std::vector<CudaOp> cuda_group_normalization() {
  return {{.name = "InstanceNormalization", .since = 6, .make = &make_instance},
          {.name = "GroupNormalization", .make = &make_group},
          {.name = "MeanVarianceNormalization", .make = &make_mean_variance},
          {.name = "LpNormalization", .make = &make_lp}};
}

}  // namespace infopt::cuda

// QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear: the CPU's operations in its order, so that the bits are the CPU's.
#include "lib/ops/quantize_linear.h"

#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/lanes.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/moves.h"
#include "lib/runtime/cuda/quantizer.h"

namespace infopt::cuda {
namespace {

constexpr int kThreads = 256;

/// Where in its list an element's scale is.
template <class I> struct ScaleGrid {
  enum { One, Axis, Block } kind = One;
  Divider<I> inner, n, block;
  int64_t blocks = 0;

  explicit ScaleGrid(const QuantizeGrid& g) : inner(g.inner), n(g.n), block(g.block), blocks(g.blocks()) {
    kind = g.block ? Block : g.outer == 1 && g.n == 1 ? One : Axis;
  }
  INFOPT_DEVICE int64_t at(I element) const {
    if (kind == One) return 0;
    I column = element;
    I row = divide_off(column, inner);
    const I outer = divide_off(row, n);
    if (kind == Axis) return static_cast<int64_t>(row);
    return (static_cast<int64_t>(outer) * blocks + static_cast<int64_t>(block.divide(row))) * static_cast<int64_t>(inner.d) + static_cast<int64_t>(column);
  }
};

/// How many elements a thread takes, up to `most`, and how far their scales are apart.
struct LanePlan { int lanes = 1, step = 0; };
LanePlan plan_lanes(const QuantizeGrid& g, int64_t count, int most) {
  if (!g.block && g.outer == 1 && g.n == 1) return count % most == 0 ? LanePlan{most, 0} : LanePlan{};
  if (!g.block && g.inner % most == 0) return {most, 0};
  if (!g.block && g.inner == 1 && g.n % most == 0) return {most, 1};
  if (g.block && g.inner % most == 0) return {most, 1};
  if (g.block && g.inner == 1 && g.n % most == 0 && g.block % most == 0) return {most, 0};
  return {};
}

/// X to codes of Q's size.
template <class X, class Q, int V, class I>
__global__ void quantize(const X* x, Q* q, I count, ScaleGrid<I> grid, int step, Numbers scales, Numbers zeros, Quantizer quantizer) {
  for (I e = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<I>(gridDim.x) * kThreads) {
    const Lanes<X, V> in = load_lanes<V>(x + static_cast<int64_t>(e) * V);
    const int64_t at = grid.at(e * static_cast<I>(V));
    float scale = scales[at], zero = zeros[at];
    Lanes<Q, V> out;
    for (int k = 0; k < V; ++k) {
      if (k > 0 && step) scale = scales[at + k], zero = zeros[at + k];
      out.v[k] = static_cast<Q>(quantizer(load_float(in.v[k]), scale, zero));
    }
    store_lanes<V>(q + static_cast<int64_t>(e) * V, out);
  }
}

/// V codes, which lie in a word of their own where they are 8-bit or 4-bit.
template <class Y, int V, class I> __global__ void dequantize(Numbers codes, Y* y, I count, ScaleGrid<I> grid, int step, Numbers scales, Numbers zeros) {
  for (I e = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<I>(gridDim.x) * kThreads) {
    const int64_t first = static_cast<int64_t>(e) * V, at = grid.at(e * static_cast<I>(V));
    float scale = scales[at], zero = zeros[at], code[V];
    if (V > 1 && (codes.type == DType::U8 || codes.type == DType::I8)) {
      const Lanes<uint8_t, V> lanes = load_lanes<V>(static_cast<const uint8_t*>(codes.data) + first);
      for (int k = 0; k < V; ++k) code[k] = static_cast<float>(codes.type == DType::I8 ? static_cast<int8_t>(lanes.v[k]) : static_cast<int>(lanes.v[k]));
    } else if (V > 1 && (codes.type == DType::U4 || codes.type == DType::I4)) {
      constexpr int bytes = V > 1 ? V / 2 : 1;
      const Lanes<uint8_t, bytes> lanes = load_lanes<bytes>(static_cast<const uint8_t*>(codes.data) + first / 2);
      for (int k = 0; k < V; ++k) {
        const int nibble = lanes.v[k / 2] >> (k % 2 * 4) & 15;
        code[k] = static_cast<float>(codes.type == DType::I4 && nibble >= 8 ? nibble - 16 : nibble);
      }
    } else {
      for (int k = 0; k < V; ++k) code[k] = codes[first + k];
    }
    Lanes<Y, V> out;
    for (int k = 0; k < V; ++k) {
      if (k > 0 && step) scale = scales[at + k], zero = zeros[at + k];
      store_float(out.v[k], __fmul_rn(code[k] - zero, scale));
    }
    store_lanes<V>(y + first, out);
  }
}

bool divides(const void* p, size_t by) { return reinterpret_cast<uintptr_t>(p) % by == 0; }

/// Input 0, channels-last where it lies so and the scales allow it.
const Tensor& take_input(CudaContext& c, const QuantizeOptions& options, Layout& layout) {
  const Tensor& x = c.in_any(0, layout);
  if (layout == Layout::Plain || lies_well(x.rank(), c.in(1).shape(), options)) return x;
  layout = Layout::Plain;
  return c.in(0);
}

Numbers zeros_of(CudaContext& c) {
  if (!c.has(2)) return {};
  const Tensor &zero = c.in(2), &scale = c.in(1);
  if (zero.size() != scale.size()) malformed("the zero point's shape " + to_string(zero.shape()) + " isn't the scale's, " + to_string(scale.shape()));
  return {zero.raw(), zero.dtype()};
}

template <class F> void with_float(DType type, F&& f) {
  switch (type) {
    case DType::F32: return f(float{});
    case DType::F16: return f(half{});
    case DType::BF16: return f(bfloat16{});
    default: unsupported("quantizing between floats of " + std::string(name_of(type)));
  }
}

struct Parameters { Numbers scales, zeros; };

template <class X, class Q> void launch_quantize(Stream& stream, const X* x, Q* q, int64_t count, const QuantizeGrid& grid, const Parameters& p, const Quantizer& quantizer) {
  constexpr int most = static_cast<int>(16 / sizeof(X));
  LanePlan lanes = plan_lanes(grid, count, most);
  if (!divides(x, 16) || !divides(q, 16)) lanes = {};
  with_index(count, [&](auto index) {
    using I = decltype(index);
    if (lanes.lanes == 1) {
      INFOPT_LAUNCH(stream, (quantize<X, Q, 1, I>), {grid_for(count, kThreads)}, {kThreads}, 0, x, q, static_cast<I>(count), ScaleGrid<I>(grid), 0, p.scales, p.zeros, quantizer);
    } else {
      INFOPT_LAUNCH(stream, (quantize<X, Q, most, I>), {grid_for(count / most, kThreads)}, {kThreads}, 0, x, q, static_cast<I>(count / most), ScaleGrid<I>(grid), lanes.step, p.scales, p.zeros,
                    quantizer);
    }
  });
}

void run_quantize(CudaContext& c, const QuantizeOptions& options) {
  const Tensor& scale = c.in(1);
  Layout layout;
  const Tensor& x = take_input(c, options, layout);
  DType to = options.output != DType::Undefined ? options.output : DType::U8;
  if (c.has(2)) to = c.in(2).dtype();
  const Parameters p{{scale.raw(), scale.dtype()}, zeros_of(c)};
  const QuantizeGrid grid = quantize_grid(x.shape(), scale.shape(), options, layout);
  const Quantizer quantizer = quantizer_to(to, options.precision == DType::Undefined ? scale.dtype() : options.precision);
  Tensor& y = c.out(0, to, x.shape(), layout);
  if (y.size() == 0) return;
  with_float(x.dtype(), [&](auto zero) {
    const auto* from = reinterpret_cast<const decltype(zero)*>(x.raw());
    if (bits_of(to) == 8) launch_quantize(c.stream(), from, reinterpret_cast<uint8_t*>(y.mutable_raw()), y.size(), grid, p, quantizer);
    else launch_quantize(c.stream(), from, reinterpret_cast<uint16_t*>(y.mutable_raw()), y.size(), grid, p, quantizer);
  });
}

void run_dequantize(CudaContext& c, const QuantizeOptions& options) {
  const Tensor& scale = c.in(1);
  Layout layout;
  const Tensor& x = take_input(c, options, layout);
  if (!is_quantized(x.dtype()) && x.dtype() != DType::I32) malformed("DequantizeLinear of " + std::string(name_of(x.dtype())));
  const Numbers codes{x.raw(), x.dtype()}, scales{scale.raw(), scale.dtype()}, zeros = zeros_of(c);
  const QuantizeGrid grid = quantize_grid(x.shape(), scale.shape(), options, layout);
  Tensor& y = c.out(0, options.output != DType::Undefined ? options.output : scale.dtype(), x.shape(), layout);
  if (y.size() == 0) return;
  with_float(y.dtype(), [&](auto zero) {
    using Y = decltype(zero);
    constexpr int most = static_cast<int>(16 / sizeof(Y));
    LanePlan lanes = plan_lanes(grid, y.size(), most);
    if (!divides(codes.data, 16)) lanes = {};
    auto* to = reinterpret_cast<Y*>(y.mutable_raw());
    with_index(y.size(), [&](auto index) {
      using I = decltype(index);
      if (lanes.lanes == 1) {
        INFOPT_LAUNCH(c.stream(), (dequantize<Y, 1, I>), {grid_for(y.size(), kThreads)}, {kThreads}, 0, codes, to, static_cast<I>(y.size()), ScaleGrid<I>(grid), 0, scales, zeros);
      } else {
        INFOPT_LAUNCH(c.stream(), (dequantize<Y, most, I>), {grid_for(y.size() / most, kThreads)}, {kThreads}, 0, codes, to, static_cast<I>(y.size() / most), ScaleGrid<I>(grid), lanes.step, scales,
                      zeros);
      }
    });
  });
}

struct Extremes { float low, high; };

INFOPT_DEVICE void widen(Extremes& e, float v) {
  e.low = fminf(e.low, v);
  e.high = fmaxf(e.high, v);
}

/// The block's extremes, in thread 0.
INFOPT_DEVICE Extremes of_block(Extremes e) {
  __shared__ Extremes warps[kThreads / 32];
  e = {warp_min(e.low), warp_max(e.high)};
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = e;
  __syncthreads();
  for (int w = 0; threadIdx.x == 0 && w < kThreads / 32; ++w) widen(e, warps[w].low), widen(e, warps[w].high);
  return e;
}

/// With 0 among them.
__global__ void find_extremes(const float* x, int64_t count, bool aligned, Extremes* parts) {
  Extremes e{0, 0};
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, step = static_cast<int64_t>(gridDim.x) * kThreads, fours = aligned ? count / 4 : 0;
  for (int64_t i = thread; i < fours; i += step) {
    const float4 v = reinterpret_cast<const float4*>(x)[i];
    widen(e, v.x), widen(e, v.y), widen(e, v.z), widen(e, v.w);
  }
  for (int64_t i = fours * 4 + thread; i < count; i += step) widen(e, x[i]);
  e = of_block(e);
  if (threadIdx.x == 0) parts[blockIdx.x] = e;
}

/// One block: a range of zero width gives the scale 1.
__global__ void choose_scale(const Extremes* parts, int count, float* scale, uint8_t* zero) {
  Extremes e{0, 0};
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) widen(e, parts[i].low), widen(e, parts[i].high);
  e = of_block(e);
  if (threadIdx.x != 0) return;
  const float s = e.high == e.low ? 1.0f : __fdiv_rn(e.high - e.low, 255.0f);
  *scale = s;
  *zero = static_cast<uint8_t>(__float2int_rn(fminf(fmaxf(0.0f - __fdiv_rn(e.low, s), 0.0f), 255.0f)));
}

void run_dynamic(CudaContext& c) {
  Layout layout;
  const Tensor& x = c.in_any(0, layout);
  if (x.dtype() != DType::F32) malformed("DynamicQuantizeLinear of " + std::string(name_of(x.dtype())));
  Tensor& y = c.out(0, DType::U8, x.shape(), layout);
  Tensor &scale = c.out(1, DType::F32, {}), &zero = c.out(2, DType::U8, {});
  const int64_t blocks = std::clamp<int64_t>(blocks_for(x.size(), kThreads * 16), 1, 1024);
  Tensor parts = c.scratch(DType::F32, {blocks, 2});
  auto* extremes = reinterpret_cast<Extremes*>(parts.mutable_raw());
  INFOPT_LAUNCH(c.stream(), find_extremes, {blocks}, {kThreads}, 0, x.data<float>(), x.size(), divides(x.raw(), 16), extremes);
  INFOPT_LAUNCH(c.stream(), choose_scale, {1}, {kThreads}, 0, extremes, static_cast<int>(blocks), scale.mutable_data<float>(), zero.mutable_data<uint8_t>());
  if (y.size() == 0) return;
  QuantizeGrid grid;
  grid.inner = x.size();
  const Parameters p{{scale.raw(), DType::F32}, {zero.raw(), DType::U8}};
  launch_quantize(c.stream(), x.data<float>(), y.mutable_data<uint8_t>(), y.size(), grid, p, quantizer_to(DType::U8, DType::F32));
}

constexpr std::initializer_list<DType> kFloats{DType::F32, DType::F16, DType::BF16};

std::unique_ptr<Kernel> make_quantize(const KernelSpec& spec) {
  const QuantizeOptions options = QuantizeOptions::of(spec.node);
  need_type(spec, 0, kFloats);
  need_type(spec, 1, kFloats);
  need_type(spec, 2, {DType::U8, DType::I8, DType::U16, DType::I16, DType::F8E4M3FN, DType::F8E5M2});
  const DType to = spec.node.input(2) == kNone ? options.output : declared_type(spec, 2);
  if (to != DType::Undefined && bits_of(to) < 8) unsupported("a QuantizeLinear to " + std::string(name_of(to)));
  if (to != DType::Undefined && is_float(to) && (!options.saturate || (to != DType::F8E4M3FN && to != DType::F8E5M2))) unsupported("a QuantizeLinear to " + std::string(name_of(to)));
  return make_cuda_kernel([options](CudaContext& c) { run_quantize(c, options); }, "in the input's layout");
}

std::unique_ptr<Kernel> make_dequantize(const KernelSpec& spec) {
  const QuantizeOptions options = QuantizeOptions::of(spec.node);
  for (const size_t i : {0, 2})
    need_type(spec, i, {DType::U8, DType::I8, DType::U16, DType::I16, DType::I32, DType::U4, DType::I4, DType::F8E4M3FN, DType::F8E5M2});
  need_type(spec, 1, kFloats);
  return make_cuda_kernel([options](CudaContext& c) { run_dequantize(c, options); }, "in the input's layout");
}

std::unique_ptr<Kernel> make_dynamic(const KernelSpec&) { return make_cuda_kernel(run_dynamic, "extremes, scale, codes"); }

}  // namespace

std::vector<CudaOp> cuda_quantize_linear() {
  return {{.name = "QuantizeLinear", .make = &make_quantize}, {.name = "DequantizeLinear", .make = &make_dequantize}, {.name = "DynamicQuantizeLinear", .make = &make_dynamic}};
}

}  // namespace infopt::cuda

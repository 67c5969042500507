// Products with weights of 4 or 8 bits in blocks that have a scale each. Few rows: one pass over the packed weights, which the tensor cores
// multiply as exact 16-bit floats (code − zero point), scales after that, sums in float32. Many rows: the library, on decoded weights.
//
// Weights are packed in tiles of 16 columns by 64 of k in the order in which a lane's registers take them: with g = lane / 4 and t = lane % 4,
// step s of a tile covers 16 of k, of which lane t has the four from 16s + 4t on for the columns g and g + 8. A register of mma's A
// holds two: {(g, 0…1), (g + 8, 0…1), (g, 2…3), (g + 8, 2…3)}; x is taken in the same order, so that k's order in a step doesn't matter.
#include <algorithm>
#include <type_traits>

#include "lib/base/error.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/product.h"
#include "lib/runtime/cuda/tensor_core.h"

namespace infopt::cuda {
namespace {

constexpr int kTileColumns = 16, kTileDepth = 64, kWarps = 8;

struct LowBits {
  const void* x;
  const uint4* weights;       // [tile of columns][tile of k][Bits / 4][lane]
  const void* scales;         // [tile of columns][block][16]
  const uint8_t* zeros;       // the same; null: half of the codes' range
  const void* bias;           // of x's type, or null
  void* y;
  float* parts;               // [split][m][n] where there are several splits
  int64_t m, n, k;
  int tiles_n, tiles_k, blocks;
  int block_shift;            // log2 of a block's length; 31: a column has one scale
  int tiles_of_split;
  DType scale_type;
};

/// What the tensor cores multiply codes as: float32 is split into three bfloat16, whose sum it is.
template <class X> using Factor = std::conditional_t<std::is_same_v<X, half>, half, bfloat16>;
template <class X> constexpr int kParts = std::is_same_v<X, float> ? 3 : 1;

#if !defined(__CUDACC__)
inline uint32_t pair_of(float low, float high, half) { return to_half(low).bits | static_cast<uint32_t>(to_half(high).bits) << 16; }
#endif
INFOPT_DEVICE uint32_t pair_of(float low, float high, bfloat16) {  // of floats that bfloat16 holds
  return __float_as_uint(low) >> 16 | (__float_as_uint(high) & 0xffff0000u);
}

/// Two codes, at bits 0 and 16, less `zero`: exact.
template <int Bits> INFOPT_DEVICE uint32_t centred_pair(uint32_t codes, int zero, half type) {
#if defined(__CUDACC__)
  (void)type;  // 0x6400 is 1024, where a half's last bit counts 1
  const uint32_t high = codes | 0x64006400u, low = 0x64006400u + static_cast<uint32_t>(zero) * 0x00010001u;
  const __half2 v = __hsub2(*reinterpret_cast<const __half2*>(&high), *reinterpret_cast<const __half2*>(&low));
  return *reinterpret_cast<const uint32_t*>(&v);
#else
  return pair_of(static_cast<float>(static_cast<int>(codes & 255u) - zero), static_cast<float>(static_cast<int>(codes >> 16) - zero), type);
#endif
}
template <int Bits> INFOPT_DEVICE uint32_t centred_pair(uint32_t codes, int zero, bfloat16 type) {
#if defined(__CUDACC__)
  if constexpr (Bits == 4) {  // 0x4300 is 128, where a bfloat16's last bit counts 1
    const uint32_t high = codes | 0x43004300u, low = 0x43004300u + static_cast<uint32_t>(zero) * 0x00010001u;
    const __nv_bfloat162 v = __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&high), *reinterpret_cast<const __nv_bfloat162*>(&low));
    return *reinterpret_cast<const uint32_t*>(&v);
  }
#endif
  return pair_of(static_cast<float>(static_cast<int>(codes & 255u) - zero), static_cast<float>(static_cast<int>(codes >> 16) - zero), type);
}

/// The four registers of A for a step. `words`: one of 4-bit codes, two of 8-bit ones.
template <int Bits, class F> INFOPT_DEVICE void decode_step(uint32_t (&a)[4], const uint32_t* words, int zero_first, int zero_second) {
  INFOPT_UNROLL
  for (int i = 0; i < 4; ++i) {
    const uint32_t codes = Bits == 4 ? words[0] >> 4 * i & 0x000f000fu : words[i / 2] >> 8 * (i % 2) & 0x00ff00ffu;
    a[i] = centred_pair<Bits>(codes, i % 2 ? zero_second : zero_first, F{});
  }
}

/// Four of x from `from` on, as the two registers of B, in each of its parts.
INFOPT_DEVICE void load_factors(const half* from, uint32_t (&b)[1][2]) {
  const uint2 v = *reinterpret_cast<const uint2*>(from);
  b[0][0] = v.x, b[0][1] = v.y;
}
INFOPT_DEVICE void load_factors(const bfloat16* from, uint32_t (&b)[1][2]) {
  const uint2 v = *reinterpret_cast<const uint2*>(from);
  b[0][0] = v.x, b[0][1] = v.y;
}
INFOPT_DEVICE void load_factors(const float* from, uint32_t (&b)[3][2]) {
  const float4 v = *reinterpret_cast<const float4*>(from);
  float rest[4] = {v.x, v.y, v.z, v.w};
  INFOPT_UNROLL
  for (int part = 0; part < 3; ++part) {
    float high[4];
    INFOPT_UNROLL
    for (int i = 0; i < 4; ++i) {
      high[i] = __uint_as_float(__float_as_uint(rest[i]) & 0xffff0000u);
      const float left = rest[i] - high[i];
      rest[i] = left == left ? left : 0.0f;  // nothing is left of an infinity
    }
    b[part][0] = pair_of(high[0], high[1], bfloat16{});
    b[part][1] = pair_of(high[2], high[3], bfloat16{});
  }
}

INFOPT_DEVICE float scale_at(const LowBits& p, int64_t at) {
  if (p.scale_type == DType::F32) return static_cast<const float*>(p.scales)[at];
  if (p.scale_type == DType::F16) return load_float(static_cast<const half*>(p.scales)[at]);
  return load_float(static_cast<const bfloat16*>(p.scales)[at]);
}

/// A block has 8 warps: ColumnWarps of them side by side, the others take turns along k. A warp has Columns tiles of columns and 8·Rows rows.
template <class X, int Bits, int Columns, int Rows, int ColumnWarps> __global__ void __launch_bounds__(32 * kWarps, 2) multiply_low_bits(const LowBits p) {
  constexpr int kDepthWarps = kWarps / ColumnWarps, kAhead = 4 / Columns, kWords = Bits / 4, kSums = Columns * Rows * 4;
  using F = Factor<X>;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32, g = lane / 4, t = lane % 4;
  const int depth = warp / ColumnWarps, first_tile = (static_cast<int>(blockIdx.x) * ColumnWarps + warp % ColumnWarps) * Columns;
  const int64_t first_row = static_cast<int64_t>(blockIdx.z) * 8 * Rows;
  const int begin = static_cast<int>(blockIdx.y) * p.tiles_of_split + depth;
  const int limit = (static_cast<int>(blockIdx.y) + 1) * p.tiles_of_split, end = limit < p.tiles_k ? limit : p.tiles_k;
  const auto* x = static_cast<const X*>(p.x);

  float sums[Columns][Rows][4] = {};
  uint4 ahead[kAhead][Columns][kWords];
  const auto fetch = [&](int tile, int slot) {
    INFOPT_UNROLL
    for (int c = 0; c < Columns; ++c)
      INFOPT_UNROLL
      for (int w = 0; w < kWords; ++w)
        if (first_tile + c < p.tiles_n) ahead[slot][c][w] = p.weights[((static_cast<int64_t>(first_tile + c) * p.tiles_k + tile) * kWords + w) * 32 + lane];
        else ahead[slot][c][w] = make_uint4(0, 0, 0, 0);
  };
  INFOPT_UNROLL
  for (int i = 0; i < kAhead; ++i)
    if (begin + i * kDepthWarps < end) fetch(begin + i * kDepthWarps, i);

  const int segment = p.block_shift == 4 ? 1 : p.block_shift == 5 ? 2 : 4;  // steps with one scale
  for (int first = begin; first < end; first += kAhead * kDepthWarps) {
    INFOPT_UNROLL
    for (int slot = 0; slot < kAhead; ++slot) {
      const int tile = first + slot * kDepthWarps;
      if (tile >= end) break;
      uint4 now[Columns][kWords];
      INFOPT_UNROLL
      for (int c = 0; c < Columns; ++c)
        INFOPT_UNROLL
        for (int w = 0; w < kWords; ++w) now[c][w] = ahead[slot][c][w];
      if (tile + kAhead * kDepthWarps < end) fetch(tile + kAhead * kDepthWarps, slot);
      float part[Columns][Rows][4] = {};
      int zero[Columns][2] = {};
      int64_t scales[Columns] = {};
      INFOPT_UNROLL
      for (int s = 0; s < 4; ++s) {
        if ((s & (segment - 1)) == 0) {
          const int wanted = (tile * kTileDepth + 16 * s) >> p.block_shift, block = wanted < p.blocks ? wanted : p.blocks - 1;
          INFOPT_UNROLL
          for (int c = 0; c < Columns; ++c) {
            const int column_tile = first_tile + c < p.tiles_n ? first_tile + c : 0;
            scales[c] = (static_cast<int64_t>(column_tile) * p.blocks + block) * kTileColumns + g;
            zero[c][0] = p.zeros ? p.zeros[scales[c]] : 1 << (Bits - 1);
            zero[c][1] = p.zeros ? p.zeros[scales[c] + 8] : 1 << (Bits - 1);
          }
        }
        const int64_t k = static_cast<int64_t>(tile) * kTileDepth + 16 * s + 4 * t;
        uint32_t b[Rows][kParts<X>][2] = {};
        INFOPT_UNROLL
        for (int r = 0; r < Rows; ++r)
          if (first_row + 8 * r + g < p.m && k < p.k) load_factors(x + (first_row + 8 * r + g) * p.k + k, b[r]);
        INFOPT_UNROLL
        for (int c = 0; c < Columns; ++c) {
          uint32_t words[2];
          if constexpr (Bits == 4) {
            words[0] = s == 0 ? now[c][0].x : s == 1 ? now[c][0].y : s == 2 ? now[c][0].z : now[c][0].w;
            words[1] = 0;
          } else {
            const uint4 both = now[c][s / 2];
            words[0] = s % 2 ? both.z : both.x;
            words[1] = s % 2 ? both.w : both.y;
          }
          uint32_t a[4];
          decode_step<Bits, F>(a, words, zero[c][0], zero[c][1]);
          INFOPT_UNROLL
          for (int r = 0; r < Rows; ++r)
            INFOPT_UNROLL
            for (int i = 0; i < kParts<X>; ++i) mma_floats<F>(part[c][r], a, b[r][i][0], b[r][i][1]);
        }
        if (((s + 1) & (segment - 1)) == 0) {
          INFOPT_UNROLL
          for (int c = 0; c < Columns; ++c) {
            const float one = scale_at(p, scales[c]), two = scale_at(p, scales[c] + 8);
            INFOPT_UNROLL
            for (int r = 0; r < Rows; ++r)
              INFOPT_UNROLL
              for (int i = 0; i < 4; ++i) {
                sums[c][r][i] = __fmaf_rn(i < 2 ? one : two, part[c][r][i], sums[c][r][i]);
                part[c][r][i] = 0;
              }
          }
        }
      }
    }
  }

  if constexpr (kDepthWarps > 1) {
    __shared__ float others[(kDepthWarps - 1) * ColumnWarps * kSums * 32];
    if (depth > 0)
      INFOPT_UNROLL
      for (int i = 0; i < kSums; ++i) others[((warp - ColumnWarps) * kSums + i) * 32 + lane] = sums[i / (4 * Rows)][i / 4 % Rows][i % 4];
    __syncthreads();
    if (depth > 0) return;
    for (int d = 0; d < kDepthWarps - 1; ++d)
      INFOPT_UNROLL
      for (int i = 0; i < kSums; ++i) sums[i / (4 * Rows)][i / 4 % Rows][i % 4] += others[((d * ColumnWarps + warp) * kSums + i) * 32 + lane];
  }
  INFOPT_UNROLL
  for (int c = 0; c < Columns; ++c)
    INFOPT_UNROLL
    for (int r = 0; r < Rows; ++r)
      INFOPT_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int64_t column = static_cast<int64_t>(first_tile + c) * kTileColumns + g + i / 2 * 8, row = first_row + 8 * r + 2 * t + i % 2;
        if (column >= p.n || row >= p.m) continue;
        if (p.parts) p.parts[(blockIdx.y * p.m + row) * p.n + column] = sums[c][r][i];
        else store_float(static_cast<X*>(p.y)[row * p.n + column], p.bias ? sums[c][r][i] + load_float(static_cast<const X*>(p.bias)[column]) : sums[c][r][i]);
      }
}

template <class X> __global__ void add_splits(const LowBits p, int splits) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, count = p.m * p.n;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    float sum = 0;
    for (int s = 0; s < splits; ++s) sum += p.parts[s * count + i];
    store_float(static_cast<X*>(p.y)[i], p.bias ? sum + load_float(static_cast<const X*>(p.bias)[i % p.n]) : sum);
  }
}

/// The weights [n, k] in X.
template <class X, int Bits> __global__ void decode_weights(const LowBits p, X* to) {
  constexpr int kWords = Bits / 4;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, count = static_cast<int64_t>(p.tiles_n) * p.tiles_k * 32;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; item < count; item += step) {
    const int lane = static_cast<int>(item % 32), tile = static_cast<int>(item / 32 % p.tiles_k), column_tile = static_cast<int>(item / 32 / p.tiles_k);
    for (int s = 0; s < 4; ++s) {
      const int64_t k = static_cast<int64_t>(tile) * kTileDepth + 16 * s + lane % 4 * 4;
      if (k >= p.k) continue;
      const auto* words = reinterpret_cast<const uint32_t*>(p.weights) + (((item / 32) * kWords + s * kWords / 4) * 32 + lane) * 4 + (Bits == 4 ? s : s % 2 * 2);
      const int wanted = static_cast<int>(k >> p.block_shift), block = wanted < p.blocks ? wanted : p.blocks - 1;
      for (int row = 0; row < 2; ++row) {
        const int64_t column = static_cast<int64_t>(column_tile) * kTileColumns + lane / 4 + 8 * row;
        if (column >= p.n) continue;
        const int64_t at = (static_cast<int64_t>(column_tile) * p.blocks + block) * kTileColumns + lane / 4 + 8 * row;
        const float scale = scale_at(p, at);
        const int zero = p.zeros ? p.zeros[at] : 1 << (Bits - 1);
        for (int j = 0; j < 4; ++j) {
          const int i = j / 2 * 2 + row;  // the register
          const uint32_t code = Bits == 4 ? words[0] >> (4 * i + j % 2 * 16) & 15u : words[i / 2] >> (8 * (i % 2) + j % 2 * 16) & 255u;
          store_float(to[column * p.k + k + j], static_cast<float>(static_cast<int>(code) - zero) * scale);
        }
      }
    }
  }
}

template <class X, int Bits> void launch_decode(Stream& stream, const LowBits& p, void* to) {
  INFOPT_LAUNCH(stream, (decode_weights<X, Bits>), {std::min<int64_t>(blocks_for(static_cast<int64_t>(p.tiles_n) * p.tiles_k * 32, 256), 1 << 20)}, {256}, 0, p, static_cast<X*>(to));
}

constexpr int64_t kFullGrid = 264;  // two blocks for each processor of a large GPU

/// How k is cut so that `blocks` of columns and rows fill the GPU; each warp keeps two tiles at least.
int64_t splits_for(const LowBits& p, int64_t blocks, int64_t depth_warps) { return std::clamp<int64_t>(kFullGrid / std::max<int64_t>(blocks, 1), 1, std::max<int64_t>(1, p.tiles_k / (2 * depth_warps))); }

template <class X, int Bits, int Columns, int Rows, int ColumnWarps> void launch_product(CudaRun& run, LowBits p) {
  const int64_t across = blocks_for(p.tiles_n, Columns * ColumnWarps), down = blocks_for(p.m, 8 * Rows);
  const int64_t wanted = splits_for(p, across * down, kWarps / ColumnWarps);
  p.tiles_of_split = static_cast<int>(blocks_for(p.tiles_k, wanted));
  const int64_t splits = std::max<int64_t>(1, blocks_for(p.tiles_k, p.tiles_of_split));
  Tensor parts;
  if (splits > 1) {
    parts = run.make(DType::F32, {splits, p.m, p.n});
    p.parts = parts.mutable_data<float>();
  }
  INFOPT_LAUNCH(run.stream(), (multiply_low_bits<X, Bits, Columns, Rows, ColumnWarps>), {across, splits, down}, {32 * kWarps}, 0, p);
  if (splits > 1) INFOPT_LAUNCH(run.stream(), add_splits<X>, {std::min<int64_t>(blocks_for(p.m * p.n, 256), 1 << 16)}, {256}, 0, p, static_cast<int>(splits));
}

template <class X, int Bits> void multiply_few(CudaRun& run, const LowBits& p) {
  if (p.m <= 4) launch_product<X, Bits, 1, 1, 1>(run, p);
  else if (p.m <= 8) launch_product<X, Bits, 2, 1, 4>(run, p);
  else launch_product<X, Bits, 2, 2, 4>(run, p);
}

constexpr int64_t kFewRows = 64;  // beyond, decoding the weights once is cheaper

class LowBitProductKernel : public CudaKernel {
 public:
  explicit LowBitProductKernel(const LowBitProduct& how)
      : bits_(how.bits), k_(how.k), n_(how.n), blocks_(how.scales.dim(1)), block_shift_(31), matrix_(how.matrix), type_(how.type), scale_type_(how.scales.dtype()), bias_(how.bias) {
    if (how.block < how.k)
      for (block_shift_ = 4; (int64_t{1} << block_shift_) < how.block; ++block_shift_) {}
    pack(how);
  }

  void run_cuda(CudaContext& context) const override {
    const Tensor& x = context.in(0);
    if (x.dtype() != type_) throw Error(ErrorKind::Malformed, "a product of " + std::string(name_of(x.dtype())) + " and " + std::string(name_of(type_)));
    if (x.rank() < 1 || (matrix_ && x.rank() != 2) || x.dim(-1) != k_) throw Error(ErrorKind::Malformed, "an input of " + to_string(x.shape()) + " doesn't fit weights of " + std::to_string(k_) + " rows");
    Shape shape = x.shape();
    shape.back() = n_;
    Tensor& y = context.out(0, type_, shape);
    if (y.size() == 0) return;
    CudaRun& run = context.run();
    Tensor copy;
    LowBits p{};
    p.x = x.raw();
    if (reinterpret_cast<uintptr_t>(p.x) % 16 != 0) {
      copy = context.scratch(type_, x.shape());
      run.stream().copy_on_device(copy.mutable_raw(), x.raw(), x.bytes());
      p.x = copy.raw();
    }
    p.weights = reinterpret_cast<const uint4*>(weights_.get(run).raw());
    p.scales = scales_.get(run).raw();
    p.zeros = zeros_.defined() ? reinterpret_cast<const uint8_t*>(zeros_.get(run).raw()) : nullptr;
    p.bias = bias_.defined() ? bias_.get(run).raw() : nullptr;
    p.y = y.mutable_raw();
    p.m = x.size() / k_, p.n = n_, p.k = k_;
    p.tiles_n = static_cast<int>(blocks_for(n_, kTileColumns)), p.tiles_k = static_cast<int>(blocks_for(k_, kTileDepth));
    p.blocks = static_cast<int>(blocks_);
    p.block_shift = block_shift_;
    p.scale_type = scale_type_;
    switch (type_) {
      case DType::F16: return multiply<half>(context, p);
      case DType::BF16: return multiply<bfloat16>(context, p);
      default: return multiply<float>(context, p);
    }
  }

  std::string describe() const override { return "CUDA " + std::string(name_of(type_)) + " product with " + std::to_string(bits_) + "-bit weights" + (bias_.defined() ? ", with the bias" : ""); }

 private:
  template <class X> void multiply(CudaContext& context, const LowBits& p) const {
    if (p.m <= kFewRows) return bits_ == 4 ? multiply_few<X, 4>(context.run(), p) : multiply_few<X, 8>(context.run(), p);
    Tensor decoded = context.scratch(type_, {n_, k_});
    if (bits_ == 4) launch_decode<X, 4>(context.stream(), p, decoded.mutable_raw());
    else launch_decode<X, 8>(context.stream(), p, decoded.mutable_raw());
    const MatrixProduct product{.type = type_, .transpose_b = true, .m = p.m, .n = n_, .k = k_};
    Finish finish;
    finish.bias = p.bias;
    multiply_floats(context.run(), product, {{}, {}, {}}, p.x, decoded.raw(), p.y, finish);
  }

  void pack(const LowBitProduct& how) {
    const int64_t tiles_n = blocks_for(n_, kTileColumns), tiles_k = blocks_for(k_, kTileDepth), words = bits_ / 4;
    Tensor packed = Tensor::zeros(DType::U32, {tiles_n, tiles_k, words, 32, 4}), scales = Tensor::zeros(scale_type_, {tiles_n, blocks_, kTileColumns});
    auto* to = packed.mutable_data<uint32_t>();
    const auto* codes = how.codes.data<uint8_t>();
    for (int64_t n = 0; n < n_; ++n)
      for (int64_t k = 0; k < k_; ++k) {
        const int64_t row = n % kTileColumns, at = k % kTileDepth, step = at / 16, j = at % 4, lane = row % 8 * 4 + at % 16 / 4;
        const int64_t i = j / 2 * 2 + row / 8, word = bits_ == 4 ? step : step % 2 * 2 + i / 2, part = bits_ == 4 ? 0 : step / 2;
        const int64_t shift = (bits_ == 4 ? 4 * i : 8 * (i % 2)) + j % 2 * 16;
        to[((((n / kTileColumns) * tiles_k + k / kTileDepth) * words + part) * 32 + lane) * 4 + word] |= static_cast<uint32_t>(codes[n * k_ + k]) << shift;
      }
    const size_t size = bits_of(scale_type_) / 8;
    const auto place = [&](int64_t n, int64_t b) { return (n / kTileColumns * blocks_ + b) * kTileColumns + n % kTileColumns; };
    for (int64_t n = 0; n < n_; ++n)
      for (int64_t b = 0; b < blocks_; ++b) std::copy_n(how.scales.raw() + static_cast<size_t>(n * blocks_ + b) * size, size, scales.mutable_raw() + static_cast<size_t>(place(n, b)) * size);
    if (how.zeros.defined()) {
      Tensor zeros = Tensor::zeros(DType::U8, {tiles_n, blocks_, kTileColumns});
      for (int64_t n = 0; n < n_; ++n)
        for (int64_t b = 0; b < blocks_; ++b) zeros.mutable_data<uint8_t>()[place(n, b)] = how.zeros.data<uint8_t>()[n * blocks_ + b];
      zeros_.set(std::move(zeros));
    }
    weights_.set(std::move(packed));
    scales_.set(std::move(scales));
  }

  int64_t bits_, k_, n_, blocks_;
  int block_shift_;
  bool matrix_;
  DType type_, scale_type_;
  OnDevice weights_, scales_, zeros_, bias_;
};

}  // namespace

std::unique_ptr<Kernel> make_low_bit_product(LowBitProduct how) {
  const bool power = how.block >= 16 && (how.block & (how.block - 1)) == 0;
  if ((how.bits != 4 && how.bits != 8) || how.k < 4 || how.k % 4 != 0 || how.n < 1 || !(how.block >= how.k || power) || how.k >= int64_t{1} << 30 || how.n >= int64_t{1} << 30) return nullptr;
  if (!is_float_product(how.type) || !is_float_product(how.scales.dtype()) || (how.bias.defined() && how.bias.dtype() != how.type)) return nullptr;
  return std::make_unique<LowBitProductKernel>(how);
}

}  // namespace infopt::cuda

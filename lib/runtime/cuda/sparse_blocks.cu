#include "lib/runtime/cuda/sparse_blocks.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "lib/base/error.h"
#include "lib/runtime/cuda/activation.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/pack.h"
#include "lib/runtime/cuda/tensor_core.h"

namespace infopt::cuda {
namespace {

constexpr int kOutputs = static_cast<int>(kPanel);
constexpr int kStep = 16;  // inputs that the tensor cores take at once

/// Inputs of which a block's rows lie in shared memory at a time.
template <class T> constexpr int kPiece = sizeof(T) == 4 ? 64 : 128;
int64_t piece_of(DType type) { return type == DType::F32 ? kPiece<float> : kPiece<half>; }

struct PanelProduct {
  const void* x;
  const void* values;     // F32: 16 outputs of each entry; 16 bits: the registers of mma's A for each 16 entries
  const uint8_t* depths;  // each entry's input, counted from its piece's first
  const int* starts;      // entries: where those of (panel, piece) begin; one more at last
  int64_t m, lda;
  int n, k, panels, pieces;
  bool wide_x, wide_y;    // 16 bytes of x, or of y, at a time
  const void *bias, *residual;
  PostActivation post;
  void* y;
};

template <class T> INFOPT_DEVICE float finished(const PanelProduct& p, float v, int64_t row, int n) {
  if (p.bias) v += load_float(static_cast<const T*>(p.bias)[n]);
  if (p.residual) v += load_float(static_cast<const T*>(p.residual)[row * p.n + n]);
  return activate(p.post.kind, p.post.low, p.post.high, v);
}

/// Rows [row0, row0 + Rows) of piece `piece` of x to shared memory, an input's rows side by side; 0 outside.
template <class T, int Rows, int Stride, int Threads> INFOPT_DEVICE void load_piece(const PanelProduct& p, int64_t row0, int piece, T* to) {
  constexpr int kPack = 16 / sizeof(T), kAcross = kPiece<T> / kPack;
  const T* x = static_cast<const T*>(p.x);
  for (int i = static_cast<int>(threadIdx.x); i < Rows * kAcross; i += Threads) {
    const int r = i % Rows, c = i / Rows * kPack, k = piece * kPiece<T> + c;
    const int64_t row = row0 + r;
    Pack<T, kPack> pack = {};
    if (row < p.m) {
      const T* from = x + row * p.lda + k;
      if (p.wide_x && k + kPack <= p.k) {
        pack = *reinterpret_cast<const Pack<T, kPack>*>(from);
      } else {
        for (int j = 0; j < kPack; ++j)
          if (k + j < p.k) pack.v[j] = from[j];
      }
    }
INFOPT_UNROLL
    for (int j = 0; j < kPack; ++j) to[(c + j) * Stride + r] = pack.v[j];
  }
}

/// A warp for each panel, RowsEach rows a lane.
template <int RowsEach, int Warps> __global__ void __launch_bounds__(32 * Warps) multiply_panels(const PanelProduct p) {
  constexpr int kRows = 32 * RowsEach;
  float* x = shared_memory<float>();
  const int lane = static_cast<int>(threadIdx.x) % 32, panel = static_cast<int>(blockIdx.y) * Warps + static_cast<int>(threadIdx.x) / 32;
  const int64_t row0 = static_cast<int64_t>(blockIdx.x) * kRows;
  const auto* values = static_cast<const Pack<float, 4>*>(p.values);
  const int* starts = p.starts + static_cast<int64_t>(panel < p.panels ? panel : 0) * p.pieces;
  float sums[RowsEach][kOutputs];
INFOPT_UNROLL
  for (int r = 0; r < RowsEach; ++r)
INFOPT_UNROLL
    for (int j = 0; j < kOutputs; ++j) sums[r][j] = 0;
  for (int piece = 0; piece < p.pieces; ++piece) {
    const int begin = starts[piece], end = panel < p.panels ? starts[piece + 1] : begin;
    if (!__syncthreads_or(begin < end)) continue;
    load_piece<float, kRows, kRows, 32 * Warps>(p, row0, piece, x);
    __syncthreads();
    for (int e = begin; e < end; ++e) {
      const auto rows = *reinterpret_cast<const Pack<float, RowsEach>*>(x + p.depths[e] * kRows + lane * RowsEach);
INFOPT_UNROLL
      for (int q = 0; q < 4; ++q) {
        const Pack<float, 4> w = values[static_cast<int64_t>(e) * 4 + q];
INFOPT_UNROLL
        for (int r = 0; r < RowsEach; ++r)
INFOPT_UNROLL
          for (int j = 0; j < 4; ++j) sums[r][4 * q + j] = fmaf(rows.v[r], w.v[j], sums[r][4 * q + j]);
      }
    }
  }
  if (panel >= p.panels) return;
INFOPT_UNROLL
  for (int r = 0; r < RowsEach; ++r) {
    const int64_t row = row0 + lane * RowsEach + r;
    if (row >= p.m) break;
    float* y = static_cast<float*>(p.y) + row * p.n;
INFOPT_UNROLL
    for (int q = 0; q < 4; ++q) {
      const int n = panel * kOutputs + 4 * q;
      Pack<float, 4> out = {};
INFOPT_UNROLL
      for (int j = 0; j < 4; ++j)
        if (n + j < p.n) out.v[j] = finished<float>(p, sums[r][4 * q + j], row, n + j);
      if (p.wide_y && n + 4 <= p.n) {
        *reinterpret_cast<Pack<float, 4>*>(y + n) = out;
      } else {
        for (int j = 0; j < 4; ++j)
          if (n + j < p.n) y[n + j] = out.v[j];
      }
    }
  }
}

/// The tensor cores' A is 16 outputs by 16 entries, B these entries of 8 rows: ldmatrix gathers the entries' rows from shared memory.
template <class T, int Rows, int Warps, int Panels> __global__ void __launch_bounds__(32 * Warps) multiply_half_panels(const PanelProduct p) {
  constexpr int kStride = Rows + 8;  // neighbouring inputs lie in different banks
  T* x = shared_memory<T>();
  const int lane = static_cast<int>(threadIdx.x) % 32, first = (static_cast<int>(blockIdx.y) * Warps + static_cast<int>(threadIdx.x) / 32) * Panels;
  const int64_t row0 = static_cast<int64_t>(blockIdx.x) * Rows;
  const auto* values = static_cast<const uint4*>(p.values);
  float sums[Panels][Rows / 8][4];
INFOPT_UNROLL
  for (int q = 0; q < Panels; ++q)
INFOPT_UNROLL
    for (int r = 0; r < Rows / 8; ++r)
INFOPT_UNROLL
      for (int j = 0; j < 4; ++j) sums[q][r][j] = 0;
  for (int piece = 0; piece < p.pieces; ++piece) {
    int begin[Panels], end[Panels];
    bool any = false;
INFOPT_UNROLL
    for (int q = 0; q < Panels; ++q) {
      const bool there = first + q < p.panels;
      const int* at = p.starts + static_cast<int64_t>(there ? first + q : 0) * p.pieces + piece;
      begin[q] = at[0];
      end[q] = there ? at[1] : at[0];
      any = any || begin[q] < end[q];
    }
    if (!__syncthreads_or(any)) continue;
    load_piece<T, Rows, kStride, 32 * Warps>(p, row0, piece, x);
    __syncthreads();
INFOPT_UNROLL
    for (int q = 0; q < Panels; ++q)
      for (int e = begin[q]; e < end[q]; e += kStep) {
        const uint4 w = values[static_cast<int64_t>(e) * 2 + lane];
        const uint32_t a[4] = {w.x, w.y, w.z, w.w};
        const T* rows = x + p.depths[e + lane % 16] * kStride + lane / 16 * 8;
INFOPT_UNROLL
        for (int r = 0; r < Rows / 16; ++r) {
          uint32_t b[4];
          load_transposed_matrices(b, rows + 16 * r);
          mma_floats<T>(sums[q][2 * r], a, b[0], b[1]);
          mma_floats<T>(sums[q][2 * r + 1], a, b[2], b[3]);
        }
      }
  }
  T* y = static_cast<T*>(p.y);
INFOPT_UNROLL
  for (int q = 0; q < Panels; ++q)
INFOPT_UNROLL
    for (int r = 0; r < Rows / 8; ++r)
INFOPT_UNROLL
      for (int j = 0; j < 4; ++j) {
        const int64_t row = row0 + 8 * r + lane % 4 * 2 + j % 2;
        const int n = (first + q) * kOutputs + lane / 4 + j / 2 * 8;
        if (row < p.m && n < p.n) store_float(y[row * p.n + n], finished<T>(p, sums[q][r][j], row, n));
      }
}

/// Entries of the kept inputs, with the weights of 16 outputs for each.
struct Entries {
  std::vector<int64_t> inputs;
  std::vector<uint8_t> depths;
  std::vector<int32_t> starts{0};
};

/// `fill`: entries of a panel's piece are made a multiple of it; the added ones say −1 and lie where the piece's first does.
Entries collect(const Tensor& rows, int64_t size, int64_t piece, int64_t fill) {
  const int64_t n = rows.dim(0), k = rows.dim(1);
  const auto kept = [&](int64_t panel, int64_t i) {
    for (int64_t j = panel * kPanel; j < std::min(n, (panel + 1) * kPanel); ++j) {
      uint32_t bits = 0;
      std::memcpy(&bits, rows.raw() + (j * k + i) * size, static_cast<size_t>(size));
      if (bits & (size == 4 ? 0x7fffffffu : 0x7fffu)) return true;
    }
    return false;
  };
  Entries e;
  for (int64_t panel = 0; panel * kPanel < n; ++panel)
    for (int64_t from = 0; from < k; from += piece) {
      const size_t begin = e.inputs.size();
      for (int64_t i = from; i < std::min(k, from + piece); ++i)
        if (kept(panel, i)) e.inputs.push_back(i), e.depths.push_back(static_cast<uint8_t>(i - from));
      while ((e.inputs.size() - begin) % static_cast<size_t>(fill) != 0) e.inputs.push_back(-1), e.depths.push_back(e.depths[begin]);
      e.starts.push_back(static_cast<int32_t>(e.inputs.size()));
    }
  if (e.inputs.size() >= size_t{1} << 31) throw Error(ErrorKind::Limit, "weights of more than 2^31 entries");
  return e;
}

/// The output and entry of element `i` of a lane's eight in mma's A.
std::pair<int64_t, int64_t> place_in_fragment(int64_t lane, int64_t i) {
  const int64_t g = lane / 4, t = lane % 4, reg = i / 2;
  return {g + reg % 2 * 8, 2 * t + i % 2 + reg / 2 * 8};
}

Tensor pack_values(const Tensor& rows, const Entries& e, DType type) {
  const int64_t n = rows.dim(0), k = rows.dim(1), size = static_cast<int64_t>(bits_of(type) / 8), count = static_cast<int64_t>(e.inputs.size());
  const int64_t pieces = static_cast<int64_t>(e.starts.size() - 1) / ((n + kPanel - 1) / kPanel);
  Tensor values = Tensor::zeros(type, {std::max<int64_t>(count, 1), kPanel});
  const auto put = [&](int64_t to, int64_t panel, int64_t output, int64_t entry) {
    const int64_t j = panel * kPanel + output, i = e.inputs[static_cast<size_t>(entry)];
    if (j < n && i >= 0) std::memcpy(values.mutable_raw() + to * size, rows.raw() + (j * k + i) * size, static_cast<size_t>(size));
  };
  for (int64_t panel = 0; panel * kPanel < n; ++panel) {
    const int64_t begin = e.starts[static_cast<size_t>(panel * pieces)], end = e.starts[static_cast<size_t>((panel + 1) * pieces)];
    for (int64_t entry = begin; entry < end; entry += type == DType::F32 ? 1 : kStep) {
      if (type == DType::F32)
        for (int64_t o = 0; o < kPanel; ++o) put(entry * kPanel + o, panel, o, entry);
      else
        for (int64_t i = 0; i < 256; ++i) {
          const auto [output, at] = place_in_fragment(i / 8, i % 8);
          put(entry * kPanel + i, panel, output, entry + at);
        }
    }
  }
  return values;
}

template <class T> void launch(Stream& stream, const PanelProduct& p) {
  const auto grid = [&](int64_t rows, int64_t panels) { return Extent{blocks_for(p.m, rows), blocks_for(p.panels, panels)}; };
  if constexpr (sizeof(T) == 4) {
    if (p.m > 32) INFOPT_LAUNCH(stream, (multiply_panels<4, 8>), grid(128, 8), {256}, 128 * kPiece<T> * 4, p);
    else INFOPT_LAUNCH(stream, (multiply_panels<1, 4>), grid(32, 4), {128}, 32 * kPiece<T> * 4, p);
  } else {
    if (p.m > 16) INFOPT_LAUNCH(stream, (multiply_half_panels<T, 64, 8, 2>), grid(64, 16), {256}, (64 + 8) * kPiece<T> * 2, p);
    else INFOPT_LAUNCH(stream, (multiply_half_panels<T, 16, 4, 1>), grid(16, 4), {128}, (16 + 8) * kPiece<T> * 2, p);
  }
}

}  // namespace

BlockWeights::BlockWeights(const WeightMatrix& weights) : type_(weights.data.dtype()), n_(weights.n), k_(weights.k) {
  const Tensor rows = dense_rows(weights);
  const Entries e = collect(rows, static_cast<int64_t>(bits_of(type_) / 8), piece_of(type_), type_ == DType::F32 ? 1 : kStep);
  values_.set(pack_values(rows, e, type_));
  Tensor depths(DType::U8, {std::max<int64_t>(static_cast<int64_t>(e.depths.size()), 1)});
  std::memcpy(depths.mutable_raw(), e.depths.data(), e.depths.size());
  depths_.set(std::move(depths));
  starts_.set(Tensor::vector(e.starts));
}

void BlockWeights::drop() const {
  for (const OnDevice* t : {&values_, &depths_, &starts_}) t->drop();
}

void BlockWeights::run(CudaRun& run, const void* x, int64_t m, int64_t lda, void* y, const Finish& finish) const {
  if (m == 0 || n_ == 0) return;
  const int64_t pack = 128 / static_cast<int64_t>(bits_of(type_));
  PanelProduct p{};
  p.x = x, p.y = y, p.m = m, p.lda = lda;
  p.values = values_.get(run).raw();
  p.depths = reinterpret_cast<const uint8_t*>(depths_.get(run).raw());
  p.starts = reinterpret_cast<const int*>(starts_.get(run).raw());
  p.n = static_cast<int>(n_), p.k = static_cast<int>(k_), p.panels = static_cast<int>(blocks_for(n_, kPanel)), p.pieces = static_cast<int>(blocks_for(k_, piece_of(type_)));
  p.wide_x = lda % pack == 0 && aligned_16(x);
  p.wide_y = n_ % 4 == 0 && aligned_16(y);
  p.bias = finish.bias, p.residual = finish.residual, p.post = finish.post;
  switch (type_) {
    case DType::F32: return launch<float>(run.stream(), p);
    case DType::F16: return launch<half>(run.stream(), p);
    case DType::BF16: return launch<bfloat16>(run.stream(), p);
    default: throw Error(ErrorKind::Defect, "blocks of " + std::string(name_of(type_)));
  }
}

}  // namespace infopt::cuda

#include "lib/runtime/cuda/finish.h"

#include "lib/runtime/cuda/activation.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/pack.h"

namespace infopt::cuda {
namespace {

/// i mod n, in 32 bits where they hold it.
INFOPT_DEVICE int64_t within(int64_t i, int64_t n) {
  return i <= 0xffffffffLL && n <= 0xffffffffLL ? static_cast<int64_t>(static_cast<uint32_t>(i) % static_cast<uint32_t>(n)) : i % n;
}

/// N elements a thread; columns in packs: `packs` of them a row.
template <class T, int N> __global__ void finish_packs(Pack<T, N>* y, int64_t count, int64_t packs, const Pack<T, N>* bias, const Pack<T, N>* residual, PostActivation post) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    Pack<T, N> values = y[i], biases = {}, others = {};
    if (bias) biases = bias[within(i, packs)];
    if (residual) others = residual[i];
    for (int q = 0; q < N; ++q) {
      float v = load_float(values.v[q]);
      if (bias) v += load_float(biases.v[q]);
      if (residual) v += load_float(others.v[q]);
      store_float(values.v[q], activate(post.kind, post.low, post.high, v));
    }
    y[i] = values;
  }
}

/// Any strides of the bias.
template <class T> __global__ void finish_elements(T* y, int64_t count, int64_t n, const T* bias, int64_t bias_row, int64_t bias_column, float bias_scale, const T* residual, PostActivation post) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    float v = load_float(y[i]);
    if (bias) v += bias_scale * load_float(bias[i / n * bias_row + within(i, n) * bias_column]);
    if (residual) v += load_float(residual[i]);
    store_float(y[i], activate(post.kind, post.low, post.high, v));
  }
}

constexpr int64_t kThreads = 256, kMostBlocks = int64_t{1} << 20;

template <class T> void finish_of(Stream& stream, void* y, int64_t rows, int64_t n, const Finish& f) {
  constexpr int kPack = 16 / sizeof(T);
  const int64_t count = rows * n;
  const auto blocks = [](int64_t items) { return blocks_for(items, kThreads) < kMostBlocks ? blocks_for(items, kThreads) : kMostBlocks; };
  const bool row_bias = !f.bias || (f.bias_row == 0 && f.bias_column == 1 && f.bias_scale == 1);
  if (row_bias && n % kPack == 0 && aligned_16(y) && aligned_16(f.bias) && aligned_16(f.residual)) {
    using P = Pack<T, kPack>;
    INFOPT_LAUNCH(stream, (finish_packs<T, kPack>), blocks(count / kPack), kThreads, 0, static_cast<P*>(y), count / kPack, n / kPack, static_cast<const P*>(f.bias), static_cast<const P*>(f.residual), f.post);
  } else {
    INFOPT_LAUNCH(stream, finish_elements<T>, blocks(count), kThreads, 0, static_cast<T*>(y), count, n, static_cast<const T*>(f.bias), f.bias_row, f.bias_column, f.bias_scale,
                  static_cast<const T*>(f.residual), f.post);
  }
}

}  // namespace

void finish_rows(Stream& stream, DType type, void* y, int64_t rows, int64_t n, const Finish& finish) {
  if (rows * n == 0 || finish.nothing()) return;
  switch (type) {
    case DType::F32: return finish_of<float>(stream, y, rows, n, finish);
    case DType::F16: return finish_of<half>(stream, y, rows, n, finish);
    case DType::BF16: return finish_of<bfloat16>(stream, y, rows, n, finish);
    default: throw Error(ErrorKind::Defect, "an epilogue of " + std::string(name_of(type)));
  }
}

}  // namespace infopt::cuda

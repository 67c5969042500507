// From one layout of a tensor to the other: transposes of [rows, columns] for each image, through shared memory.
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/launch.h"

namespace infopt::cuda {
namespace {

constexpr int kTile = 32, kRows = 8;

template <class T> __global__ void transpose_tiles(const T* x, T* y, int64_t rows, int64_t columns) {
  __shared__ T tile[kTile][kTile + 1];
  const int64_t image = static_cast<int64_t>(blockIdx.z) * rows * columns, across = (columns + kTile - 1) / kTile;
  const int64_t r0 = blockIdx.x / across * kTile, c0 = blockIdx.x % across * kTile;
  for (int i = static_cast<int>(threadIdx.y); i < kTile; i += kRows)
    if (r0 + i < rows && c0 + threadIdx.x < columns) tile[i][threadIdx.x] = x[image + (r0 + i) * columns + c0 + threadIdx.x];
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.y); i < kTile; i += kRows)
    if (c0 + i < columns && r0 + threadIdx.x < rows) y[image + (c0 + i) * rows + r0 + threadIdx.x] = tile[threadIdx.x][i];
}

template <class T> void transpose(Stream& stream, const Tensor& x, Tensor& y, int64_t images, int64_t rows, int64_t columns) {
  const int64_t tiles = blocks_for(rows, kTile) * blocks_for(columns, kTile);
  for (int64_t i = 0; i < images; i += 65535) {
    const int64_t at = i * rows * columns, count = images - i < 65535 ? images - i : 65535;
    INFOPT_LAUNCH(stream, transpose_tiles<T>, {tiles, 1, count}, {kTile, kRows}, 0, reinterpret_cast<const T*>(x.raw()) + at, reinterpret_cast<T*>(y.mutable_raw()) + at, rows, columns);
  }
}

}  // namespace

Tensor CudaRun::convert_layout(const Tensor& x, Layout from, Layout to) {
  if (from == to || x.rank() < 3) return x;
  Tensor y = make(x.dtype(), x.shape());
  if (x.size() == 0) return y;
  const int64_t images = x.dim(0), channels = x.dim(1), pixels = x.size() / (images * channels);
  const int64_t rows = from == Layout::Plain ? channels : pixels, columns = from == Layout::Plain ? pixels : channels;
  switch (bits_of(x.dtype())) {
    case 8: transpose<uint8_t>(stream(), x, y, images, rows, columns); break;
    case 16: transpose<uint16_t>(stream(), x, y, images, rows, columns); break;
    case 32: transpose<uint32_t>(stream(), x, y, images, rows, columns); break;
    case 64: transpose<uint64_t>(stream(), x, y, images, rows, columns); break;
    default: throw Error(ErrorKind::Unsupported, "a tensor of " + std::string(name_of(x.dtype())) + " in channels-last layout");
  }
  return y;
}

}  // namespace infopt::cuda

#include "lib/runtime/layout.h"

#include <algorithm>

#include "lib/base/error.h"

namespace infopt {
namespace {

constexpr int64_t kTile = 16;

/// out[c][r] = in[r][c], in tiles that stay in the first cache.
template <class T> void transpose(const T* in, T* out, int64_t rows, int64_t columns) {
  for (int64_t r0 = 0; r0 < rows; r0 += kTile)
    for (int64_t c0 = 0; c0 < columns; c0 += kTile) {
      const int64_t r1 = std::min(rows, r0 + kTile), c1 = std::min(columns, c0 + kTile);
      for (int64_t c = c0; c < c1; ++c)
        for (int64_t r = r0; r < r1; ++r) out[c * rows + r] = in[r * columns + c];
    }
}

template <class T> void transpose_batch(const std::byte* in, std::byte* out, int64_t batch, int64_t rows, int64_t columns) {
  for (int64_t n = 0; n < batch; ++n)
    transpose(reinterpret_cast<const T*>(in) + n * rows * columns, reinterpret_cast<T*>(out) + n * rows * columns, rows, columns);
}

}  // namespace

Tensor convert_layout(const Tensor& tensor, Layout from, Layout to) {
  if (from == to) return tensor;
  const Shape& shape = tensor.shape();
  if (shape.size() < 3) throw Error(ErrorKind::Defect, "a layout of a tensor of shape " + to_string(shape));
  int64_t spatial = 1;
  for (size_t i = 2; i < shape.size(); ++i) spatial *= shape[i];
  if (shape[1] == 1 || spatial == 1) return tensor;  // both layouts are the same bytes
  const int64_t rows = to == Layout::ChannelsLast ? shape[1] : spatial;
  const int64_t columns = to == Layout::ChannelsLast ? spatial : shape[1];
  Tensor out(tensor.dtype(), shape);
  switch (bits_of(tensor.dtype())) {
    case 8: transpose_batch<uint8_t>(tensor.raw(), out.mutable_raw(), shape[0], rows, columns); break;
    case 16: transpose_batch<uint16_t>(tensor.raw(), out.mutable_raw(), shape[0], rows, columns); break;
    case 32: transpose_batch<uint32_t>(tensor.raw(), out.mutable_raw(), shape[0], rows, columns); break;
    case 64: transpose_batch<uint64_t>(tensor.raw(), out.mutable_raw(), shape[0], rows, columns); break;
    default: throw Error(ErrorKind::Defect, "a layout of " + std::string(name_of(tensor.dtype())));
  }
  return out;
}

}  // namespace infopt

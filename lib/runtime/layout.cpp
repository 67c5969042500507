#include "lib/runtime/layout.h"

#include "lib/base/error.h"
#include "lib/base/strided.h"

namespace infopt {

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
  copy_strided(element_bytes(tensor.dtype()), {shape[0], columns, rows}, out.mutable_raw(), {rows * columns, rows, 1}, tensor.raw(),
               {rows * columns, 1, columns});
  return out;
}

}  // namespace infopt

// Slice, Expand, Tile and Trilu: boxes read with strides. A slice that lies dense is the input's own memory.
#include "lib/base/strided.h"
#include "lib/ops/boxes.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/moves.h"

namespace infopt::cuda {
namespace {

void slice_by(CudaContext& c, SliceBounds bounds) {
  Layout layout;
  const Tensor& x = c.in_any(0, layout);
  const Box box = slice_box(x.shape(), strides_in(x.shape(), layout), std::move(bounds));
  c.set(0, read_box(c, x, box.shape, box.offset, box.strides, layout), layout);
}

std::unique_ptr<Kernel> slice_attributes(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  const SliceBounds b{spec.node.ints("starts"), spec.node.ints("ends"), spec.node.ints("axes"), {}};
  return make_cuda_kernel([b](CudaContext& c) { slice_by(c, b); }, "a strided copy");
}

std::unique_ptr<Kernel> slice_inputs(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  return make_cuda_kernel(
      [](CudaContext& c) {
        const auto optional = [&](size_t i) { return c.has(i) ? integers(c.host(i)) : std::vector<int64_t>{}; };
        slice_by(c, {integers(c.host(1)), integers(c.host(2)), optional(3), optional(4)});
      },
      "a strided copy");
}

std::unique_ptr<Kernel> expand(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  return make_cuda_kernel(
      [](CudaContext& c) {
        const std::vector<int64_t> to = integers(c.host(1));
        Layout layout;
        const Tensor* x = &c.in_any(0, layout);
        if (to.size() > x->shape().size()) x = &c.in(0), layout = Layout::Plain;
        const Box box = expand_box(x->shape(), strides_in(x->shape(), layout), to);
        c.set(0, read_box(c, *x, box.shape, 0, box.strides, layout), layout);
      },
      "a strided copy");
}

std::unique_ptr<Kernel> tile(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  return make_cuda_kernel(
      [](CudaContext& c) {
        Layout layout;
        const Tensor& x = c.in_any(0, layout);
        Shape shape, to;
        const Box box = tile_box(x.shape(), strides_in(x.shape(), layout), integers(c.host(1)), shape);
        Tensor& y = c.out(0, x.dtype(), shape, layout);
        const Shape strides = strides_in(shape, layout);
        for (size_t d = 0; d < shape.size(); ++d) to.insert(to.end(), {x.shape()[d] * strides[d], strides[d]});
        copy_box(c.stream(), element_bytes(x.dtype()), box.shape, y.mutable_raw(), to, x.raw(), box.strides);
      },
      "a strided copy");
}

constexpr int kThreads = 256;

/// Element (r, c) of a matrix is kept where c - r lies on the side of k that is asked for.
template <class T, class I> __global__ void keep_triangle(const T* x, T* y, I count, Divider<I> columns, Divider<I> rows, int64_t k, bool upper) {
  for (I e = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<I>(gridDim.x) * kThreads) {
    I column = e;
    I row = divide_off(column, columns);
    divide_off(row, rows);
    const int64_t d = static_cast<int64_t>(column) - static_cast<int64_t>(row);
    y[e] = (upper ? d >= k : d <= k) ? x[e] : T{};
  }
}

std::unique_ptr<Kernel> trilu(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  const bool upper = spec.node.i("upper", 1) != 0;
  return make_cuda_kernel(
      [upper](CudaContext& c) {
        const Tensor& x = c.in(0);
        if (x.rank() < 2) malformed("Trilu of a tensor of shape " + to_string(x.shape()));
        const int64_t k = c.has(1) ? to_scalar<int64_t>(c.host(1)) : 0;
        Tensor& y = c.out(0, x.dtype(), x.shape());
        if (x.size() == 0) return;
        with_element(element_bytes(x.dtype()), [&](auto zero) {
          using T = decltype(zero);
          with_index(x.size(), [&](auto index) {
            using I = decltype(index);
            INFOPT_LAUNCH(c.stream(), (keep_triangle<T, I>), {grid_for(x.size(), kThreads)}, {kThreads}, 0, reinterpret_cast<const T*>(x.raw()), reinterpret_cast<T*>(y.mutable_raw()),
                          static_cast<I>(x.size()), Divider<I>(x.dim(-1)), Divider<I>(x.dim(-2)), k, upper);
          });
        });
      },
      "one element a thread");
}

}  // namespace

std::vector<CudaOp> cuda_slice() {
  return {{.name = "Slice", .until = 9, .make = &slice_attributes},
          {.name = "Slice", .since = 10, .make = &slice_inputs},
          {.name = "Expand", .since = 8, .make = &expand},
          {.name = "Tile", .since = 6, .make = &tile},
          {.name = "Trilu", .since = 14, .make = &trilu}};
}

}  // namespace infopt::cuda

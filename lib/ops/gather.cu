// Gather, GatherElements, GatherND: elements copied by indices that lie in the device's memory. An index out of range is a complaint, which
// ends the run at its next wait; nothing is read for it.
#include "lib/runtime/cuda/gather.h"

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/moves.h"

namespace infopt::cuda {
namespace {

constexpr int kThreads = 256;

/// [outer, n, inner] to [outer, rows, inner].
template <class T, class K, class I>
__global__ void gather_rows(const T* x, const K* indices, T* y, I count, Divider<I> inner, Divider<I> rows, int64_t n, Complaint* complaint) {
  for (I e = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<I>(gridDim.x) * kThreads) {
    I column = e;
    I row = divide_off(column, inner);
    const I outer = divide_off(row, rows);
    const int64_t from = index_within(indices[row], n, complaint);
    if (from < 0) continue;
    y[e] = x[(static_cast<int64_t>(outer) * n + from) * static_cast<int64_t>(inner.d) + static_cast<int64_t>(column)];
  }
}

/// Every element of the indices picks one; `places` are theirs in x, but for the axis picked from.
template <class T, class K, class I>
__global__ void gather_places(const T* x, const K* indices, T* y, I count, Places<I, 1> places, int64_t n, int64_t stride, Complaint* complaint) {
  for (I e = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<I>(gridDim.x) * kThreads) {
    int64_t base[1];
    places.of(e, base);
    const int64_t from = index_within(indices[e], n, complaint);
    if (from >= 0) y[e] = x[base[0] + from * stride];
  }
}

template <class T, class K, class I> __global__ void gather_slices(const T* x, const K* indices, T* y, I count, Divider<I> inner, TupleRows tuples, Complaint* complaint) {
  for (I e = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<I>(gridDim.x) * kThreads) {
    I column = e;
    const int64_t row = tuples.row(indices, static_cast<int64_t>(divide_off(column, inner)), complaint);
    if (row >= 0) y[e] = x[row * static_cast<int64_t>(inner.d) + static_cast<int64_t>(column)];
  }
}

void gather(CudaContext& c, int64_t given) {
  const Tensor &x = c.in(0), &indices = c.in(1);
  const int64_t axis = normal_axis(given, x.rank());
  Shape shape = x.shape();
  shape.erase(shape.begin() + axis);
  shape.insert(shape.begin() + axis, indices.shape().begin(), indices.shape().end());
  Tensor& y = c.out(0, x.dtype(), shape);
  if (y.size() == 0) return;
  if (x.size() == 0) malformed("an index into a dimension of 0");
  with_runs(x, y, product(x.shape(), at(axis) + 1, x.shape().size()), [&](auto zero, int64_t inner, int64_t count) {
    using T = decltype(zero);
    with_indices(indices, [&](auto* from) {
      using K = std::remove_cvref_t<decltype(*from)>;
      with_index(count, [&](auto index) {
        using I = decltype(index);
        INFOPT_LAUNCH(c.stream(), (gather_rows<T, K, I>), {grid_for(count, kThreads)}, {kThreads}, 0, reinterpret_cast<const T*>(x.raw()), from, reinterpret_cast<T*>(y.mutable_raw()),
                      static_cast<I>(count), Divider<I>(inner), Divider<I>(indices.size()), x.dim(axis), c.run().complaint());
      });
    });
  });
}

void gather_elements(CudaContext& c, int64_t given) {
  const Tensor &x = c.in(0), &indices = c.in(1);
  const int64_t axis = normal_axis(given, x.rank());
  need_indices_within(x.shape(), indices.shape(), axis);
  Tensor& y = c.out(0, x.dtype(), indices.shape());
  if (y.size() == 0) return;
  if (x.size() == 0) malformed("an index into a dimension of 0");
  const Shape strides = row_major_strides(x.shape());
  Shape others = strides;
  others[at(axis)] = 0;
  with_element(element_bytes(x.dtype()), [&](auto zero) {
    using T = decltype(zero);
    with_indices(indices, [&](auto* from) {
      using K = std::remove_cvref_t<decltype(*from)>;
      with_index(y.size(), [&](auto index) {
        using I = decltype(index);
        INFOPT_LAUNCH(c.stream(), (gather_places<T, K, I>), {grid_for(y.size(), kThreads)}, {kThreads}, 0, reinterpret_cast<const T*>(x.raw()), from, reinterpret_cast<T*>(y.mutable_raw()),
                      static_cast<I>(y.size()), (places_of<I, 1>(indices.shape(), {others})), x.dim(axis), strides[at(axis)], c.run().complaint());
      });
    });
  });
}

void gather_nd(CudaContext& c, int64_t batch_dims) {
  const Tensor &x = c.in(0), &indices = c.in(1);
  if (indices.rank() < 1 || batch_dims < 0 || batch_dims >= std::min(x.rank(), indices.rank())) malformed("GatherND with batch_dims " + std::to_string(batch_dims));
  const TupleRows tuples = tuple_rows(x.shape(), indices.shape(), at(batch_dims));
  Shape shape(indices.shape().begin(), indices.shape().end() - 1);
  shape.insert(shape.end(), x.shape().begin() + batch_dims + tuples.width, x.shape().end());
  Tensor& y = c.out(0, x.dtype(), shape);
  if (y.size() == 0) return;
  if (x.size() == 0) malformed("an index into a dimension of 0");
  with_runs(x, y, product(x.shape(), at(batch_dims + tuples.width), x.shape().size()), [&](auto zero, int64_t inner, int64_t count) {
    using T = decltype(zero);
    with_indices(indices, [&](auto* from) {
      using K = std::remove_cvref_t<decltype(*from)>;
      with_index(count, [&](auto index) {
        using I = decltype(index);
        INFOPT_LAUNCH(c.stream(), (gather_slices<T, K, I>), {grid_for(count, kThreads)}, {kThreads}, 0, reinterpret_cast<const T*>(x.raw()), from, reinterpret_cast<T*>(y.mutable_raw()),
                      static_cast<I>(count), Divider<I>(inner), tuples, c.run().complaint());
      });
    });
  });
}

template <void (*run)(CudaContext&, int64_t)> std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  need_type(spec, 1, {DType::I32, DType::I64});
  const int64_t number = spec.node.i(spec.node.op == "GatherND" ? "batch_dims" : "axis", 0);
  return make_cuda_kernel([number](CudaContext& c) { run(c, number); }, "by indices");
}

}  // namespace

void need_indices_within(const Shape& data, const Shape& indices, int64_t axis) {
  if (indices.size() != data.size()) malformed("the indices' shape " + to_string(indices) + " has another rank than " + to_string(data));
  for (size_t d = 0; d < indices.size(); ++d)
    if (d != at(axis) && indices[d] > data[d]) malformed("the indices' shape " + to_string(indices) + " goes beyond " + to_string(data));
}

TupleRows tuple_rows(const Shape& data, const Shape& indices, size_t batch_dims) {
  const int64_t width = indices.back();
  if (width < 0 || width > static_cast<int64_t>(data.size() - batch_dims)) malformed("indices of shape " + to_string(indices) + " into a tensor of shape " + to_string(data));
  for (size_t d = 0; d < batch_dims; ++d)
    if (indices[d] != data[d]) malformed("the batch dimensions of " + to_string(indices) + " and " + to_string(data) + " differ");
  if (width > kMostAxes) unsupported("indices of more than 8 numbers");
  TupleRows t;
  t.width = static_cast<int>(width);
  for (size_t d = 0; d < at(width); ++d) t.dims[d] = data[batch_dims + d];
  t.per_batch = product(indices, batch_dims, indices.size() - 1);
  return t;
}

std::vector<CudaOp> cuda_gather() {
  return {{.name = "Gather", .make = &make<gather>}, {.name = "GatherElements", .since = 11, .make = &make<gather_elements>}, {.name = "GatherND", .since = 11, .make = &make<gather_nd>}};
}

}  // namespace infopt::cuda

// Constant, ConstantOfShape, Range, EyeLike, OneHot.
#include <cmath>

#include "lib/ops/constants.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/gather.h"
#include "lib/runtime/cuda/launch.h"

namespace infopt::cuda {
namespace {

constexpr int kThreads = 256;

std::unique_ptr<Kernel> constant(const KernelSpec& spec) {
  const Tensor value = constant_of(spec.node);
  if (value.dtype() == DType::String) unsupported("strings can't be on a CUDA device");
  const auto there = std::make_shared<OnDevice>(value);
  return make_cuda_kernel([there](CudaContext& c) { c.set(0, there->get(c.run())); }, "copied once");
}

std::unique_ptr<Kernel> constant_of_shape(const KernelSpec& spec) {
  const auto* given = spec.node.get<Tensor>("value");
  const Tensor value = given ? *given : Tensor::scalar(0.0F);
  if (value.size() != 1) malformed("ConstantOfShape's value should be one element");
  if (bits_of(value.dtype()) < 8) unsupported("a ConstantOfShape of " + std::string(name_of(value.dtype())));
  return make_cuda_kernel(
      [value](CudaContext& c) {
        Tensor& y = c.out(0, value.dtype(), integers(c.host(0)));
        fill_elements(c.stream(), element_bytes(value.dtype()), y.mutable_raw(), value.raw(), y.size());
      },
      "filled");
}

template <class T> __global__ void count_up(T* y, int64_t count, T start, T delta) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += static_cast<int64_t>(gridDim.x) * kThreads) {
    if constexpr (std::is_integral_v<T>) y[i] = static_cast<T>(static_cast<uint64_t>(start) + static_cast<uint64_t>(i) * static_cast<uint64_t>(delta));
    else y[i] = start + static_cast<T>(i) * delta;
  }
}

template <class T> void put_range(CudaContext& c) {
  const auto number = [&](size_t i) { return c.host(i).data<T>()[0]; };
  for (size_t i = 0; i < 3; ++i)
    if (c.host(i).size() != 1) malformed("Range's inputs should be one element each");
  const int64_t count = range_length(c.host(0), c.host(1), c.host(2));
  Tensor& y = c.out(0, dtype_of<T>, {count});
  if (count) INFOPT_LAUNCH(c.stream(), count_up<T>, {grid_for(count, kThreads)}, {kThreads}, 0, y.mutable_data<T>(), count, number(0), number(2));
}

std::unique_ptr<Kernel> range(const KernelSpec& spec) {
  need_type(spec, 0, {DType::F32, DType::F64, DType::I32, DType::I64});
  return make_cuda_kernel(
      [](CudaContext& c) {
        const DType type = c.host(0).dtype();
        if (c.host(1).dtype() != type || c.host(2).dtype() != type) malformed("Range's inputs differ in type");
        switch (type) {
          case DType::F32: return put_range<float>(c);
          case DType::F64: return put_range<double>(c);
          case DType::I32: return put_range<int32_t>(c);
          case DType::I64: return put_range<int64_t>(c);
          default: malformed("Range of " + std::string(name_of(type)));
        }
      },
      "one element a thread");
}

template <class T> __global__ void put_diagonal(T* y, T one, int64_t rows, int64_t columns, int64_t k) {
  for (int64_t r = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; r < rows; r += static_cast<int64_t>(gridDim.x) * kThreads)
    if (r + k >= 0 && r + k < columns) y[r * columns + r + k] = one;
}

std::unique_ptr<Kernel> eye_like(const KernelSpec& spec) {
  const auto asked = static_cast<DType>(spec.node.i("dtype", 0));
  if (asked != DType::Undefined && bits_of(asked) < 8) unsupported("an EyeLike of " + std::string(name_of(asked)));
  if (asked == DType::Undefined) need_whole_bytes(spec, {0});
  return make_cuda_kernel(
      [k = spec.node.i("k", 0), asked](CudaContext& c) {
        Layout layout;
        const Tensor& x = c.in_any(0, layout);
        if (x.rank() != 2) malformed("EyeLike of a tensor of shape " + to_string(x.shape()));
        const DType type = asked == DType::Undefined ? x.dtype() : asked;
        const Tensor one = cast(Tensor::scalar(1.0F), type);
        Tensor& y = c.out(0, type, x.shape());
        c.stream().fill(y.mutable_raw(), 0, y.bytes());
        const int64_t rows = x.dim(0), columns = x.dim(1);
        if (rows == 0 || k <= -rows || k >= columns) return;
        with_element(element_bytes(type), [&](auto value) {
          using T = decltype(value);
          std::copy_n(one.raw(), sizeof value, reinterpret_cast<std::byte*>(&value));
          INFOPT_LAUNCH(c.stream(), put_diagonal<T>, {grid_for(rows, kThreads)}, {kThreads}, 0, reinterpret_cast<T*>(y.mutable_raw()), value, rows, columns, k);
        });
      },
      "one row a thread");
}

/// What is out of range is off everywhere.
template <class T, class K, class I> __global__ void put_hot(const K* indices, const T* values, T* y, I count, Divider<I> inner, Divider<I> depth) {
  for (I e = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<I>(gridDim.x) * kThreads) {
    I column = e;
    I place = divide_off(column, inner);
    const int64_t outer = static_cast<int64_t>(divide_off(place, depth)), n = static_cast<int64_t>(depth.d);
    const int64_t index = static_cast<int64_t>(indices[outer * static_cast<int64_t>(inner.d) + static_cast<int64_t>(column)]);
    y[e] = values[index == static_cast<int64_t>(place) || index + n == static_cast<int64_t>(place) ? 1 : 0];
  }
}

std::unique_ptr<Kernel> one_hot(const KernelSpec& spec) {
  need_type(spec, 0, {DType::I32, DType::I64});
  need_whole_bytes(spec, {2});
  return make_cuda_kernel(
      [given = spec.node.i("axis", -1)](CudaContext& c) {
        const Tensor &indices = c.in(0), &values = c.in(2);
        const int64_t depth = to_scalar<int64_t>(c.host(1));
        if (depth < 0) malformed("OneHot with depth " + std::to_string(depth));
        if (values.size() != 2) malformed("OneHot's values should be two elements");
        const int64_t axis = normal_axis(given, indices.rank() + 1);
        Shape shape = indices.shape();
        shape.insert(shape.begin() + axis, depth);
        Tensor& y = c.out(0, values.dtype(), shape);
        if (y.size() == 0) return;
        with_element(element_bytes(values.dtype()), [&](auto zero) {
          using T = decltype(zero);
          with_indices(indices, [&](auto* from) {
            using K = std::remove_cvref_t<decltype(*from)>;
            with_index(y.size(), [&](auto index) {
              using I = decltype(index);
              INFOPT_LAUNCH(c.stream(), (put_hot<T, K, I>), {grid_for(y.size(), kThreads)}, {kThreads}, 0, from, reinterpret_cast<const T*>(values.raw()),
                            reinterpret_cast<T*>(y.mutable_raw()), static_cast<I>(y.size()), Divider<I>(product(shape, at(axis) + 1, shape.size())), Divider<I>(depth));
            });
          });
        });
      },
      "one element a thread");
}

}  // namespace

std::vector<CudaOp> cuda_constants() {
  return {{.name = "Constant", .make = &constant},
          {.name = "ConstantOfShape", .since = 9, .make = &constant_of_shape},
          {.name = "Range", .since = 11, .make = &range},
          {.name = "EyeLike", .since = 9, .make = &eye_like},
          {.name = "OneHot", .since = 9, .make = &one_hot}};
}

}  // namespace infopt::cuda

// Constant, ConstantOfShape, Range, EyeLike, OneHot.
#include "lib/ops/constants.h"

#include <cmath>
#include <cstring>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

std::unique_ptr<Kernel> constant(const KernelSpec& spec) {
  const Tensor value = constant_of(spec.node);
  return make_kernel([value](KernelContext& c) { c.set(0, value); });
}

Tensor filled(const Tensor& value, const Shape& shape) {
  return move_elements({value}, [&](const std::vector<Tensor>& in) {
    Tensor y(in[0].dtype(), shape);
    fill_elements(element_bytes(y.dtype()), y.mutable_raw(), in[0].raw(), y.size());
    return y;
  });
}

std::unique_ptr<Kernel> constant_of_shape(const KernelSpec& spec) {
  const auto* given = spec.node.get<Tensor>("value");
  const Tensor value = given ? *given : Tensor::scalar(0.0F);
  if (value.size() != 1) malformed("ConstantOfShape's value should be one element");
  return make_kernel([value](KernelContext& c) { c.set(0, filled(value, integers(c.in(0)))); });
}

constexpr double kMostElements = 1LL << 48;

template <class T> Tensor float_range(KernelContext& c) {
  const T start = to_scalar<T>(c.in(0)), delta = to_scalar<T>(c.in(2));
  Tensor y(dtype_of<T>, {range_length(c.in(0), c.in(1), c.in(2))});
  T* out = y.mutable_data<T>();
  for (int64_t i = 0; i < y.size(); ++i) out[i] = start + static_cast<T>(i) * delta;
  return y;
}

Tensor integer_range(KernelContext& c) {
  const __int128 start = to_scalar<int64_t>(c.in(0)), delta = to_scalar<int64_t>(c.in(2));
  Tensor y(DType::I64, {range_length(c.in(0), c.in(1), c.in(2))});
  int64_t* out = y.mutable_data<int64_t>();
  for (int64_t i = 0; i < y.size(); ++i) out[i] = static_cast<int64_t>(start + i * delta);
  return y;
}

std::unique_ptr<Kernel> range(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    const DType dtype = c.in(0).dtype();
    if (c.in(1).dtype() != dtype || c.in(2).dtype() != dtype) malformed("Range's inputs differ in type");
    if (dtype == DType::F64) return c.set(0, float_range<double>(c));
    if (is_float(dtype)) return c.set(0, cast(float_range<float>(c), dtype));
    if (!is_integer(dtype)) malformed("Range of " + std::string(name_of(dtype)));
    c.set(0, cast(integer_range(c), dtype));
  });
}

std::unique_ptr<Kernel> eye_like(const KernelSpec& spec) {
  const int64_t k = spec.node.i("k", 0);
  const auto asked = static_cast<DType>(spec.node.i("dtype", 0));
  return make_kernel([k, asked](KernelContext& c) {
    Layout layout;
    const Tensor& x = c.in_any(0, layout);
    if (x.rank() != 2) malformed("EyeLike of a tensor of shape " + to_string(x.shape()));
    const DType dtype = asked == DType::Undefined ? x.dtype() : asked;
    const Tensor one = cast(Tensor::scalar(1.0F), dtype);
    const size_t size = element_bytes(dtype);
    Tensor y = Tensor::zeros(dtype, x.shape());
    const int64_t rows = x.dim(0), columns = x.dim(1);
    if (k > -rows && k < columns)
      for (int64_t r = std::max<int64_t>(0, -k); r < rows && r + k < columns; ++r)
        std::memcpy(y.mutable_raw() + size * at(r * columns + r + k), one.raw(), size);
    c.set(0, y);
  });
}

Tensor hot(const std::vector<int64_t>& places, const Shape& shape, size_t axis, const Tensor& values) {
  const size_t size = element_bytes(values.dtype());
  Tensor y(values.dtype(), shape);
  fill_elements(size, y.mutable_raw(), values.raw(), y.size());
  const int64_t depth = shape[axis], inner = product(shape, axis + 1, shape.size());
  for (size_t i = 0; i < places.size(); ++i) {
    int64_t p = places[i];
    if (p < -depth || p >= depth) continue;
    if (p < 0) p += depth;
    const auto n = static_cast<int64_t>(i);
    std::memcpy(y.mutable_raw() + size * at((n / inner * depth + p) * inner + n % inner), values.raw() + size, size);
  }
  return y;
}

std::unique_ptr<Kernel> one_hot(const KernelSpec& spec) {
  const int64_t given = spec.node.i("axis", -1);
  return make_kernel([given](KernelContext& c) {
    const Tensor &indices = c.in(0), &values = c.in(2);
    const int64_t depth = to_scalar<int64_t>(c.in(1));
    if (depth < 0) malformed("OneHot with depth " + std::to_string(depth));
    if (values.size() != 2) malformed("OneHot's values should be two elements");
    const int64_t axis = normal_axis(given, indices.rank() + 1);
    Shape shape = indices.shape();
    shape.insert(shape.begin() + axis, depth);
    const std::vector<int64_t> places = to_vector<int64_t>(indices);
    c.set(0, move_elements({values}, [&](const std::vector<Tensor>& in) { return hot(places, shape, at(axis), in[0]); }));
  });
}

}  // namespace

Tensor constant_of(const Node& node) {
  if (const auto* t = node.get<Tensor>("value")) return *t;
  if (const auto* f = node.get<float>("value_float")) return Tensor::scalar(*f);
  if (const auto* i = node.get<int64_t>("value_int")) return Tensor::scalar(*i);
  if (const auto* f = node.get<std::vector<float>>("value_floats")) return Tensor::vector(*f);
  if (const auto* i = node.get<std::vector<int64_t>>("value_ints")) return Tensor::vector(*i);
  if (const auto* s = node.get<std::string>("value_string")) {
    Tensor t(DType::String, {});
    t.mutable_strings()[0] = *s;
    return t;
  }
  if (const auto* s = node.get<std::vector<std::string>>("value_strings")) {
    Tensor t(DType::String, {static_cast<int64_t>(s->size())});
    t.mutable_strings() = *s;
    return t;
  }
  if (node.find("value_floats")) return Tensor(DType::F32, {0});
  if (node.find("value_ints")) return Tensor(DType::I64, {0});
  if (node.find("sparse_value")) unsupported("a Constant with a sparse value");
  malformed("a Constant without a value");
}

int64_t range_length(const Tensor& from, const Tensor& to, const Tensor& step_by) {
  if (is_float(from.dtype())) {
    const double delta = to_scalar<double>(step_by), count = std::ceil((to_scalar<double>(to) - to_scalar<double>(from)) / delta);
    if (delta == 0 || !(std::abs(count) < kMostElements)) malformed("Range has no end, or more elements than memory can hold");
    return std::max<int64_t>(0, static_cast<int64_t>(count));
  }
  const __int128 start = to_scalar<int64_t>(from), limit = to_scalar<int64_t>(to), delta = to_scalar<int64_t>(step_by);
  if (delta == 0) malformed("Range with delta 0");
  const __int128 span = delta > 0 ? limit - start : start - limit, step = delta > 0 ? delta : -delta;
  const __int128 count = span > 0 ? (span + step - 1) / step : 0;
  if (count > static_cast<__int128>(kMostElements)) malformed("Range has more elements than memory can hold");
  return static_cast<int64_t>(count);
}

std::vector<OpDef> op_constants() {
  return {{.name = "Constant", .cpu = &constant},
          {.name = "ConstantOfShape", .since = 9, .cpu = &constant_of_shape},
          {.name = "Range", .since = 11, .cpu = &range},
          {.name = "EyeLike", .since = 9, .cpu = &eye_like},
          {.name = "OneHot", .since = 9, .cpu = &one_hot}};
}

}  // namespace infopt

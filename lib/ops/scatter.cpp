// Scatter, ScatterElements, ScatterND, with their reductions.
#include <cmath>
#include <cstring>

#include "lib/base/strided.h"
#include "lib/ops/gather.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

enum class Combine { None, Add, Mul, Min, Max };

Combine combine_of(const std::string& name) {
  if (name == "none") return Combine::None;
  if (name == "add") return Combine::Add;
  if (name == "mul") return Combine::Mul;
  if (name == "min") return Combine::Min;
  if (name == "max") return Combine::Max;
  malformed("there is no reduction '" + name + "'");
}

/// Integers wrap around; NaN wins in min and max, as in NumPy.
template <class T>
T combined(Combine how, T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    using U = std::conditional_t<std::is_same_v<T, bool>, bool, uint64_t>;
    if (how == Combine::Add) return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
    if (how == Combine::Mul) return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
  } else {
    if (how == Combine::Add) return a + b;
    if (how == Combine::Mul) return a * b;
    if (std::isnan(a) || std::isnan(b)) return std::isnan(a) ? a : b;
  }
  return (how == Combine::Min) == (b < a) && a != b ? b : a;
}

/// Combines runs of `run` elements of the updates into the rows of y, in order.
template <class T>
void combine_rows(Combine how, Tensor& y, const std::vector<int64_t>& rows, int64_t run, const Tensor& updates) {
  T* out = y.mutable_data<T>();
  const T* in = updates.data<T>();
  for (const int64_t row : rows) {
    T* to = out + row * run;
    for (int64_t i = 0; i < run; ++i) to[i] = combined(how, to[i], in[i]);
    in += run;
  }
}

Tensor combine_typed(Combine how, const Tensor& x, const std::vector<int64_t>& rows, int64_t run, const Tensor& updates) {
  const DType dtype = x.dtype();
  if (is_float(dtype) && dtype != DType::F32 && dtype != DType::F64)
    return cast(combine_typed(how, cast(x, DType::F32), rows, run, cast(updates, DType::F32)), dtype);
  Tensor y = x.clone();
  switch (dtype) {
    case DType::F32: combine_rows<float>(how, y, rows, run, updates); break;
    case DType::F64: combine_rows<double>(how, y, rows, run, updates); break;
    case DType::I64: combine_rows<int64_t>(how, y, rows, run, updates); break;
    case DType::I32: combine_rows<int32_t>(how, y, rows, run, updates); break;
    case DType::I16: combine_rows<int16_t>(how, y, rows, run, updates); break;
    case DType::I8: combine_rows<int8_t>(how, y, rows, run, updates); break;
    case DType::U64: combine_rows<uint64_t>(how, y, rows, run, updates); break;
    case DType::U32: combine_rows<uint32_t>(how, y, rows, run, updates); break;
    case DType::U16: combine_rows<uint16_t>(how, y, rows, run, updates); break;
    case DType::U8: combine_rows<uint8_t>(how, y, rows, run, updates); break;
    case DType::Bool: combine_rows<bool>(how, y, rows, run, updates); break;
    default: unsupported("a scatter with a reduction on " + std::string(name_of(dtype)));
  }
  return y;
}

Tensor scattered(Combine how, const Tensor& x, const std::vector<int64_t>& rows, int64_t run, const Tensor& updates) {
  if (updates.size() != static_cast<int64_t>(rows.size()) * run)
    malformed("updates of shape " + to_string(updates.shape()) + " don't fit the indices");
  if (updates.dtype() != x.dtype())
    malformed("the updates are " + std::string(name_of(updates.dtype())) + ", the data " + std::string(name_of(x.dtype())));
  if (how != Combine::None) return combine_typed(how, x, rows, run, updates);
  return move_elements({x, updates}, [&](const std::vector<Tensor>& in) {
    Tensor y = in[0].clone();
    const size_t bytes = element_bytes(y.dtype()) * at(run);
    const std::byte* from = in[1].raw();
    for (const int64_t row : rows) {
      std::memcpy(y.mutable_raw() + bytes * at(row), from, bytes);
      from += bytes;
    }
    return y;
  });
}

std::unique_ptr<Kernel> scatter_elements(const KernelSpec& spec) {
  const int64_t given = spec.node.i("axis", 0);
  const Combine how = combine_of(spec.node.s("reduction", "none"));
  return make_kernel([given, how](KernelContext& c) {
    const Tensor& x = c.in(0);
    const std::vector<int64_t> places = element_places(x.shape(), c.in(1), normal_axis(given, x.rank()));
    if (c.in(2).shape() != c.in(1).shape())
      malformed("updates of shape " + to_string(c.in(2).shape()) + " for indices of shape " + to_string(c.in(1).shape()));
    c.set(0, scattered(how, x, places, 1, c.in(2)));
  });
}

std::unique_ptr<Kernel> scatter_nd(const KernelSpec& spec) {
  const Combine how = combine_of(spec.node.s("reduction", "none"));
  return make_kernel([how](KernelContext& c) {
    const Tensor &x = c.in(0), &indices = c.in(1);
    if (indices.rank() < 1) malformed("ScatterND needs indices of rank 1 or more");
    const NdPlaces p = nd_places(x.shape(), indices, 0);
    c.set(0, scattered(how, x, p.rows, p.slice, c.in(2)));
  });
}

}  // namespace

std::vector<OpDef> op_scatter() {
  return {{.name = "Scatter", .since = 9, .cpu = &scatter_elements},
          {.name = "ScatterElements", .since = 11, .cpu = &scatter_elements},
          {.name = "ScatterND", .since = 11, .cpu = &scatter_nd}};
}

}  // namespace infopt

// ScatterElements and ScatterND. Of updates to the same place the last one counts, as on the CPU: a first kernel finds it. Reductions are those
// whose order doesn't matter: integers, and the least and greatest of floats.
#include <cstring>

#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/gather.h"
#include "lib/runtime/cuda/launch.h"

namespace infopt::cuda {
namespace {

constexpr int kThreads = 256;
using Ticket = unsigned long long;

enum class Combine { None, Add, Mul, Min, Max };

Combine combine_of(const std::string& name) {
  if (name == "none") return Combine::None;
  if (name == "add") return Combine::Add;
  if (name == "mul") return Combine::Mul;
  if (name == "min") return Combine::Min;
  if (name == "max") return Combine::Max;
  malformed("there is no reduction '" + name + "'");
}

/// ScatterElements' places.
template <class I> struct ElementRows {
  Places<I, 1> places;  ///< of all axes but the indexed one
  int64_t n = 0, stride = 0;
  template <class K> INFOPT_DEVICE int64_t row(const K* indices, int64_t e, Complaint* complaint) const {
    int64_t base[1];
    places.of(static_cast<I>(e), base);
    const int64_t at = index_within(indices[e], n, complaint);
    return at < 0 ? -1 : base[0] + at * stride;
  }
};

template <class R, class K> __global__ void draw_tickets(R rows, const K* indices, int64_t count, Ticket* tickets, Complaint* complaint) {
  for (int64_t t = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; t < count; t += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t row = rows.row(indices, t, complaint);
    if (row >= 0) atomicMax(&tickets[row], static_cast<Ticket>(t + 1));
  }
}

/// The winner's run of `inner` elements.
template <class T, class R, class K, class I>
__global__ void scatter_winners(R rows, const K* indices, const T* updates, T* y, I count, Divider<I> inner, const Ticket* tickets, Complaint* complaint) {
  for (I e = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<I>(gridDim.x) * kThreads) {
    I column = e;
    const int64_t t = static_cast<int64_t>(divide_off(column, inner)), row = rows.row(indices, t, complaint);
    if (row >= 0 && tickets[row] == static_cast<Ticket>(t + 1)) y[row * static_cast<int64_t>(inner.d) + static_cast<int64_t>(column)] = updates[e];
  }
}

/// Integers wrap around; NaN wins in min and max; -0 is less than 0.
template <class T> INFOPT_DEVICE T combined(Combine how, T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    if (how == Combine::Add) return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
    if (how == Combine::Mul) return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
    return (how == Combine::Min) == (b < a) ? b : a;
  } else {
    if (a != a || b != b) return a != a ? a : b;
    const bool less = b < a || (b == a && b == 0 && 1 / b < 1 / a);
    return (how == Combine::Min) == less ? b : a;
  }
}

template <class To, class From> INFOPT_DEVICE To bits_as(const From& value) {
  To to;
  memcpy(&to, &value, sizeof to);
  return to;
}

template <class T> INFOPT_DEVICE void combine_at(Combine how, T* at, T value) {
  using Word = std::conditional_t<sizeof(T) == 4, unsigned, Ticket>;
  Word* word = reinterpret_cast<Word*>(at);
  Word seen = *word;
  for (;;) {
    const Word expected = seen;
    seen = atomicCAS(word, expected, bits_as<Word>(combined(how, bits_as<T>(expected), value)));
    if (seen == expected) return;
  }
}

template <class T, class R, class K, class I>
__global__ void scatter_combined(R rows, const K* indices, const T* updates, T* y, I count, Divider<I> inner, Combine how, Complaint* complaint) {
  for (I e = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<I>(gridDim.x) * kThreads) {
    I column = e;
    const int64_t row = rows.row(indices, static_cast<int64_t>(divide_off(column, inner)), complaint);
    if (row >= 0) combine_at(how, &y[row * static_cast<int64_t>(inner.d) + static_cast<int64_t>(column)], updates[e]);
  }
}

template <class F> void with_combined_type(DType type, F&& f) {
  switch (type) {
    case DType::I32: return f(int32_t{});
    case DType::I64: return f(int64_t{});
    case DType::U32: return f(uint32_t{});
    case DType::U64: return f(uint64_t{});
    case DType::F32: return f(float{});
    case DType::F64: return f(double{});
    default: unsupported("a scatter with a reduction on " + std::string(name_of(type)));
  }
}

/// `count` runs of `inner` elements go where `rows` says.
template <class R> void scatter(CudaContext& c, Combine how, const R& rows, int64_t count, int64_t inner) {
  const Tensor &x = c.in(0), &indices = c.in(1), &updates = c.in(2);
  if (updates.size() != count * inner) malformed("updates of shape " + to_string(updates.shape()) + " don't fit the indices");
  if (updates.dtype() != x.dtype()) malformed("the updates are " + std::string(name_of(updates.dtype())) + ", the data " + std::string(name_of(x.dtype())));
  Tensor& y = c.out(0, x.dtype(), x.shape());
  c.stream().copy_on_device(y.mutable_raw(), x.raw(), x.bytes());
  if (updates.size() == 0) return;
  if (x.size() == 0) malformed("an index into a dimension of 0");
  Complaint* complaint = c.run().complaint();
  with_indices(indices, [&](auto* from) {
    using K = std::remove_cvref_t<decltype(*from)>;
    if (how != Combine::None) {
      return with_combined_type(x.dtype(), [&](auto zero) {
        using T = decltype(zero);
        with_index(updates.size(), [&](auto index) {
          using I = decltype(index);
          INFOPT_LAUNCH(c.stream(), (scatter_combined<T, R, K, I>), {grid_for(updates.size(), kThreads)}, {kThreads}, 0, rows, from, reinterpret_cast<const T*>(updates.raw()),
                        reinterpret_cast<T*>(y.mutable_raw()), static_cast<I>(updates.size()), Divider<I>(inner), how, complaint);
        });
      });
    }
    Tensor tickets = c.scratch(DType::U64, {x.size() / inner});
    auto* drawn = reinterpret_cast<Ticket*>(tickets.mutable_raw());
    c.stream().fill(drawn, 0, tickets.bytes());
    INFOPT_LAUNCH(c.stream(), (draw_tickets<R, K>), {grid_for(count, kThreads)}, {kThreads}, 0, rows, from, count, drawn, complaint);
    with_runs(updates, y, inner, [&](auto zero, int64_t run, int64_t) {
      using T = decltype(zero);
      with_index(count * run, [&](auto index) {
        using I = decltype(index);
        INFOPT_LAUNCH(c.stream(), (scatter_winners<T, R, K, I>), {grid_for(count * run, kThreads)}, {kThreads}, 0, rows, from, reinterpret_cast<const T*>(updates.raw()),
                      reinterpret_cast<T*>(y.mutable_raw()), static_cast<I>(count * run), Divider<I>(run), drawn, complaint);
      });
    });
  });
}

/// Refuses what depends on the order of updates.
Combine checked(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  need_type(spec, 1, {DType::I32, DType::I64});
  const Combine how = combine_of(spec.node.s("reduction", "none"));
  if (how == Combine::None) return how;
  const DType type = declared_type(spec, declared_type(spec, 0) == DType::Undefined ? 2 : 0);
  with_combined_type(type, [](auto) {});
  if (is_float(type) && (how == Combine::Add || how == Combine::Mul)) unsupported("a scatter whose floating-point result depends on the order of its updates");
  return how;
}

std::unique_ptr<Kernel> scatter_elements(const KernelSpec& spec) {
  return make_cuda_kernel(
      [given = spec.node.i("axis", 0), how = checked(spec)](CudaContext& c) {
        const Tensor &x = c.in(0), &indices = c.in(1);
        const int64_t axis = normal_axis(given, x.rank());
        need_indices_within(x.shape(), indices.shape(), axis);
        if (c.in(2).shape() != indices.shape()) malformed("updates of shape " + to_string(c.in(2).shape()) + " for indices of shape " + to_string(indices.shape()));
        Shape strides = row_major_strides(x.shape());
        const int64_t stride = std::exchange(strides[at(axis)], 0);
        with_index(indices.size(), [&](auto index) {
          using I = decltype(index);
          scatter(c, how, ElementRows<I>{places_of<I, 1>(indices.shape(), {strides}), x.dim(axis), stride}, indices.size(), 1);
        });
      },
      "by indices");
}

std::unique_ptr<Kernel> scatter_nd(const KernelSpec& spec) {
  return make_cuda_kernel(
      [how = checked(spec)](CudaContext& c) {
        const Tensor &x = c.in(0), &indices = c.in(1);
        if (indices.rank() < 1) malformed("ScatterND needs indices of rank 1 or more");
        const TupleRows tuples = tuple_rows(x.shape(), indices.shape(), 0);
        scatter(c, how, tuples, tuples.per_batch, product(x.shape(), at(tuples.width), x.shape().size()));
      },
      "by indices");
}

}  // namespace

std::vector<CudaOp> cuda_scatter() {
  return {{.name = "Scatter", .since = 9, .make = &scatter_elements}, {.name = "ScatterElements", .since = 11, .make = &scatter_elements}, {.name = "ScatterND", .since = 11, .make = &scatter_nd}};
}

}  // namespace infopt::cuda

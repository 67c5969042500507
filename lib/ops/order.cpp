// TopK, Unique and NonZero.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

/// A total order of elements: NaN after every number.
template <class T>
bool before(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    if (std::isnan(a) || std::isnan(b)) return !std::isnan(a) && std::isnan(b);
  return a < b;
}

/// Calls f with the elements as a vector of a type that holds each exactly: float, double, int64_t or uint64_t.
template <class F>
void with_keys(const Tensor& x, F&& f) {
  const DType dtype = x.dtype();
  if (dtype == DType::F64) return f(to_vector<double>(x));
  if (is_float(dtype)) return f(to_vector<float>(x));
  if (dtype == DType::U64) return f(std::vector<uint64_t>(x.data<uint64_t>(), x.data<uint64_t>() + x.size()));
  if (is_integer(dtype) || dtype == DType::Bool) return f(to_vector<int64_t>(x));
  unsupported("an order of elements of " + std::string(name_of(dtype)));
}

/// For every line along the middle of [outer, n, inner]: the flat places of its k largest (smallest) elements, and their index.
template <class T>
void select(const std::vector<T>& keys, int64_t outer, int64_t n, int64_t inner, int64_t k, bool largest, std::vector<int64_t>& places,
            int64_t* indices) {
  struct Entry {
    T key;
    int32_t index;
  };
  const auto first = [largest](const Entry& a, const Entry& b) {
    if (largest ? before(b.key, a.key) : before(a.key, b.key)) return true;
    if (largest ? before(a.key, b.key) : before(b.key, a.key)) return false;
    return a.index < b.index;
  };
  std::vector<Entry> entries(at(n));
  for (int64_t line = 0; line < outer * inner; ++line) {
    const int64_t o = line / inner, i = line % inner;
    const T* key = keys.data() + o * n * inner + i;
    for (int64_t j = 0; j < n; ++j) entries[at(j)] = {key[j * inner], static_cast<int32_t>(j)};
    if (k < n) std::nth_element(entries.begin(), entries.begin() + k, entries.end(), first);
    std::sort(entries.begin(), entries.begin() + k, first);
    for (int64_t j = 0; j < k; ++j) {
      const int64_t out = (o * k + j) * inner + i;
      indices[out] = entries[at(j)].index;
      places[at(out)] = (o * n + entries[at(j)].index) * inner + i;
    }
  }
}

void top_k(KernelContext& c, int64_t k, int64_t given, bool largest) {
  const Tensor& x = c.in(0);
  const size_t axis = at(normal_axis(given, x.rank()));
  const int64_t n = x.shape()[axis];
  if (k < 0 || k > n) malformed("TopK of " + std::to_string(k) + " in a dimension of " + std::to_string(n));
  if (n > std::numeric_limits<int32_t>::max()) unsupported("TopK in a dimension of " + std::to_string(n));
  Shape shape = x.shape();
  shape[axis] = k;
  Tensor indices(DType::I64, shape), values(x.dtype(), shape);
  std::vector<int64_t> places(at(indices.size()));
  const int64_t outer = product(shape, 0, axis), inner = product(shape, axis + 1, shape.size());
  with_keys(x, [&](const auto& keys) { select(keys, outer, n, inner, k, largest, places, indices.mutable_data<int64_t>()); });
  with_block(element_bytes(x.dtype()), [&](auto block) {
    using B = decltype(block);
    auto* to = reinterpret_cast<B*>(values.mutable_raw());
    for (const int64_t place : places) *to++ = reinterpret_cast<const B*>(x.raw())[place];
  });
  c.set(0, values);
  if (c.outputs() > 1) c.set(1, indices);
}

std::unique_ptr<Kernel> top_k_attribute(const KernelSpec& spec) {
  const int64_t k = spec.node.i("k", -1), axis = spec.node.i("axis", -1);
  return make_kernel([k, axis](KernelContext& c) { top_k(c, k, axis, true); });
}

std::unique_ptr<Kernel> top_k_input(const KernelSpec& spec) {
  const int64_t axis = spec.node.i("axis", -1);
  const bool largest = spec.node.i("largest", 1) != 0;
  return make_kernel([axis, largest](KernelContext& c) { top_k(c, to_scalar<int64_t>(c.in(1)), axis, largest); });
}

/// The rank of every element among the distinct values, from 0 in ascending order.
std::vector<int64_t> dense_ranks(const Tensor& x) {
  std::vector<int64_t> ranks(at(x.size())), order(at(x.size()));
  std::iota(order.begin(), order.end(), 0);
  const auto rank_by = [&](auto less) {
    std::sort(order.begin(), order.end(), less);
    int64_t rank = 0;
    for (size_t i = 0; i < order.size(); ++i) {
      if (i && less(order[i - 1], order[i])) ++rank;
      ranks[at(order[i])] = rank;
    }
  };
  if (x.dtype() == DType::String) {
    const auto& s = x.strings();
    rank_by([&](int64_t a, int64_t b) { return s[at(a)] < s[at(b)]; });
  } else {
    with_keys(x, [&](const auto& keys) { rank_by([&](int64_t a, int64_t b) { return before(keys[at(a)], keys[at(b)]); }); });
  }
  return ranks;
}

struct Groups {
  std::vector<int64_t> first, inverse, counts;  ///< by group: its first row, its size; by row: its group
};

/// Groups equal rows of codes; the groups are in the rows' order, or in that of their first rows.
Groups group_rows(const std::vector<int64_t>& codes, int64_t rows, int64_t width, bool sorted) {
  std::vector<int64_t> order(at(rows));
  std::iota(order.begin(), order.end(), 0);
  const auto compare = [&](int64_t a, int64_t b) {
    const int64_t *x = codes.data() + a * width, *y = codes.data() + b * width;
    const auto [p, q] = std::mismatch(x, x + width, y);
    return p == x + width ? 0 : *p < *q ? -1 : 1;
  };
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const int by = compare(a, b);
    return by ? by < 0 : a < b;
  });
  Groups g;
  g.inverse.resize(at(rows));
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || compare(order[i - 1], order[i])) {
      g.first.push_back(order[i]);
      g.counts.push_back(0);
    }
    ++g.counts.back();
    g.inverse[at(order[i])] = static_cast<int64_t>(g.first.size()) - 1;
  }
  if (sorted) return g;
  std::vector<int64_t> by_first(g.first.size());
  std::iota(by_first.begin(), by_first.end(), 0);
  std::sort(by_first.begin(), by_first.end(), [&](int64_t a, int64_t b) { return g.first[at(a)] < g.first[at(b)]; });
  Groups u;
  std::vector<int64_t> renamed(by_first.size());
  for (size_t i = 0; i < by_first.size(); ++i) {
    renamed[at(by_first[i])] = static_cast<int64_t>(i);
    u.first.push_back(g.first[at(by_first[i])]);
    u.counts.push_back(g.counts[at(by_first[i])]);
  }
  for (const int64_t group : g.inverse) u.inverse.push_back(renamed[at(group)]);
  return u;
}

/// [outer, n, inner] as n rows of outer·inner.
template <class T>
std::vector<T> as_rows(const std::vector<T>& x, int64_t outer, int64_t n, int64_t inner) {
  std::vector<T> rows(x.size());
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t r = 0; r < n; ++r) std::copy_n(x.begin() + (o * n + r) * inner, inner, rows.begin() + (r * outer + o) * inner);
  return rows;
}

std::unique_ptr<Kernel> unique(const KernelSpec& spec) {
  const int64_t given = spec.node.i("axis", 0);
  const bool flat = spec.node.find("axis") == nullptr, sorted = spec.node.i("sorted", 1) != 0;
  return make_kernel([given, flat, sorted](KernelContext& c) {
    const Tensor x = flat ? c.in(0).reshaped({c.in(0).size()}) : c.in(0);
    const size_t axis = flat ? 0 : at(normal_axis(given, x.rank()));
    const int64_t outer = product(x.shape(), 0, axis), n = x.shape()[axis], inner = product(x.shape(), axis + 1, x.shape().size());
    const Groups g = group_rows(as_rows(dense_ranks(x), outer, n, inner), n, outer * inner, sorted);
    Shape shape = x.shape();
    shape[axis] = static_cast<int64_t>(g.first.size());
    c.set(0, move_elements({x}, [&](const std::vector<Tensor>& in) {
            Tensor y(in[0].dtype(), shape);
            const size_t run = element_bytes(y.dtype()) * at(inner);
            std::byte* to = y.mutable_raw();
            for (int64_t o = 0; o < outer; ++o)
              for (const int64_t row : g.first) {
                if (run) std::memcpy(to, in[0].raw() + run * at(o * n + row), run);
                to += run;
              }
            return y;
          }));
    if (c.outputs() > 1) c.set(1, Tensor::vector(g.first));
    if (c.outputs() > 2) c.set(2, Tensor::vector(g.inverse));
    if (c.outputs() > 3) c.set(3, Tensor::vector(g.counts));
  });
}

/// Which elements aren't zero (both zeros of a float are; NaN isn't), or aren't empty for strings.
std::vector<bool> not_zero(const Tensor& x) {
  std::vector<bool> hit(at(x.size()));
  if (x.dtype() == DType::String) {
    for (size_t i = 0; i < hit.size(); ++i) hit[i] = !x.strings()[i].empty();
  } else if (x.dtype() == DType::F32 || x.dtype() == DType::Bool) {
    const auto bytes = x.raw();
    for (size_t i = 0; i < hit.size(); ++i)
      hit[i] = x.dtype() == DType::Bool ? bytes[i] != std::byte{} : reinterpret_cast<const float*>(bytes)[i] != 0;
  } else {
    with_keys(x, [&](const auto& keys) {
      for (size_t i = 0; i < hit.size(); ++i) hit[i] = keys[i] != 0;
    });
  }
  return hit;
}

std::unique_ptr<Kernel> non_zero(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    const Tensor& x = c.in(0);
    const std::vector<bool> hit = not_zero(x);
    const int64_t count = std::count(hit.begin(), hit.end(), true);
    Tensor y(DType::I64, {x.rank(), count});
    int64_t* out = y.mutable_data<int64_t>();
    const Shape strides = row_major_strides(x.shape());
    int64_t column = 0;
    for (size_t i = 0; i < hit.size(); ++i) {
      if (!hit[i]) continue;
      for (size_t d = 0; d < strides.size(); ++d)
        out[static_cast<int64_t>(d) * count + column] = static_cast<int64_t>(i) / strides[d] % x.shape()[d];
      ++column;
    }
    c.set(0, y);
  });
}

}  // namespace

std::vector<OpDef> op_order() {
  return {{.name = "TopK", .until = 9, .cpu = &top_k_attribute},
          {.name = "TopK", .since = 10, .cpu = &top_k_input},
          {.name = "Unique", .since = 11, .cpu = &unique},
          {.name = "NonZero", .since = 9, .cpu = &non_zero}};
}

}  // namespace infopt

// Einsum: operands are contracted two at a time, each pair as a batched product of matrices [batch, m, k] × [batch, k, n].
#include <algorithm>
#include <array>

#include "lib/base/strided.h"
#include "lib/ops/einsum.h"
#include "lib/runtime/cpu/dnnl_adapter.h"

namespace infopt {
namespace {

using namespace einsum;

struct Operand {
  Tensor tensor;
  Labels labels;
};

/// The operand with its axes as `wanted`, axes of 1 widened to the label's size. A repeated label takes the diagonal.
Tensor arranged(const Operand& o, const Labels& wanted, const Sizes& sizes) {
  const Shape strides = row_major_strides(o.tensor.shape());
  Shape shape, steps;
  for (const int label : wanted) {
    int64_t step = 0;
    for (size_t i = 0; i < o.labels.size(); ++i)
      if (o.labels[i] == label && o.tensor.shape()[i] != 1) step += strides[i];
    shape.push_back(sizes.at(label));
    steps.push_back(step);
  }
  if (wanted == o.labels && shape == o.tensor.shape()) return o.tensor;
  return gather_strided(o.tensor, shape, 0, steps);
}

template <class T>
void sum_last(const T* in, T* out, int64_t count, int64_t n) {
  for (int64_t i = 0; i < count; ++i) {
    T sum{};
    for (int64_t k = 0; k < n; ++k) sum += in[i * n + k];
    out[i] = sum;
  }
}

template <class T>
void multiply(const T* a, const T* b, T* y, const std::array<int64_t, 4>& d) {
  const auto [batch, m, k, n] = d;
  std::fill_n(y, batch * m * n, T{});
  for (int64_t p = 0; p < batch; ++p, a += m * k, b += k * n, y += m * n)
    for (int64_t r = 0; r < m; ++r)
      for (int64_t i = 0; i < k; ++i) {
        const T v = a[r * k + i];
        for (int64_t c = 0; c < n; ++c) y[r * n + c] += v * b[i * n + c];
      }
}

template <class T>
const T* numbers(const Tensor& t) {
  return reinterpret_cast<const T*>(t.raw());
}
template <class T>
T* numbers(Tensor& t) {
  return reinterpret_cast<T*>(t.mutable_raw());
}

/// Calls f with a value of the type that elements are computed in: integers without a sign, so that they wrap around.
template <class F>
void with_number(DType dtype, F&& f) {
  switch (dtype) {
    case DType::F32: return f(float{});
    case DType::F64: return f(double{});
    case DType::I32: return f(uint32_t{});
    case DType::I64: return f(uint64_t{});
    default: unsupported("Einsum of " + std::string(name_of(dtype)));
  }
}

class EinsumKernel : public Kernel {
 public:
  explicit EinsumKernel(const KernelSpec& spec) : equation_(equation_of(spec.node)) {}

  void run(KernelContext& c) const override {
    std::vector<Operand> operands;
    Sizes sizes;
    int64_t widest = 0;
    const DType given = c.in(0).dtype(), dtype = computed_in(given);
    for (size_t i = 0; i < equation_.inputs.size(); ++i) {
      if (c.in(i).dtype() != given) malformed("Einsum's inputs differ in type");
      operands.push_back({cast(c.in(i), dtype), operand_labels(c.in(i).shape(), equation_.inputs[i], sizes, widest)});
    }
    const Labels output = output_labels(equation_, widest, sizes);
    Operand result = operands[0];
    for (size_t i = 1; i < operands.size(); ++i) {
      Labels later = output;
      for (size_t k = i + 1; k < operands.size(); ++k) later.insert(later.end(), operands[k].labels.begin(), operands[k].labels.end());
      result = contract(result, operands[i], later, sizes);
    }
    reduce(result, output, sizes);
    c.set(0, cast(arranged(result, output, sizes), given));
  }

 private:
  /// 16-bit floats are computed in float, short integers in a wide one.
  static DType computed_in(DType dtype) {
    if (is_float(dtype)) return dtype == DType::F64 ? DType::F64 : DType::F32;
    if (is_integer(dtype)) return dtype == DType::I32 || dtype == DType::U32 ? DType::I32 : DType::I64;
    unsupported("Einsum of " + std::string(name_of(dtype)));
  }

  /// Takes diagonals, and sums out the labels that nobody else reads.
  static void reduce(Operand& o, const Labels& later, const Sizes& sizes) {
    Labels keep, drop;
    for (const int label : o.labels) {
      Labels& list = has(later, label) ? keep : drop;
      if (!has(list, label)) list.push_back(label);
    }
    if (drop.empty() && keep.size() == o.labels.size()) return;
    Sizes own;
    for (size_t i = 0; i < o.labels.size(); ++i) {
      int64_t& size = own.emplace(o.labels[i], 1).first->second;
      if (o.tensor.shape()[i] != 1) size = sizes.at(o.labels[i]);
    }
    Labels all = keep;
    all.insert(all.end(), drop.begin(), drop.end());
    const Tensor x = arranged(o, all, own);
    Shape shape;
    for (const int label : keep) shape.push_back(own[label]);
    Tensor y(x.dtype(), shape);
    with_number(x.dtype(), [&](auto number) {
      using T = decltype(number);
      sum_last(numbers<T>(x), numbers<T>(y), y.size(), y.size() ? x.size() / y.size() : 0);
    });
    o = {y, keep};
  }

  Operand contract(Operand a, Operand b, const Labels& later, const Sizes& sizes) const {
    Labels for_a = later, for_b = later;
    for_a.insert(for_a.end(), b.labels.begin(), b.labels.end());
    for_b.insert(for_b.end(), a.labels.begin(), a.labels.end());
    reduce(a, for_a, sizes);
    reduce(b, for_b, sizes);
    Labels batch, m, k, n;
    for (const int label : a.labels) (!has(b.labels, label) ? m : has(later, label) ? batch : k).push_back(label);
    for (const int label : b.labels)
      if (!has(a.labels, label)) n.push_back(label);
    const auto joined = [](std::initializer_list<Labels> lists) {
      Labels all;
      for (const Labels& list : lists) all.insert(all.end(), list.begin(), list.end());
      return all;
    };
    const auto count = [&](const Labels& labels) {
      int64_t size = 1;
      for (const int label : labels) size *= sizes.at(label);
      return size;
    };
    const Labels result = joined({batch, m, n});
    Shape shape;
    for (const int label : result) shape.push_back(sizes.at(label));
    Tensor y(a.tensor.dtype(), shape);
    product_of(arranged(a, joined({batch, m, k}), sizes), arranged(b, joined({batch, k, n}), sizes), y,
               {count(batch), count(m), count(k), count(n)});
    return {y, result};
  }

  void product_of(const Tensor& a, const Tensor& b, Tensor& y, const std::array<int64_t, 4>& d) const {
    const auto [batch, m, k, n] = d;
    if (y.size() == 0) return;
    if (y.dtype() == DType::F32 && k > 0 && m * k * n > 64) {
      Tensor wide = y.reshaped({batch, m, n});
      return product_.run(a.reshaped({batch, m, k}), false, b.reshaped({batch, k, n}), false, false, nullptr, wide);
    }
    with_number(y.dtype(), [&](auto number) {
      using T = decltype(number);
      multiply(numbers<T>(a), numbers<T>(b), numbers<T>(y), d);
    });
  }

  Equation equation_;
  cpu::Product product_;
};

std::unique_ptr<Kernel> make_einsum(const KernelSpec& spec) { return std::make_unique<EinsumKernel>(spec); }

}  // namespace

std::vector<OpDef> op_einsum() { return {{.name = "Einsum", .since = 12, .cpu = &make_einsum}}; }

}  // namespace infopt

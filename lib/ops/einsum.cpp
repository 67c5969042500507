// Einsum: operands are contracted two at a time, each pair as a batched product of matrices [batch, m, k] × [batch, k, n].
#include <algorithm>
#include <array>
#include <map>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/cpu/dnnl_adapter.h"

namespace infopt {
namespace {

/// Labels are characters; the axes behind an ellipsis get codes from 256 on, counted from the last axis.
using Labels = std::vector<int>;

struct Equation {
  std::vector<std::string> inputs;
  std::string output;
  bool explicit_output = false;
};

Equation parse(const std::string& text) {
  Equation e;
  std::string dense;
  for (const char ch : text)
    if (ch != ' ') dense += ch;
  const size_t arrow = dense.find("->");
  e.explicit_output = arrow != std::string::npos;
  if (e.explicit_output) e.output = dense.substr(arrow + 2);
  const std::string left = dense.substr(0, arrow);
  size_t from = 0;
  for (size_t comma = left.find(','); comma != std::string::npos; comma = left.find(',', from)) {
    e.inputs.push_back(left.substr(from, comma - from));
    from = comma + 1;
  }
  e.inputs.push_back(left.substr(from));
  return e;
}

/// The labels of a term for `ellipsis` axes behind its dots.
Labels labels_of(const std::string& term, int64_t ellipsis) {
  Labels labels;
  for (size_t i = 0; i < term.size(); ++i) {
    if (term.compare(i, 3, "...") == 0) {
      for (int64_t k = ellipsis; k-- > 0;) labels.push_back(256 + static_cast<int>(k));
      i += 2;
    } else if ((term[i] >= 'a' && term[i] <= 'z') || (term[i] >= 'A' && term[i] <= 'Z')) {
      labels.push_back(term[i]);
    } else {
      malformed("Einsum's term '" + term + "' isn't made of letters");
    }
  }
  return labels;
}

struct Operand {
  Tensor tensor;
  Labels labels;
};

bool has(const Labels& labels, int label) { return std::find(labels.begin(), labels.end(), label) != labels.end(); }

using Sizes = std::map<int, int64_t>;

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
  explicit EinsumKernel(const KernelSpec& spec) : equation_(parse(spec.node.s("equation", ""))) {
    if (equation_.inputs.size() != spec.node.inputs.size())
      malformed("Einsum's equation has " + std::to_string(equation_.inputs.size()) + " terms for " +
                std::to_string(spec.node.inputs.size()) + " inputs");
  }

  void run(KernelContext& c) const override {
    std::vector<Operand> operands;
    Sizes sizes;
    int64_t widest = 0;
    const DType given = c.in(0).dtype(), dtype = computed_in(given);
    for (size_t i = 0; i < equation_.inputs.size(); ++i) {
      if (c.in(i).dtype() != given) malformed("Einsum's inputs differ in type");
      operands.push_back(operand(cast(c.in(i), dtype), equation_.inputs[i], sizes, widest));
    }
    const Labels output = output_labels(widest);
    for (size_t i = 0; i < output.size(); ++i)
      if (!sizes.count(output[i]) || std::count(output.begin(), output.end(), output[i]) > 1)
        malformed("Einsum's output has a label that is repeated or in no input");
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

  static Operand operand(const Tensor& t, const std::string& term, Sizes& sizes, int64_t& widest) {
    const bool dots = term.find("...") != std::string::npos;
    const auto letters = static_cast<int64_t>(term.size()) - (dots ? 3 : 0);
    const int64_t ellipsis = dots ? t.rank() - letters : 0;
    widest = std::max(widest, ellipsis);
    if (ellipsis < 0) malformed("Einsum's term '" + term + "' for a tensor of shape " + to_string(t.shape()));
    Operand o{t, labels_of(term, ellipsis)};
    if (static_cast<int64_t>(o.labels.size()) != t.rank())
      malformed("Einsum's term '" + term + "' for a tensor of shape " + to_string(t.shape()));
    for (size_t i = 0; i < o.labels.size(); ++i) {
      int64_t& size = sizes.emplace(o.labels[i], t.shape()[i]).first->second;
      if (size == 1) size = t.shape()[i];
      if (t.shape()[i] != 1 && t.shape()[i] != size)
        malformed("Einsum's label stands for dimensions of " + std::to_string(size) + " and " + std::to_string(t.shape()[i]));
    }
    return o;
  }

  Labels output_labels(int64_t widest) const {
    if (equation_.explicit_output) return labels_of(equation_.output, widest);
    Labels labels = labels_of("...", widest), letters;
    std::map<int, int> uses;
    for (const std::string& term : equation_.inputs)
      for (const int label : labels_of(term, 0)) ++uses[label];
    for (const auto& [label, count] : uses)
      if (count == 1) letters.push_back(label);
    labels.insert(labels.end(), letters.begin(), letters.end());
    return labels;
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

std::unique_ptr<Kernel> einsum(const KernelSpec& spec) { return std::make_unique<EinsumKernel>(spec); }

}  // namespace

std::vector<OpDef> op_einsum() { return {{.name = "Einsum", .since = 12, .cpu = &einsum}}; }

}  // namespace infopt

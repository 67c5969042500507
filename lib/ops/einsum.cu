// Einsum of one or two operands: a move, or a batched product of matrices, whose operands are copied only where they don't lie so.
#include "lib/ops/einsum.h"

#include "lib/base/strided.h"
#include "lib/runtime/cuda/moves.h"
#include "lib/runtime/cuda/product.h"

namespace infopt::cuda {
namespace {

using einsum::Labels;
using einsum::Sizes;

struct Operand {
  Tensor tensor;
  Labels labels;
};

Labels joined(std::initializer_list<Labels> lists) {
  Labels all;
  for (const Labels& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}
Shape shape_of(const Labels& labels, const Sizes& sizes) {
  Shape shape;
  for (const int label : labels) shape.push_back(sizes.at(label));
  return shape;
}
/// Of the operand along these labels: 0 where it is 1 long, a diagonal's where it has a label twice.
Shape strides_along(const Operand& o, const Labels& labels) {
  const Shape dense = row_major_strides(o.tensor.shape());
  Shape strides;
  for (const int label : labels) {
    strides.push_back(0);
    for (size_t i = 0; i < o.labels.size(); ++i)
      if (o.labels[i] == label && o.tensor.shape()[i] != 1) strides.back() += dense[i];
  }
  return strides;
}
bool lies_so(const Operand& o, const Labels& labels, const Sizes& sizes) {
  const Shape shape = shape_of(labels, sizes), strides = strides_along(o, labels), dense = row_major_strides(shape);
  for (size_t i = 0; i < shape.size(); ++i)
    if (shape[i] != 1 && strides[i] != dense[i]) return false;
  return o.tensor.size() == element_count(shape);
}
void copy_along(CudaContext& context, const Operand& o, const Labels& labels, const Sizes& sizes, Tensor& to) {
  if (to.size() == 0) return;
  const Shape shape = shape_of(labels, sizes);
  copy_box(context.stream(), element_bytes(o.tensor.dtype()), shape, to.mutable_raw(), row_major_strides(shape), o.tensor.raw(), strides_along(o, labels));
}

/// A matrix of rows × columns for each entry of the batch, perhaps stored as columns × rows.
struct Matrices {
  Tensor tensor;
  bool transposed = false;
};
Matrices matrices(CudaContext& context, const Operand& o, const Labels& batch, const Labels& rows, const Labels& columns, const Sizes& sizes) {
  const Labels plain = joined({batch, rows, columns});
  if (lies_so(o, plain, sizes)) return {o.tensor, false};
  if (lies_so(o, joined({batch, columns, rows}), sizes)) return {o.tensor, true};
  Tensor copy = context.scratch(o.tensor.dtype(), shape_of(plain, sizes));
  copy_along(context, o, plain, sizes, copy);
  return {copy, false};
}

class EinsumKernel : public CudaKernel {
 public:
  explicit EinsumKernel(einsum::Equation equation) : equation_(std::move(equation)) {}

  void run_cuda(CudaContext& context) const override {
    Sizes sizes;
    int64_t widest = 0;
    std::vector<Operand> operands;
    const DType type = context.in(0).dtype();
    for (size_t i = 0; i < equation_.inputs.size(); ++i) {
      const Tensor& t = context.in(i);
      if (t.dtype() != type) throw Error(ErrorKind::Malformed, "Einsum's inputs differ in type");
      operands.push_back({t, einsum::operand_labels(t.shape(), equation_.inputs[i], sizes, widest)});
    }
    if (!is_float_product(type)) throw Error(ErrorKind::Unsupported, "Einsum of " + std::string(name_of(type)));
    const Labels output = einsum::output_labels(equation_, widest, sizes);
    Tensor& y = context.out(0, type, shape_of(output, sizes));
    if (operands.size() == 1) return copy_along(context, operands[0], output, sizes, y);
    if (y.size() == 0) return;
    const auto order = [&](const Labels& of, const Labels& beside) {  // as the output has them: those of one operand alone
      Labels labels;
      for (const int label : output)
        if (einsum::has(of, label) && !einsum::has(beside, label)) labels.push_back(label);
      return labels;
    };
    const Labels &la = operands[0].labels, &lb = operands[1].labels;
    Labels batch, m = order(la, lb), n = order(lb, la), k;
    for (const int label : output)
      if (einsum::has(la, label) && einsum::has(lb, label)) batch.push_back(label);
    for (const int label : la)
      if (einsum::has(lb, label) && !einsum::has(output, label) && !einsum::has(k, label)) k.push_back(label);
    if (joined({batch, n, m}) == output && joined({batch, m, n}) != output) {
      std::swap(operands[0], operands[1]);
      std::swap(m, n);
    }
    const Matrices a = matrices(context, operands[0], batch, m, k, sizes), b = matrices(context, operands[1], batch, k, n, sizes);
    const Labels result = joined({batch, m, n});
    Tensor c = result == output ? y : context.scratch(type, shape_of(result, sizes));
    const auto count = [&](const Labels& labels) { return element_count(shape_of(labels, sizes)); };
    const Shape batches{count(batch)};
    multiply_floats(context.run(), {.type = type, .transpose_a = a.transposed, .transpose_b = b.transposed, .m = count(m), .n = count(n), .k = count(k)}, {batches, batches, batches}, a.tensor.raw(),
                    b.tensor.raw(), c.mutable_raw(), {});
    if (result != output) copy_along(context, {c, result}, output, sizes, y);
  }

  std::string describe() const override { return "Einsum as a batched product, cuBLASLt"; }

 private:
  einsum::Equation equation_;
};

std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  need_type(spec, 0, {DType::F32, DType::F16, DType::BF16});
  einsum::Equation e = einsum::equation_of(spec.node);
  if (e.inputs.size() > 2) throw Error(ErrorKind::Unsupported, "Einsum of more than two operands");
  std::string output = e.output;
  if (!e.explicit_output) {
    output = "...";
    for (const std::string& term : e.inputs)
      for (const char ch : term) {
        size_t uses = 0;
        for (const std::string& other : e.inputs) uses += static_cast<size_t>(std::count(other.begin(), other.end(), ch));
        if (uses == 1) output += ch;
      }
  }
  for (size_t i = 0; i < e.inputs.size(); ++i)
    for (const char ch : e.inputs[i]) {
      const bool elsewhere = ch != '.' && e.inputs.size() == 2 && e.inputs[1 - i].find(ch) != std::string::npos;
      if (output.find(ch) == std::string::npos && !elsewhere) throw Error(ErrorKind::Unsupported, "Einsum that sums an axis of one operand alone");
    }
  return std::make_unique<EinsumKernel>(std::move(e));
}

}  // namespace

std::vector<CudaOp> cuda_einsum() { return {{.name = "Einsum", .since = 12, .make = make}}; }

}  // namespace infopt::cuda

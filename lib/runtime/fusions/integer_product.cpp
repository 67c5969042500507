// Products of codes with constant weights: DequantizeLinear → MatMul or Gemm → QuantizeLinear, with what stands between.
#include "lib/base/error.h"
#include "lib/base/share.h"
#include "lib/runtime/fusions/activation_product.h"
#include "lib/runtime/fusions/product_rows.h"
#include "lib/runtime/fusions/rules.h"

namespace infopt {
namespace {

class IntegerProductKernel : public Kernel {
 public:
  IntegerProductKernel(Codes input, std::shared_ptr<const cpu::PackedInt8> weights, const IntegerTail& tail, const std::vector<float>& step, const CodedBias& bias, bool matrix)
      : input_(input), weights_(std::move(weights)), epilogue_(tail, step, bias), output_(tail.table ? tail.table->to.dtype : tail.output ? tail.output->dtype : DType::F32), matrix_(matrix) {}

  void run(KernelContext& context) const override {
    const Tensor& x = context.in(0);
    if (x.dtype() != input_.dtype) throw Error(ErrorKind::Malformed, "codes and zero point of different types");
    if (x.rank() < 1 || (matrix_ && x.rank() != 2) || x.dim(-1) != weights_->k())
      throw Error(ErrorKind::Malformed, "an input of " + to_string(x.shape()) + " doesn't fit weights of " + std::to_string(weights_->k()) + " rows");
    Shape shape = x.shape();
    shape.back() = weights_->n();
    const cpu::Int8Epilogue& epilogue = epilogue_.get();
    Tensor& y = context.out(0, output_, shape);
    multiply_rows({x.raw(), x.dtype(), x.dim(-1), input_.zero}, *weights_, epilogue, nullptr, y, weights_->k() == 0 ? y.size() / std::max<int64_t>(1, weights_->n()) : x.size() / weights_->k());
  }

  std::string describe() const override { return "int8 product, to " + std::string(name_of(output_)); }

 private:
  Codes input_;
  std::shared_ptr<const cpu::PackedInt8> weights_;
  TailEpilogue epilogue_;
  DType output_;
  bool matrix_;
};

bool is_product(const Node& node) {
  return node.is("MatMul") || (node.is("Gemm") && node.i("transA", 0) == 0 && node.f("alpha", 1) == 1 && (node.f("beta", 1) == 1 || node.input(2) == kNone));
}

}  // namespace

std::optional<FusedStep> fuse_integer_product(PlanView& view, const Node& node) {
  auto tail = integer_tail(view, node, is_product);
  if (!tail) return std::nullopt;
  const Node& product = *tail->core;
  const auto input = dequantized(view, product.input(0));
  if (!input) return std::nullopt;
  const auto refuse = [&](const char* why) {
    view.refuse(product, why);
    return std::nullopt;
  };
  if (tail->residual || (tail->table && tail->table->rank > (product.is("Gemm") ? 2 : 1))) return std::nullopt;
  const bool transposed = product.is("Gemm") && product.i("transB", 0) != 0;
  const auto weights = dequantized_weights(view, product.input(1), transposed ? 0 : 1, 2);
  if (!weights)
    if (auto both = fuse_activation_product(view, *tail)) return both;
  if (!weights) return refuse("its weights aren't constant codes with one scale for each column");
  const auto step = sum_steps(*input, *weights, tail->output ? tail->output->scale : 1.0f);
  if (!step) return refuse("its scales' product isn't a normal number");
  const int64_t sum = largest_sum(*input, *weights);
  if (sum > kMostSum) return refuse("its sums may not fit 32 bits");
  CodedBias bias;
  if (product.is("Gemm") && !read_bias(view, product.input(2), *step, sum, bias)) return refuse("its bias isn't constant, finite and one for each column");
  FusedStep out;
  out.inputs = {input->value};
  out.covers = tail->covers;
  out.named = product.id;
  if (const Device* device = view.device()) {
    out.kernel = device->integer_product({input->step(), weights->codes, transposed, weights->zeros, TailEpilogue(*tail, *step, bias).share(), product.is("Gemm")});
    return out;
  }
  const int64_t k = weights->codes.dim(transposed ? 1 : 0), n = weights->codes.dim(transposed ? 0 : 1);
  const auto packed = std::make_shared<const cpu::PackedInt8>(weights->codes.raw(), weights->codes.dtype(), k, n, transposed ? 1 : n, transposed ? k : 1, weights->zeros.empty() ? nullptr : weights->zeros.data());
  weights->codes.release_pages();
  out.kernel = std::make_unique<IntegerProductKernel>(*input, packed, *tail, *step, bias, product.is("Gemm"));
  return out;
}

}  // namespace infopt

// MatMul or Gemm with constant float32 weights (on a device 16-bit ones too), the bias added behind it, and bounds, GELU or SiLU, as one product: oneDNN ends with them while
// the result is in registers. Weights of which many are zero are multiplied without the zeros, also where the product stands alone.
#include <algorithm>
#include <cmath>

#include "lib/base/error.h"
#include "lib/runtime/cpu/dnnl_adapter.h"
#include "lib/runtime/cpu/sparse_product.h"
#include "lib/runtime/fusions/activated.h"
#include "lib/runtime/fusions/rules.h"
#include "lib/runtime/fusions/value_facts.h"

namespace infopt {
namespace {

class FusedProductKernel : public Kernel {
 public:
  /// `sparse`: the same weights without their zeros, or null.
  FusedProductKernel(Tensor weights, bool transposed, Tensor bias, PostActivation post, bool matrix, std::unique_ptr<cpu::SparseProduct> sparse)
      : k_(weights.dim(transposed ? 1 : 0)), n_(weights.dim(transposed ? 0 : 1)), weights_(sparse ? Tensor() : std::move(weights)), bias_(std::move(bias)), transposed_(transposed),
        matrix_(matrix), post_(post), product_(post), sparse_(std::move(sparse)) {}

  void run(KernelContext& context) const override {
    const Tensor& x = context.in(0);
    if (x.dtype() != DType::F32) throw Error(ErrorKind::Malformed, "a product of " + std::string(name_of(x.dtype())) + " and float32");
    if (x.rank() < 1 || x.dim(-1) != k_ || (matrix_ && x.rank() != 2))
      throw Error(ErrorKind::Malformed, "shapes " + to_string(x.shape()) + " and " + to_string(transposed_ ? Shape{n_, k_} : Shape{k_, n_}) + " don't fit for a product");
    Shape shape = x.shape();
    shape.back() = n_;
    const int64_t rows = x.size() / k_;
    Tensor y = context.out(0, DType::F32, shape).reshaped({rows, n_});
    if (sparse_ && sparse_->wins(rows)) return sparse_->run(x.data<float>(), rows, bias_.defined() ? bias_.data<float>() : nullptr, post_, false, y.mutable_data<float>());
    product_.run(x.reshaped({rows, k_}), false, sparse_ ? sparse_->weights() : weights_, transposed_, true, bias_.defined() ? &bias_ : nullptr, y);
  }

  std::string describe() const override {
    constexpr const char* kNames[] = {"", ", with bounds", ", with HardSwish", ", with GELU", ", with GELU by tanh", ", with SiLU"};
    return "float32 product, " + (sparse_ ? sparse_->describe() : "oneDNN") + (bias_.defined() ? ", with the bias" : "") + kNames[post_.kind];
  }

 private:
  int64_t k_, n_;
  Tensor weights_, bias_;
  bool transposed_, matrix_;
  PostActivation post_;
  cpu::Product product_;
  std::unique_ptr<cpu::SparseProduct> sparse_;
};

bool is_row(const Tensor* bias, DType type, int64_t n) { return bias && bias->dtype() == type && bias->size() == n && bias->rank() == 1; }

}  // namespace

std::optional<FusedStep> fuse_float_product(PlanView& view, const Node& node) {
  FusedStep step;
  const Node* at = &node;
  std::optional<Activated> activation = activation_of(view, node);
  if (activation) {
    if (!only_inside(view, *activation, node)) return std::nullopt;
    for (const Node* covered : activation->covers) step.covers.push_back(covered->id);
    at = view.producer(activation->x);
    if (at && is_float8_product(view, *at)) return std::nullopt;  // rather the codes than the activation
  }
  Tensor bias;
  const auto cover = [&](const Node* covered) { if (covered->id != node.id) step.covers.push_back(covered->id); };
  if (is_binary(at, "Add")) {
    const Node* product = nullptr;
    for (size_t i : {0u, 1u}) {
      const Tensor* t = view.constant(at->input(i));
      const Node* maker = view.only_for_one(at->input(1 - i));
      if (t && maker && maker->is("MatMul")) bias = *t, product = maker;
    }
    if (!product) return std::nullopt;
    cover(at);
    at = product;
  }
  const bool gemm = at && at->is("Gemm");
  if (!at || !(at->is("MatMul") || gemm)) return std::nullopt;
  const bool alone = at == &node;
  const Tensor* weights = view.constant(at->input(1));
  if (!weights || weights->rank() != 2 || weights->size() == 0) return std::nullopt;
  const DType type = weights->dtype();
  if (type != DType::F32 && !(view.device() && (type == DType::F16 || type == DType::BF16))) return std::nullopt;
  const bool transposed = gemm && at->i("transB", 0) != 0;
  const int64_t n = weights->dim(transposed ? 0 : 1);
  if (gemm) {
    if (at->i("transA", 0) != 0 || at->f("alpha", 1) != 1 || at->f("beta", 1) != 1) return std::nullopt;
    if (at->input(2) != kNone) {
      const Tensor* own = view.constant(at->input(2));
      if (!is_row(own, type, n)) return std::nullopt;
      bias = *own;
    }
  } else if (bias.defined() && !is_row(&bias, type, n)) {
    return std::nullopt;
  }
  cover(at);
  if (bias.defined()) bias = bias.reshaped({1, n});
  step.inputs = {at->input(0)};
  step.named = at->id;
  if (const Device* device = view.device()) {
    step.kernel = device->product({*weights, transposed, bias, activation ? activation->post : PostActivation{}, gemm, alone});
    if (!step.kernel) return std::nullopt;
    return step;
  }
  std::string why;
  auto sparse = cpu::SparseProduct::make(*weights, transposed, &why);
  if (!why.empty()) view.refuse(*at, why);
  if (alone && !sparse) return std::nullopt;
  step.kernel = std::make_unique<FusedProductKernel>(*weights, transposed, bias, activation ? activation->post : PostActivation{}, gemm, std::move(sparse));
  return step;
}

}  // namespace infopt

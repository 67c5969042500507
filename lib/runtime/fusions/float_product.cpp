// MatMul or Gemm with constant float32 weights (on a device 16-bit ones too), the bias added behind it, and bounds, GELU or SiLU, as one product: oneDNN ends with them while
// the result is in registers. Weights of which many are zero are multiplied without the zeros, also where the product stands alone.
#include <algorithm>
#include <cmath>

#include "lib/base/error.h"
#include "lib/runtime/cpu/dnnl_adapter.h"
#include "lib/runtime/cpu/sparse_product.h"
#include "lib/runtime/fusions/rules.h"
#include "lib/runtime/fusions/value_facts.h"

namespace infopt {
namespace {

/// f(x) read backwards: x, f, and the nodes before the last that compute it.
struct Activated {
  ValueId x = kNone;
  PostActivation post;
  std::vector<const Node*> covers = {};
};

/// The constant is b, as near as its type can say.
bool near(PlanView& view, ValueId constant, double b) {
  const std::optional<float> a = scalar_constant(view, constant);
  if (!a) return false;
  const DType type = view.constant(constant)->dtype();
  const double unit = type == DType::F16 ? 1e-3 : type == DType::BF16 ? 8e-3 : 1e-6;
  return std::fabs(*a - b) < unit * std::fabs(b);
}

/// Nobody but the last node and those covered reads x.
bool only_inside(PlanView& view, const Activated& a, const Node& last) {
  if (a.x == kNone || !view.hidden(a.x)) return false;
  const auto& uses = view.graph().value(a.x).uses;
  return std::all_of(uses.begin(), uses.end(), [&](const Use& u) {
    return u.node == last.id || std::any_of(a.covers.begin(), a.covers.end(), [&](const Node* n) { return n->id == u.node; });
  });
}

/// The values that are multiplied with one another, through Muls that nobody else reads.
void collect_factors(PlanView& view, const Node& mul, std::vector<ValueId>& factors, std::vector<const Node*>& covers) {
  for (ValueId v : mul.inputs) {
    const Node* node = view.only_for_one(v);
    if (is_binary(node, "Mul") && !view.constant(v) && covers.size() < 3) {
      covers.push_back(node);
      collect_factors(view, *node, factors, covers);
    } else {
      factors.push_back(v);
    }
  }
}

/// 0.5·x·(1 + erf(x/√2)), multiplied in any order.
std::optional<Activated> gelu_of_pieces(PlanView& view, const Node& node) {
  if (!is_binary(&node, "Mul")) return std::nullopt;
  Activated a;
  a.post.kind = PostActivation::Gelu;
  std::vector<ValueId> factors;
  collect_factors(view, node, factors, a.covers);
  if (factors.size() != 3) return std::nullopt;
  const Node *add = nullptr, *erf = nullptr;
  bool half = false;
  for (ValueId v : factors) {
    const std::optional<float> constant = scalar_constant(view, v);
    const Node* maker = view.only_for_one(v);
    if (constant && *constant == 0.5f) half = true;
    else if (is_binary(maker, "Add") && !add) add = maker;
    else a.x = v;
  }
  if (!half || !add || a.x == kNone) return std::nullopt;
  for (size_t i : {0u, 1u})
    if (scalar_constant(view, add->input(i)) == 1.0f) erf = view.only_for_one(add->input(1 - i));
  if (!erf || !erf->is("Erf")) return std::nullopt;
  const Node* scaled = view.only_for_one(erf->input(0));
  if (!is_binary(scaled, "Div") && !is_binary(scaled, "Mul")) return std::nullopt;
  const bool div = scaled->is("Div");
  const size_t at = scaled->input(0) == a.x ? 0 : 1;
  if (scaled->input(at) != a.x || (div && at == 1) || !near(view, scaled->input(1 - at), div ? std::sqrt(2.0) : std::sqrt(0.5))) return std::nullopt;
  a.covers.insert(a.covers.end(), {add, erf, scaled});
  return a;
}

std::optional<Activated> activation_of(PlanView& view, const Node& node) {
  Activated a;
  if (as_bounds(view, node, a.post)) {
    a.x = node.input(0);
    return a;
  }
  if (node.is("Gelu")) {
    const std::string approximate = node.s("approximate", "none");
    if (approximate != "none" && approximate != "tanh") return std::nullopt;
    a.x = node.input(0);
    a.post.kind = approximate == "tanh" ? PostActivation::GeluTanh : PostActivation::Gelu;
    return a;
  }
  if (is_binary(&node, "Mul"))
    for (size_t i : {0u, 1u})
      if (const Node* sigmoid = view.only_for_one(node.input(i)); sigmoid && sigmoid->is("Sigmoid") && sigmoid->input(0) == node.input(1 - i)) {
        a.x = node.input(1 - i);
        a.post.kind = PostActivation::Silu;
        a.covers = {sigmoid};
        return a;
      }
  return gelu_of_pieces(view, node);
}

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
  if (alone && view.device()) return std::nullopt;
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
    step.kernel = device->product({*weights, transposed, bias, activation ? activation->post : PostActivation{}, gemm});
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

// Dropout: in inference the input and a mask of all true; in training elements are dropped by a node's seed, the same in every run.
#include <algorithm>
#include <random>

#include "lib/ops/elementwise.h"

namespace infopt {
namespace {

/// Numbers in [0, 1) as NumPy's RandomState(seed).uniform() draws them: 53 bits of two words of the Mersenne twister.
class Uniform {
 public:
  explicit Uniform(uint32_t seed) : words_(seed) {}
  double operator()() {
    const auto high = static_cast<double>(words_() >> 5), low = static_cast<double>(words_() >> 6);
    return (high * 0x1.0p26 + low) * 0x1.0p-53;
  }

 private:
  std::mt19937 words_;
};

/// What is kept is scaled by 1 / (1 - ratio), so that the sum's expectation stays.
void run_training(KernelContext& context, double ratio, uint32_t seed) {
  if (!(ratio >= 0 && ratio < 1)) throw Error(ErrorKind::Malformed, "Dropout with a ratio of " + std::to_string(ratio));
  const Tensor& x = context.in(0);
  if (!is_float(x.dtype())) refuse_type(x.dtype());
  Tensor y = cast(x, DType::F64).clone(), mask(DType::Bool, x.shape());
  Uniform draw(seed);
  for (int64_t i = 0; i < x.size(); ++i) {
    const bool kept = mask.mutable_data<bool>()[i] = draw() >= ratio;
    y.mutable_data<double>()[i] *= kept ? 1 / (1 - ratio) : 0;
  }
  context.set(0, cast(y, x.dtype()));
  if (context.wanted(1)) context.set(1, std::move(mask));
}

/// Before opset 10 the mask has the input's type.
void run(KernelContext& context, bool mask_like_input, uint32_t seed) {
  const double ratio = context.has(1) ? to_scalar<double>(context.in(1)) : 0.5;
  if (context.has(2) && to_scalar<int64_t>(context.in(2)) != 0 && ratio != 0) return run_training(context, ratio, seed);
  Layout layout;
  const Tensor& x = context.in_any(0, layout);
  if (context.wanted(1)) {
    Tensor mask(DType::Bool, x.shape());
    std::fill_n(mask.mutable_data<bool>(), mask.size(), true);
    context.set(1, mask_like_input ? cast(mask, x.dtype()) : mask);
  }
  context.set(0, x, layout);
}

std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  return make_kernel([mask_like_input = spec.opset < 10, seed = static_cast<uint32_t>(spec.node.i("seed", spec.node.id))](KernelContext& context) {
    run(context, mask_like_input, seed);
  });
}

}  // namespace

std::vector<OpDef> op_dropout() { return {{.name = "Dropout", .since = 7, .cpu = make}}; }

}  // namespace infopt

// CumSum and CumProd.
#include <type_traits>

#include "lib/ops/elementwise.h"

namespace infopt {
namespace {

struct Options {
  bool product, exclusive, reverse;
};

/// Integers wrap.
template <class T> T combine(T a, T b, bool product) {
  if constexpr (std::is_floating_point_v<T>) return product ? a * b : a + b;
  else return static_cast<T>(product ? static_cast<uint64_t>(a) * static_cast<uint64_t>(b) : static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

template <class T> void accumulate(const T* x, T* y, int64_t outer, int64_t n, int64_t inner, const Options& options) {
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t j = 0; j < inner; ++j) {
      T total = options.product ? T(1) : T(0);
      for (int64_t i = 0; i < n; ++i) {
        const int64_t at = (o * n + (options.reverse ? n - 1 - i : i)) * inner + j;
        const T next = combine(total, x[at], options.product);
        y[at] = options.exclusive ? total : next;
        total = next;
      }
    }
}

void run(KernelContext& context, const Options& options) {
  const DType dtype = context.in(0).dtype();
  const Tensor x = is_16_bit_float(dtype) ? cast(context.in(0), DType::F32) : context.in(0);
  const int64_t axis = normalize_axis(to_scalar<int64_t>(context.in(1)), x.rank());
  int64_t outer = 1, inner = 1;
  for (int64_t d = 0; d < x.rank(); ++d) (d < axis ? outer : inner) *= d == axis ? 1 : x.dim(d);
  Tensor y(x.dtype(), x.shape());
  visit_number(x.dtype(), [&]<class T>() { accumulate(x.data<T>(), y.mutable_data<T>(), outer, x.dim(axis), inner, options); });
  context.set(0, cast(y, dtype));
}

template <bool product> std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  const Options options{product, spec.node.i("exclusive", 0) != 0, spec.node.i("reverse", 0) != 0};
  return make_kernel([options](KernelContext& context) { run(context, options); });
}

}  // namespace

std::vector<OpDef> op_cumulative() { return {{.name = "CumSum", .cpu = make<false>}, {.name = "CumProd", .cpu = make<true>}}; }

}  // namespace infopt

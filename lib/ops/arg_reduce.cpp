// ArgMax and ArgMin.
#include "lib/ops/elementwise.h"

namespace infopt {
namespace {

struct Options {
  bool max, keep_dims, select_last;
  int64_t axis;
};

template <class T> void find_best(const T* x, int64_t* y, int64_t outer, int64_t n, int64_t inner, const Options& options) {
  const auto better = [&](T a, T b) { return options.max ? a > b : a < b; };
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t j = 0; j < inner; ++j) {
      const T* from = x + o * n * inner + j;
      int64_t best = 0;
      for (int64_t i = 1; i < n; ++i) {
        const T v = from[i * inner], top = from[best * inner];
        // As NumPy has it, the first NaN wins.
        if (better(v, top) || (v != v && top == top) || (options.select_last && v == top)) best = i;
      }
      *y++ = best;
    }
}

void run(KernelContext& context, const Options& options) {
  Tensor x = context.in(0);
  if (is_16_bit_float(x.dtype())) x = cast(x, DType::F32);
  const int64_t axis = normalize_axis(options.axis, x.rank());
  int64_t outer = 1, inner = 1;
  Shape shape;
  for (int64_t d = 0; d < x.rank(); ++d) {
    if (d < axis) outer *= x.dim(d);
    if (d > axis) inner *= x.dim(d);
    if (d != axis) shape.push_back(x.dim(d));
    else if (options.keep_dims) shape.push_back(1);
  }
  const int64_t n = x.dim(axis);
  if (n == 0) throw Error(ErrorKind::Malformed, "the axis whose extreme is wanted has no elements");
  int64_t* y = context.out(0, DType::I64, shape).mutable_data<int64_t>();
  visit_number(x.dtype(), [&]<class T>() { find_best(x.data<T>(), y, outer, n, inner, options); });
}

template <bool max> std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  const Options options{max, spec.node.i("keepdims", 1) != 0, spec.node.i("select_last_index", 0) != 0, spec.node.i("axis", 0)};
  return make_kernel([options](KernelContext& context) { run(context, options); });
}

}  // namespace

std::vector<OpDef> op_arg_reduce() { return {{.name = "ArgMax", .cpu = make<true>}, {.name = "ArgMin", .cpu = make<false>}}; }

}  // namespace infopt

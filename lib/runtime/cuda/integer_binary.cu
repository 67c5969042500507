// Sums and products of two tensors of codes, with NumPy's broadcasting, in either layout.
#include <algorithm>

#include "lib/base/error.h"
#include "lib/ops/broadcast.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/code_math.h"
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/lanes.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/fusions/code_sum.h"

namespace infopt::cuda {
namespace {

constexpr int kThreads = 256;

struct Pair {
  CodeRead a, b;
  float a_ratio, b_ratio;
  CodeStore y;
  bool product;

  INFOPT_DEVICE uint8_t operator()(uint8_t left, uint8_t right) const {
    if (product) return y(__fmul_rn(__fmul_rn(a(left), b(right)), a_ratio));
    return y(__fadd_rn(__fmul_rn(a(left), a_ratio), __fmul_rn(b(right), b_ratio)));
  }
};

/// V codes a thread, along the innermost axis: each operand has V of them there, or one.
template <int V, class I> __global__ void pair_codes(const uint8_t* a, const uint8_t* b, uint8_t* y, I count, Places<I, 2> places, Pair pair, bool a_runs, bool b_runs) {
  for (I e = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<I>(gridDim.x) * kThreads) {
    int64_t at[2];
    places.of(e, at);
    Lanes<uint8_t, V> left, right, out;
    if (a_runs) left = load_lanes<V>(a + at[0]);
    else for (int k = 0; k < V; ++k) left.v[k] = a[at[0]];
    if (b_runs) right = load_lanes<V>(b + at[1]);
    else for (int k = 0; k < V; ++k) right.v[k] = b[at[1]];
    for (int k = 0; k < V; ++k) out.v[k] = pair(left.v[k], right.v[k]);
    store_lanes<V>(y + static_cast<int64_t>(e) * V, out);
  }
}

/// The shape as it lies in memory, outermost first, brought to `rank`.
Shape in_memory(const Shape& shape, size_t rank, Layout layout) {
  Shape wide(rank - shape.size(), 1);
  wide.insert(wide.end(), shape.begin(), shape.end());
  if (layout == Layout::ChannelsLast && rank >= 3) std::rotate(wide.begin() + 1, wide.begin() + 2, wide.end());
  return wide;
}

template <int V> void launch(Stream& stream, const uint8_t* a, const uint8_t* b, uint8_t* y, const Loops& loops, const Pair& pair) {
  Shape sizes = loops.sizes;
  auto strides = loops.strides;
  const bool a_runs = strides[0].back() == 1, b_runs = strides[1].back() == 1;
  sizes.back() /= V;
  for (auto& s : strides) s.back() *= V;
  const int64_t count = element_count(sizes);
  with_index(count, [&](auto index) {
    using I = decltype(index);
    INFOPT_LAUNCH(stream, (pair_codes<V, I>), {grid_for(count, kThreads)}, {kThreads}, 0, a, b, y, static_cast<I>(count), (places_of<I, 2>(sizes, strides)), pair, a_runs, b_runs);
  });
}

class BinaryKernel : public CudaKernel {
 public:
  explicit BinaryKernel(const IntegerBinary& how)
      : how_(how.how), pair_{CodeRead::of(how.how.a_dtype, how.how.a_zero), CodeRead::of(how.how.b_dtype, how.how.b_zero), how.how.a_ratio, how.how.b_ratio,
                             CodeStore::of(how.how.output, how.how.zero, how.how.low, how.how.high), how.product} {}

  void run_cuda(CudaContext& c) const override {
    CodeOperand a, b;
    a.tensor = c.in_any(0, a.layout);
    b.tensor = c.in_any(1, b.layout);
    if (a.tensor.dtype() != how_.a_dtype || b.tensor.dtype() != how_.b_dtype) throw Error(ErrorKind::Malformed, "codes and zero points of different types");
    const CodePlan plan = plan_codes(a, b);
    const size_t rank = plan.shape.size();
    Tensor& y = c.out(0, how_.output, plan.shape, plan.layout);
    if (y.size() == 0) return;
    std::vector<Shape> shapes;
    for (CodeOperand* o : {&a, &b}) {
      const Layout layout = static_cast<size_t>(o->tensor.rank()) == rank ? plan.layout : Layout::Plain;
      if (o->tensor.rank() >= 3) o->tensor = c.run().convert_layout(o->tensor, o->layout, layout);
      shapes.push_back(in_memory(o->tensor.shape(), rank, plan.layout));
    }
    const Loops loops = plan_loops(in_memory(plan.shape, rank, plan.layout), shapes);
    const auto* left = reinterpret_cast<const uint8_t*>(a.tensor.raw());
    const auto* right = reinterpret_cast<const uint8_t*>(b.tensor.raw());
    const auto fits = [&](int64_t v) {
      if (loops.sizes.back() % v) return false;
      for (size_t k = 0; k < 2; ++k) {
        const auto& s = loops.strides[k];
        if (s.back() == 0) continue;
        if (s.back() != 1 || reinterpret_cast<uintptr_t>(k ? right : left) % static_cast<size_t>(v)) return false;
        if (std::any_of(s.begin(), s.end() - 1, [v](int64_t step) { return step % v != 0; })) return false;
      }
      return true;
    };
    auto* to = reinterpret_cast<uint8_t*>(y.mutable_raw());
    if (fits(16)) launch<16>(c.stream(), left, right, to, loops, pair_);
    else if (fits(4)) launch<4>(c.stream(), left, right, to, loops, pair_);
    else launch<1>(c.stream(), left, right, to, loops, pair_);
  }
  std::string describe() const override { return pair_.product ? "int8 product by element" : "int8 sum"; }

 private:
  cpu::Int8Binary how_;
  Pair pair_;
};

}  // namespace

std::unique_ptr<Kernel> make_integer_binary(IntegerBinary how) { return std::make_unique<BinaryKernel>(how); }

}  // namespace infopt::cuda

// Poolings of codes with exact sums, in either layout.
#include "lib/base/error.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/code_math.h"
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/pooling.h"

namespace infopt::cuda {
namespace {

/// T is the codes' type; all are passed on as bytes.
template <class T> struct GreatestCode {
  using Sum = int;
  INFOPT_DEVICE Sum none() const { return static_cast<T>(-1) < static_cast<T>(1) ? -128 : 0; }
  INFOPT_DEVICE void add(Sum& sum, T v) const { merge(sum, static_cast<int>(v)); }
  INFOPT_DEVICE void merge(Sum& sum, Sum v) const { sum = v > sum ? v : sum; }
  INFOPT_DEVICE uint8_t result(Sum sum, int, int) const { return static_cast<uint8_t>(sum); }
};

template <class T> struct MeanCode {
  using Sum = int;
  int32_t input_zero;
  float ratio;
  enum { WholeImage, Inside, Padded } by;
  CodeStore store;
  INFOPT_DEVICE Sum none() const { return 0; }
  INFOPT_DEVICE void add(Sum& sum, T v) const { sum += static_cast<int>(v); }
  INFOPT_DEVICE void merge(Sum& sum, Sum v) const { sum += v; }
  INFOPT_DEVICE uint8_t result(Sum sum, int inside, int padded) const {
    const int pixels = by == Padded ? padded : inside;
    const float factor = by == WholeImage ? ratio : __fdiv_rn(ratio, static_cast<float>(pixels > 1 ? pixels : 1));
    return store(__fmul_rn(static_cast<float>(sum - inside * input_zero), factor));
  }
};

class PoolKernel : public CudaKernel {
 public:
  explicit PoolKernel(const IntegerPool& how) : how_(how) {}

  void run_cuda(CudaContext& c) const override {
    Layout layout;
    const Tensor& x = c.in_any(0, layout);
    if (x.dtype() != how_.input.dtype) throw Error(ErrorKind::Malformed, "codes and zero point of different types");
    if (x.rank() < 3 || x.rank() > 5) throw Error(ErrorKind::Unsupported, "a pooling of codes of shape " + to_string(x.shape()));
    const Shape spatial(x.shape().begin() + 2, x.shape().end());
    const bool global = how_.kind == IntegerPool::Global;
    const Window w = global ? resolve_window({}, spatial, spatial) : resolve_window(how_.window, spatial, how_.window.kernel);
    const PoolAxes axes = pool_axes(w, spatial);
    Shape shape{x.dim(0), x.dim(1)};
    shape.insert(shape.end(), w.out.begin(), w.out.end());
    const int64_t pixels = element_count(spatial), kernel = element_count(w.kernel);
    if (global && pixels == 0) throw Error(ErrorKind::Malformed, "an average of no elements");
    if (how_.kind != IntegerPool::Max && kernel >= 1 << 23) throw Error(ErrorKind::Unsupported, "an average of " + std::to_string(kernel) + " codes");
    Tensor& y = c.out(0, how_.output.dtype, shape, layout);
    if (y.size() == 0) return;
    const bool last = layout == Layout::ChannelsLast;
    if (x.dtype() == DType::I8) run_typed<int8_t>(c.stream(), x, y, axes, last, pixels);
    else run_typed<uint8_t>(c.stream(), x, y, axes, last, pixels);
  }
  std::string describe() const override { return how_.kind == IntegerPool::Max ? "int8 maximum, in the input's layout" : "int8 average, in the input's layout"; }

 private:
  template <class T> void run_typed(Stream& stream, const Tensor& x, Tensor& y, const PoolAxes& axes, bool last, int64_t pixels) const {
    const auto* from = reinterpret_cast<const T*>(x.raw());
    auto* to = reinterpret_cast<uint8_t*>(y.mutable_raw());
    const int64_t images = last ? x.dim(0) : x.dim(0) * x.dim(1), channels = last ? x.dim(1) : 1;
    if (how_.kind == IntegerPool::Max) return pool_pixels<16>(stream, GreatestCode<T>{}, from, to, axes, images, channels);
    constexpr float inf = std::numeric_limits<float>::infinity();
    MeanCode<T> mean{how_.input.zero, how_.input.scale / how_.output.scale, how_.include_pad ? MeanCode<T>::Padded : MeanCode<T>::Inside, CodeStore::of(how_.output.dtype, how_.output.zero, -inf, inf)};
    if (how_.kind == IntegerPool::Global) mean.ratio = how_.input.scale / (how_.output.scale * static_cast<float>(pixels)), mean.by = MeanCode<T>::WholeImage;
    pool_pixels<8>(stream, mean, from, to, axes, images, channels);
  }

  IntegerPool how_;
};

}  // namespace

std::unique_ptr<Kernel> make_integer_pool(IntegerPool how) { return std::make_unique<PoolKernel>(how); }

}  // namespace infopt::cuda

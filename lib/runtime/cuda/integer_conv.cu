// Convolutions of codes, whose zero points are known or the run computes: on the tensor cores, or directly where groups are too small for them.
#include <algorithm>

#include "lib/base/error.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/int8_gemm.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/fusions/code_sum.h"

namespace infopt::cuda {
namespace {

constexpr size_t kMostAxes = 8;

/// Codes and a residual that is broadcast; strides by axis of the result as it lies, 0 where the operand is repeated.
struct Combination {
  const uint8_t *codes, *residual;
  uint8_t* y;
  int64_t count;
  int axes;
  int64_t sizes[kMostAxes], code_strides[kMostAxes], residual_strides[kMostAxes];
  Int8End end;
};

__global__ void combine(const Combination p) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < p.count; i += step) {
    int64_t rest = i, a = 0, b = 0;
    for (int axis = p.axes - 1; axis >= 0; --axis) {
      const int64_t place = rest % p.sizes[axis];
      rest /= p.sizes[axis];
      a += place * p.code_strides[axis];
      b += place * p.residual_strides[axis];
    }
    p.y[i] = static_cast<uint8_t>(last_code(p.end, p.end.table, p.codes[a], p.residual[b]));
  }
}

/// Strides of an operand of `shape` that lies in `own`, by axis of the result, whose axes are listed as they lie in `layout`.
void place_strides(const Shape& shape, Layout own, size_t rank, Layout layout, int64_t* strides) {
  const size_t n = shape.size(), missing = rank - n;
  std::vector<int64_t> order, logical(rank, 0);  // the operand's axes as they lie
  for (size_t i = 0; i < n; ++i) order.push_back(static_cast<int64_t>(i));
  if (own == Layout::ChannelsLast && n >= 3) {
    order.erase(order.begin() + 1);
    order.push_back(1);
  }
  int64_t step = 1;
  for (size_t i = n; i-- > 0;) {
    const auto axis = static_cast<size_t>(order[i]);
    logical[axis + missing] = shape[axis] == 1 ? 0 : step;
    step *= shape[axis];
  }
  if (layout == Layout::ChannelsLast && rank >= 3) {
    logical.push_back(logical[1]);
    logical.erase(logical.begin() + 1);
  }
  std::copy(logical.begin(), logical.end(), strides);
}

std::array<int64_t, 3> behind(const std::vector<int64_t>& list, size_t spatial) {
  std::array<int64_t, 3> out{1, 1, 1};
  for (size_t i = 0; i < spatial && i < list.size(); ++i) out[3 - spatial + i] = list[i];
  return out;
}

Int8Weights weights_of(const Tensor& codes, int64_t groups, const std::vector<int32_t>& zeros) {
  const size_t spatial = static_cast<size_t>(codes.rank() - 2);
  Int8Weights w;
  w.codes = codes;
  w.columns = codes.dim(0);
  w.groups = groups;
  w.channels = codes.dim(1);
  w.kernel = behind({codes.shape().begin() + 2, codes.shape().end()}, spatial);
  w.channel_stride = w.taps();
  w.column_stride = w.channels * w.taps();
  w.zeros = zeros;
  return w;
}

/// Tensor cores would multiply zeros for the most part.
bool goes_directly(const Int8Weights& w) { return w.groups > 1 && w.columns / w.groups < 32; }

/// Where a convolution of x's pixels gives which.
struct Geometry {
  Int8Places places;
  Shape result;

  Geometry(const Tensor& x, const Shape& weights, int64_t groups, const WindowAttributes& attributes) {
    if (x.shape().size() != weights.size() || x.dim(1) != weights[1] * groups)
      throw Error(ErrorKind::Malformed, "an input of " + to_string(x.shape()) + " doesn't fit weights of " + to_string(weights) + " in " + std::to_string(groups) + " groups");
    const Shape spatial(x.shape().begin() + 2, x.shape().end()), kernel(weights.begin() + 2, weights.end());
    const Window window = resolve_window(attributes, spatial, kernel);
    places = int8_places(x.dim(0), spatial, window);
    result = {x.dim(0), weights[0]};
    result.insert(result.end(), window.out.begin(), window.out.end());
  }
};

class IntegerConvKernel : public CudaKernel {
 public:
  IntegerConvKernel(IntegerConv how, SparseUse sparse) : window_(how.window), groups_(how.groups), input_(how.input), shape_(how.weights.shape()) {
    const Int8Weights weights = weights_of(how.weights, how.groups, how.zeros);
    const auto dilations = behind(window_.dilations, static_cast<size_t>(how.weights.rank() - 2));
    if (goes_directly(weights)) {
      direct_.emplace(weights, dilations, input_);
      ending_.emplace(how.end, weights.columns, std::vector<int32_t>{}, std::vector<int32_t>{});
    } else {
      gemm_.emplace(weights, dilations, input_, true, sparse);
      ending_.emplace(how.end, weights.columns, gemm_->shift(), gemm_->weight_zeros());
    }
  }

  void run_cuda(CudaContext& context) const override {
    Layout layout, residual_layout = Layout::Plain;
    const Tensor& given = context.in_any(0, layout);
    if (given.dtype() != input_.dtype) throw Error(ErrorKind::Malformed, "codes of " + std::string(name_of(given.dtype())) + " with a zero point of " + std::string(name_of(input_.dtype)));
    const Geometry geometry(given, shape_, groups_, window_);
    const Int8Places& places = geometry.places;
    const Shape& shape = geometry.result;
    const Tensor x = context.run().convert_layout(given, layout, Layout::ChannelsLast);
    Int8End end = ending_->get(context.run());
    if (!end.residual) {
      Tensor& y = context.out(0, ending_->output(), shape, Layout::ChannelsLast);
      return multiply(context, x, places, end, y);
    }
    const Tensor& other = context.in_any(1, residual_layout);
    if (other.dtype() != ending_->epilogue().residual_dtype) throw Error(ErrorKind::Malformed, "a residual of " + std::string(name_of(other.dtype())));
    if (other.shape() != shape) return run_broadcast(context, x, places, end, shape, other, residual_layout);
    const Tensor residual = context.run().convert_layout(other, residual_layout, Layout::ChannelsLast);
    end.residual_data = residual.raw();
    Tensor& y = context.out(0, ending_->output(), shape, Layout::ChannelsLast);
    multiply(context, x, places, end, y);
  }

  std::string describe() const override {
    return std::string(direct_ ? "CUDA int8 grouped convolution" : "CUDA int8 convolution on tensor cores") + ", channels last, to " + std::string(name_of(ending_->output())) + (ending_->epilogue().residual ? ", with the residual" : "") + (gemm_ ? gemm_->describe_zeros() : "");
  }

 private:
  void multiply(CudaContext& context, const Tensor& x, const Int8Places& places, const Int8End& end, Tensor& y) const {
    if (y.size() == 0) return;
    if (direct_) direct_->run(context, x, places, end, y.mutable_raw());
    else gemm_->run(context, x, places, end, y.mutable_raw());
  }

  /// The residual has another shape: the sum is taken by itself.
  void run_broadcast(CudaContext& context, const Tensor& x, const Int8Places& places, const Int8End& end, Shape shape, const Tensor& residual, Layout layout) const {
    if (end.kind != Int8End::Codes) throw Error(ErrorKind::Unsupported, "a float residual that is broadcast");
    Int8End first = end;
    first.residual = false;
    first.table = nullptr;
    Tensor codes = context.scratch(ending_->epilogue().output, shape);
    multiply(context, x, places, first, codes);
    const CodePlan plan = plan_codes({codes, Layout::ChannelsLast}, {residual, layout});
    const size_t rank = plan.shape.size();
    if (rank > kMostAxes) throw Error(ErrorKind::Unsupported, "a residual of more than " + std::to_string(kMostAxes) + " axes");
    Tensor& y = context.out(0, ending_->output(), plan.shape, plan.layout);
    Combination c{};
    c.count = y.size();
    if (c.count == 0) return;
    c.codes = reinterpret_cast<const uint8_t*>(codes.raw());
    c.residual = reinterpret_cast<const uint8_t*>(residual.raw());
    c.y = reinterpret_cast<uint8_t*>(y.mutable_raw());
    c.axes = static_cast<int>(rank);
    const bool last = plan.layout == Layout::ChannelsLast && rank >= 3;
    for (size_t i = 0; i < rank; ++i) c.sizes[i] = plan.shape[!last || i == 0 ? i : i + 1 == rank ? 1 : i + 1];
    place_strides(codes.shape(), Layout::ChannelsLast, rank, plan.layout, c.code_strides);
    place_strides(residual.shape(), layout, rank, plan.layout, c.residual_strides);
    c.end = end;
    INFOPT_LAUNCH(context.stream(), combine, {std::min<int64_t>(blocks_for(c.count, 256), 1 << 16)}, {256}, 0, c);
  }

  WindowAttributes window_;
  int64_t groups_;
  CodeStep input_;
  Shape shape_;
  std::optional<Int8Gemm> gemm_;
  std::optional<Int8Direct> direct_;
  std::optional<Int8Ending> ending_;
};

/// To float32 with a scale that the run computes, or the int32 sums.
class DynamicConvKernel : public CudaKernel {
 public:
  DynamicConvKernel(const DynamicConv& how, SparseUse sparse) : window_(how.window), groups_(how.groups), sums_(how.scales.empty()), has_zero_(how.has_zero), shape_(how.weights.shape()) {
    const Int8Weights weights = weights_of(how.weights, how.groups, how.zeros);
    const auto dilations = behind(window_.dilations, static_cast<size_t>(how.weights.rank() - 2));
    const auto end = plain_end(how.scales, how.bias, how.bounds);
    if (goes_directly(weights)) {
      direct_.emplace(weights, dilations, CodeStep{});
      ending_.emplace(end, weights.columns, std::vector<int32_t>{}, std::vector<int32_t>{});
    } else {
      gemm_.emplace(weights, dilations, CodeStep{}, false, sparse);
      ending_.emplace(end, weights.columns, std::vector<int32_t>{}, gemm_->weight_zeros());
      zero_factor_.set(Tensor::vector(gemm_->zero_factor()));
    }
  }

  void run_cuda(CudaContext& context) const override {
    Layout layout;
    const Tensor& given = context.in_any(0, layout);
    if (given.dtype() != DType::U8 && given.dtype() != DType::I8) throw Error(ErrorKind::Unsupported, "a convolution of codes of " + std::string(name_of(given.dtype())));
    const Geometry geometry(given, shape_, groups_, window_);
    Int8End end = ending_->get(context.run());
    if (!sums_) set_run_scale(end, context.in(1));
    if (has_zero_) {
      const Tensor& zero = context.in(sums_ ? 1 : 2);
      if (zero.dtype() != given.dtype()) throw Error(ErrorKind::Malformed, "codes of " + std::string(name_of(given.dtype())) + " with a zero point of " + std::string(name_of(zero.dtype())));
      set_run_zero(end, zero);
      if (gemm_) end.run_zero_factor = reinterpret_cast<const int32_t*>(zero_factor_.get(context.run()).raw());
    }
    const Tensor x = context.run().convert_layout(given, layout, Layout::ChannelsLast);
    Tensor& y = context.out(0, sums_ ? DType::I32 : DType::F32, geometry.result, Layout::ChannelsLast);
    if (y.size() == 0) return;
    if (direct_) direct_->run(context, x, geometry.places, end, y.mutable_raw());
    else gemm_->run(context, x, geometry.places, end, y.mutable_raw());
  }

  std::string describe() const override {
    return std::string(direct_ ? "CUDA int8 grouped convolution" : "CUDA int8 convolution on tensor cores") + ", channels last, to " + (sums_ ? "int32" : "float32, with dynamic activations") + (gemm_ ? gemm_->describe_zeros() : "");
  }

 private:
  WindowAttributes window_;
  int64_t groups_;
  bool sums_, has_zero_;
  Shape shape_;
  std::optional<Int8Gemm> gemm_;
  std::optional<Int8Direct> direct_;
  std::optional<Int8Ending> ending_;
  OnDevice zero_factor_;
};

bool fits_kernels(const Tensor& weights, int64_t groups, const WindowAttributes& window) {
  if (groups < 1 || weights.rank() < 3 || weights.rank() > 5 || weights.dim(0) % groups != 0) return false;
  return std::all_of(window.dilations.begin(), window.dilations.end(), [](int64_t d) { return d >= 1 && d < 1 << 28; });
}

}  // namespace

std::unique_ptr<Kernel> make_dynamic_conv(DynamicConv how, SparseUse sparse) {
  if (!fits_kernels(how.weights, how.groups, how.window)) return nullptr;
  return std::make_unique<DynamicConvKernel>(how, sparse);
}

std::unique_ptr<Kernel> make_integer_conv(IntegerConv how, SparseUse sparse) {
  if (!fits_kernels(how.weights, how.groups, how.window)) return nullptr;
  return std::make_unique<IntegerConvKernel>(std::move(how), sparse);
}

}  // namespace infopt::cuda

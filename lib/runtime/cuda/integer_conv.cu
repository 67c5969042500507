// Convolutions of codes: on the tensor cores, or directly where groups are too small for them.
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

Int8Weights weights_of(const IntegerConv& how) {
  const size_t spatial = static_cast<size_t>(how.weights.rank() - 2);
  Int8Weights w;
  w.codes = how.weights;
  w.columns = how.weights.dim(0);
  w.groups = how.groups;
  w.channels = how.weights.dim(1);
  w.kernel = behind({how.weights.shape().begin() + 2, how.weights.shape().end()}, spatial);
  w.channel_stride = w.taps();
  w.column_stride = w.channels * w.taps();
  w.zeros = how.zeros;
  return w;
}

class IntegerConvKernel : public CudaKernel {
 public:
  explicit IntegerConvKernel(IntegerConv how) : window_(how.window), groups_(how.groups), input_(how.input), shape_(how.weights.shape()) {
    const Int8Weights weights = weights_of(how);
    const auto dilations = behind(window_.dilations, static_cast<size_t>(how.weights.rank() - 2));
    if (groups_ > 1 && weights.columns / groups_ < 32) {  // tensor cores would multiply zeros for the most part
      direct_.emplace(weights, dilations, input_);
      ending_.emplace(how.end, weights.columns, std::vector<int32_t>{}, std::vector<int32_t>{});
    } else {
      gemm_.emplace(weights, dilations, input_, true);
      ending_.emplace(how.end, weights.columns, gemm_->shift(), gemm_->weight_zeros());
    }
  }

  void run_cuda(CudaContext& context) const override {
    Layout layout, residual_layout = Layout::Plain;
    const Tensor& given = context.in_any(0, layout);
    if (given.dtype() != input_.dtype) throw Error(ErrorKind::Malformed, "codes of " + std::string(name_of(given.dtype())) + " with a zero point of " + std::string(name_of(input_.dtype)));
    if (given.shape().size() != shape_.size() || given.dim(1) != shape_[1] * groups_)
      throw Error(ErrorKind::Malformed, "an input of " + to_string(given.shape()) + " doesn't fit weights of " + to_string(shape_) + " in " + std::to_string(groups_) + " groups");
    const Shape spatial(given.shape().begin() + 2, given.shape().end()), kernel(shape_.begin() + 2, shape_.end());
    const Window window = resolve_window(window_, spatial, kernel);
    const Int8Places places = int8_places(given.dim(0), spatial, window);
    Shape shape{given.dim(0), shape_[0]};
    shape.insert(shape.end(), window.out.begin(), window.out.end());
    const Tensor x = context.run().convert_layout(given, layout, Layout::ChannelsLast);
    Int8End end = ending_->get(context.run());
    if (!end.residual) {
      Tensor& y = context.out(0, ending_->output(), shape, Layout::ChannelsLast);
      return multiply(context, x, places, end, y);
    }
    const Tensor& other = context.in_any(1, residual_layout);
    if (other.dtype() != ending_->epilogue().residual_dtype) throw Error(ErrorKind::Malformed, "a residual of " + std::string(name_of(other.dtype())));
    if (other.shape() != shape) return run_broadcast(context, x, places, end, std::move(shape), other, residual_layout);
    const Tensor residual = context.run().convert_layout(other, residual_layout, Layout::ChannelsLast);
    end.residual_data = residual.raw();
    Tensor& y = context.out(0, ending_->output(), shape, Layout::ChannelsLast);
    multiply(context, x, places, end, y);
  }

  std::string describe() const override {
    return std::string(direct_ ? "CUDA int8 grouped convolution" : "CUDA int8 convolution on tensor cores") + ", channels last, to " + std::string(name_of(ending_->output())) + (ending_->epilogue().residual ? ", with the residual" : "");
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

}  // namespace

std::unique_ptr<Kernel> make_integer_conv(IntegerConv how) {
  if (how.groups < 1 || how.weights.rank() < 3 || how.weights.rank() > 5 || how.weights.dim(0) % how.groups != 0) return nullptr;
  for (int64_t d : how.window.dilations)
    if (d < 1 || d >= 1 << 28) return nullptr;
  return std::make_unique<IntegerConvKernel>(std::move(how));
}

}  // namespace infopt::cuda

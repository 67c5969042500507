#include "lib/runtime/cuda/int8_finish.h"

#include <algorithm>
#include <utility>

#include "lib/base/error.h"
#include "lib/runtime/cpu/int8_kernels.h"

namespace infopt::cuda {
namespace {

template <class T> Tensor tensor_of(const T* data, int64_t count) {
  if (!data) return {};
  Tensor t(dtype_of<T>, {count});
  std::copy_n(data, count, t.mutable_data<T>());
  return t;
}

template <class T> const T* address(const OnDevice& array, CudaRun& run) { return array.defined() ? reinterpret_cast<const T*>(array.get(run).raw()) : nullptr; }

}  // namespace

Int8Ending::Int8Ending(std::shared_ptr<const IntegerEpilogue> end, int64_t columns, const std::vector<int32_t>& shift, const std::vector<int32_t>& weight_zeros)
    : end_(std::move(end)), scale_(tensor_of(end_->epilogue.scale, columns)), float_bias_(tensor_of(end_->epilogue.float_bias, columns)),
      bias_([&] {
        Tensor t = Tensor::zeros(DType::I32, {columns});
        for (int64_t n = 0; n < columns; ++n) {
          const size_t i = static_cast<size_t>(n);
          t.mutable_data<int32_t>()[n] = static_cast<int32_t>((end_->epilogue.bias ? static_cast<uint32_t>(end_->epilogue.bias[n]) : 0u) + (shift.empty() ? 0u : static_cast<uint32_t>(shift[i])));
        }
        return t;
      }()),
      weight_zero_(weight_zeros.empty() ? Tensor() : tensor_of(weight_zeros.data(), columns)), table_(tensor_of(end_->epilogue.table, 256)) {
  cpu::Int8Finish check(end_->epilogue);
  (void)check;
}

Int8End Int8Ending::get(CudaRun& run) const {
  const cpu::Int8Epilogue& e = end_->epilogue;
  const cpu::Int8Finish finish(e);
  Int8End end;
  end.kind = finish.bytes ? Int8End::Codes : e.output == DType::F32 ? Int8End::Float : Int8End::Int32;
  end.scale = address<float>(scale_, run);
  end.float_bias = address<float>(float_bias_, run);
  end.bias = address<int32_t>(bias_, run);
  end.weight_zero = address<int32_t>(weight_zero_, run);
  end.table = address<uint8_t>(table_, run);
  end.is_signed = e.output == DType::I8;
  end.residual = e.residual;
  end.residual_signed = e.residual_dtype == DType::I8;
  end.low = finish.low, end.high = finish.high, end.low2 = finish.low2, end.high2 = finish.high2;
  end.ratio = e.ratio, end.residual_ratio = e.residual_ratio;
  end.zero = e.zero, end.zero2 = e.zero2, end.residual_zero = e.residual_zero;
  return end;
}

std::shared_ptr<const IntegerEpilogue> plain_end(std::vector<float> scales, std::vector<float> bias, const PostActivation& bounds) {
  auto end = std::make_shared<IntegerEpilogue>();
  end->scale = std::move(scales);
  end->float_bias = std::move(bias);
  end->output = end->epilogue.output = end->scale.empty() ? DType::I32 : DType::F32;
  end->epilogue.scale = end->scale.empty() ? nullptr : end->scale.data();
  end->epilogue.float_bias = end->float_bias.empty() ? nullptr : end->float_bias.data();
  if (bounds.kind == PostActivation::Clip) end->epilogue.low = bounds.low, end->epilogue.high = bounds.high;
  return end;
}

void set_run_scale(Int8End& end, const Tensor& scale) {
  if (scale.dtype() != DType::F32 || scale.size() != 1) throw Error(ErrorKind::Malformed, "a scale of " + to_string(scale.shape()));
  end.run_scale = reinterpret_cast<const float*>(scale.raw());
}

void set_run_zero(Int8End& end, const Tensor& zero) {
  if ((zero.dtype() != DType::U8 && zero.dtype() != DType::I8) || zero.size() != 1) throw Error(ErrorKind::Malformed, "a zero point of " + std::string(name_of(zero.dtype())) + to_string(zero.shape()));
  end.run_zero = reinterpret_cast<const uint8_t*>(zero.raw());
  end.run_zero_signed = zero.dtype() == DType::I8;
}

}  // namespace infopt::cuda

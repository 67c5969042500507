// Products of 8-bit codes on the tensor cores: convolutions in any number of groups, and matrix products as those of one pixel an image.
#pragma once
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "lib/runtime/cuda/int8_finish.h"
#include "lib/runtime/cuda/int8_sparse.h"

namespace infopt::cuda {

/// Weights w[column][channel][tap]: at column·column_stride + channel·channel_stride + tap. Columns [g·columns/groups, …) are group g's.
struct Int8Weights {
  Tensor codes;  ///< U8 or I8
  int64_t columns = 0, groups = 1, channels = 0;  ///< channels: of a group
  std::array<int64_t, 3> kernel{1, 1, 1};
  int64_t column_stride = 0, channel_stride = 1;
  std::vector<int32_t> zeros;  ///< one for each column, empty where all are 0
  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
};

/// Where a convolution's input and output pixels are; three spatial axes, unused ones in front with 1.
struct Int8Places {
  int64_t images = 1;
  std::array<int64_t, 3> in{1, 1, 1}, out{1, 1, 1}, strides{1, 1, 1}, before{0, 0, 0};
  int64_t rows() const { return images * out[0] * out[1] * out[2]; }
};

/// The geometry of a convolution, from what resolve_window found. Throws Error(Unsupported) where a coordinate doesn't fit the kernels' 32 bits.
Int8Places int8_places(int64_t images, const Shape& spatial, const Window& window);

/// Weights packed as the kernel reads them. Immutable, shared by runs.
class Int8Gemm {
 public:
  /// `input`: the activations' codes. `known_zero`: input.zero is so in every run; else Int8End::run_zero says it, 0 where that is null.
  Int8Gemm(const Int8Weights& weights, std::array<int64_t, 3> dilations, CodeStep input, bool known_zero, SparseUse sparse);
  /// What goes into Int8Ending.
  const std::vector<int32_t>& shift() const { return shift_; }        ///< 0 for each column unless known_zero
  const std::vector<int32_t>& weight_zeros() const { return zeros_; }
  /// What Int8End::run_zero_factor is to hold where the zero point isn't known.
  const std::vector<int32_t>& zero_factor() const { return factor_; }
  /// What plans say of the weights' zeros: "; zeros 2:4: …", or nothing.
  std::string describe_zeros() const { return sparse_ ? "; " + sparse_->describe() : std::string(); }
  /// x: channels last, U8 or I8, of groups·channels channels; y: of the kind that the end says, one row of all columns for each output pixel.
  void run(CudaContext& context, const Tensor& x, const Int8Places& places, const Int8End& end, void* y) const;

 private:
  int64_t columns_, groups_, channels_, padded_channels_, chunks_, granule_;
  uint8_t pad_;
  int64_t taps_per_column_;
  std::vector<int32_t> shift_, zeros_, factor_;
  void run_dense(CudaContext& context, const Tensor& x, const Int8Places& places, const Int8End& end, void* y) const;

  OnDevice weights_, taps_, pads_;
  std::unique_ptr<Int8Sparse> sparse_;  ///< null: nothing to choose, nothing to say
};

/// Few channels in many groups, depthwise convolutions above all: sums straight from memory, no tensor cores.
class Int8Direct {
 public:
  /// input.zero: where Int8End::run_zero doesn't say it.
  Int8Direct(const Int8Weights& weights, std::array<int64_t, 3> dilations, CodeStep input);
  void run(CudaContext& context, const Tensor& x, const Int8Places& places, const Int8End& end, void* y) const;

 private:
  int64_t columns_, groups_, channels_;
  std::array<int64_t, 3> kernel_, dilations_;
  CodeStep input_;
  OnDevice weights_;
};

}  // namespace infopt::cuda

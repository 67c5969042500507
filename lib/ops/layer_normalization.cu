// LayerNormalization and RMSNormalization on the device.
#include "lib/base/error.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/element.h"
#include "lib/runtime/cuda/row_norm.h"

namespace infopt::cuda {
namespace {

struct Options {
  int64_t axis;
  float epsilon;
  bool centered;
};

/// Gain or bias as one row, or where it varies from row to row, broadcast to the whole shape. `keep` holds what was made for it.
RowFactor row_factor(CudaContext& context, size_t i, const Shape& shape, size_t axis, std::vector<Tensor>& keep) {
  if (!context.has(i)) return {};
  const Tensor& given = context.in(i);
  if (!is_float(given.dtype()) || bits_of(given.dtype()) < 16) refuse_type(given.dtype());
  const Shape row(shape.begin() + static_cast<int64_t>(axis), shape.end());
  if (given.shape() == row) return {given.raw(), given.dtype(), 0};
  bool varies = false;
  const size_t missing = shape.size() - std::min(shape.size(), given.shape().size());
  for (size_t d = missing; d < axis; ++d) varies = varies || given.shape()[d - missing] != 1;
  Shape target = shape;
  if (!varies) std::fill_n(target.begin(), axis, 1);
  if (broadcast_shape(given.shape(), target) != target) throw Error(ErrorKind::Malformed, "the shape " + to_string(given.shape()) + " doesn't broadcast to " + to_string(shape));
  keep.push_back(context.scratch(given.dtype(), target));
  run_elements(context.stream(), compute_for(given.dtype()), {load(0)}, {operand_of(given)}, target, given.dtype(), keep.back().mutable_raw());
  return {keep.back().raw(), given.dtype(), varies ? element_count(row) : 0};
}

void run(CudaContext& context, const Options& options) {
  const Tensor x = context.in(0);
  const DType dtype = x.dtype();
  if (dtype != DType::F32 && dtype != DType::F64 && !is_16_bit_float(dtype)) refuse_type(dtype);
  const size_t axis = static_cast<size_t>(normalize_axis(options.axis, x.rank()));
  RowNorm norm{x.raw(), nullptr, 1, 1, dtype, dtype, {}, {}, options.epsilon, options.centered};
  Shape outer = x.shape();
  for (size_t d = 0; d < outer.size(); ++d) {
    (d < axis ? norm.rows : norm.n) *= outer[d];
    if (d >= axis) outer[d] = 1;
  }
  if (!context.has(1)) throw Error(ErrorKind::Malformed, "its scale is missing");
  std::vector<Tensor> keep;
  norm.gain = row_factor(context, 1, x.shape(), axis, keep);
  norm.bias = row_factor(context, 2, x.shape(), axis, keep);
  norm.y = context.out(0, dtype, x.shape()).mutable_raw();
  if (context.wanted(1)) norm.means = reinterpret_cast<float*>(context.out(1, DType::F32, outer).mutable_raw());
  if (context.wanted(2)) norm.inverses = reinterpret_cast<float*>(context.out(2, DType::F32, outer).mutable_raw());
  run_row_norm(context.stream(), norm);
}

template <bool centered> std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  const Options options{spec.node.i("axis", -1), spec.node.f("epsilon", 1e-5f), centered};
  return make_cuda_kernel([options](CudaContext& context) { run(context, options); }, "a warp or block for each row");
}

}  // namespace

std::vector<CudaOp> cuda_layer_normalization() {
  return {{.name = "LayerNormalization", .make = &make<true>}, {.name = "RMSNormalization", .make = &make<false>}};
}

}  // namespace infopt::cuda

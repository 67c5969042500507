// Concat and Split, in the layout that the inputs have. Parts that lie dense are the input's own memory.
#include "lib/ops/concat_split.h"

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/moves.h"

namespace infopt::cuda {
namespace {

std::unique_ptr<Kernel> concat(const KernelSpec& spec) {
  for (size_t i = 0; i < spec.node.inputs.size(); ++i) need_whole_bytes(spec, {i});
  if (spec.opset >= 4 && !spec.node.find("axis")) malformed("Concat needs its axis");
  const int64_t given = spec.node.i("axis", 1);
  return make_cuda_kernel(
      [given](CudaContext& c) {
        if (c.inputs() == 0) malformed("Concat without an input");
        std::vector<Tensor> parts;
        std::vector<Layout> layouts(c.inputs());
        int64_t plain = 0, last = 0;
        for (size_t i = 0; i < c.inputs(); ++i) {
          parts.push_back(c.in_any(i, layouts[i]));
          (layouts[i] == Layout::Plain ? plain : last) += parts[i].size();
          if (parts[i].dtype() != parts[0].dtype()) malformed("Concat of " + std::string(name_of(parts[0].dtype())) + " and " + std::string(name_of(parts[i].dtype())));
        }
        const Layout layout = last > plain ? Layout::ChannelsLast : Layout::Plain;
        const size_t axis = at(normal_axis(given, parts[0].rank()));
        const Shape shape = concat_shape(parts, axis), strides = strides_in(shape, layout);
        if (parts.size() == 1) return c.set(0, parts[0], layouts[0]);
        Tensor& y = c.out(0, parts[0].dtype(), shape, layout);
        const size_t bytes = element_bytes(y.dtype());
        std::byte* to = y.mutable_raw();
        for (size_t i = 0; i < parts.size(); ++i) {
          copy_box(c.stream(), bytes, parts[i].shape(), to, strides, parts[i].raw(), strides_in(parts[i].shape(), layouts[i]));
          to += bytes * at(parts[i].shape()[axis] * strides[axis]);
        }
      },
      "a strided copy of each part");
}

std::unique_ptr<Kernel> split(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  const int64_t given_axis = spec.node.i("axis", 0);
  const std::vector<int64_t> attribute = spec.node.ints("split");
  const auto parts = static_cast<int64_t>(spec.node.outputs.size());
  const bool even_only = spec.opset < 18;
  const int64_t declared = spec.node.i("num_outputs", parts);
  if (parts == 0 || declared != parts) malformed("Split's num_outputs is " + std::to_string(declared) + " for " + std::to_string(parts) + " outputs");
  return make_cuda_kernel(
      [=](CudaContext& c) {
        Layout layout;
        const Tensor& x = c.in_any(0, layout);
        const size_t axis = at(normal_axis(given_axis, x.rank()));
        const Shape strides = strides_in(x.shape(), layout);
        Shape shape = x.shape();
        int64_t begin = 0;
        const std::vector<int64_t> sizes = split_sizes(shape[axis], c.has(1) ? integers(c.host(1)) : attribute, parts, even_only);
        for (size_t k = 0; k < sizes.size(); ++k) {
          shape[axis] = sizes[k];
          if (c.wanted(k)) c.set(k, read_box(c, x, shape, begin * strides[axis], strides, layout), layout);
          begin += sizes[k];
        }
      },
      "a strided copy of each part");
}

}  // namespace

std::vector<CudaOp> cuda_concat_split() { return {{.name = "Concat", .make = &concat}, {.name = "Split", .since = 2, .make = &split}}; }

}  // namespace infopt::cuda

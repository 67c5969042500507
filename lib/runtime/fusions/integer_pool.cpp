// Poolings of codes: MaxPool where nothing is rescaled, AveragePool and GlobalAveragePool with exact sums.
#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/share.h"
#include "lib/runtime/cpu/int8_elementwise.h"
#include "lib/runtime/fusions/quantized.h"
#include "lib/runtime/fusions/rules.h"
#include "lib/runtime/layout.h"
#include "lib/runtime/window.h"

namespace infopt {
namespace {

enum class Kind { Max, Average, Global };

class IntegerPoolKernel : public Kernel {
 public:
  IntegerPoolKernel(const Node& node, Kind kind, const Codes& input, const Codes& output)
      : window_(WindowAttributes::of(node)), kind_(kind), input_(input), output_(output), include_pad_(node.i("count_include_pad", 0) != 0) {}

  void run(KernelContext& context) const override {
    Layout layout;
    const Tensor& given = context.in_any(0, layout);
    if (given.dtype() != input_.dtype) throw Error(ErrorKind::Malformed, "codes and zero point of different types");
    if (given.rank() < 3 || given.rank() > 5) throw Error(ErrorKind::Unsupported, "a pooling of codes of shape " + to_string(given.shape()));
    const Tensor x = convert_layout(given, layout, Layout::ChannelsLast);
    if (kind_ == Kind::Global) return global(context, x);
    const Shape spatial(x.shape().begin() + 2, x.shape().end());
    const Window w = resolve_window(window_, spatial, window_.kernel);
    cpu::Int8Window window;
    cpu::Int8Extent extent;
    window.channels = x.dim(1);
    extent.images = x.dim(0);
    const size_t skip = 3 - spatial.size();
    Shape shape{x.dim(0), x.dim(1)};
    for (size_t i = 0; i < spatial.size(); ++i) {
      const size_t a = i + skip;
      window.kernel[a] = w.kernel[i];
      window.strides[a] = w.strides[i];
      window.dilations[a] = w.dilations[i];
      window.pads_begin[a] = w.pads_begin[i];
      window.pads_end[a] = w.pads_end[i];
      extent.in[a] = spatial[i];
      extent.out[a] = w.out[i];
      shape.push_back(w.out[i]);
    }
    Tensor& y = context.out(0, output_.dtype, shape, Layout::ChannelsLast);
    const int64_t lines = extent.images * extent.out[0] * extent.out[1];
    const cpu::Int8Mean mean{input_.dtype, output_.dtype, input_.zero, output_.zero, input_.scale / output_.scale};
    share_work(lines, 4, [&](int64_t begin, int64_t end) {
      if (kind_ == Kind::Max) cpu::int8_max_pool(window, extent, input_.dtype, x.raw(), y.mutable_raw(), begin, end);
      else cpu::int8_average_pool(window, extent, mean, include_pad_, x.raw(), y.mutable_raw(), begin, end);
    });
  }

  ByItem by_item() const override { return ByItem::First; }
  std::string describe() const override { return kind_ == Kind::Max ? "int8 maximum, channels last" : "int8 average, channels last"; }

 private:
  void global(KernelContext& context, const Tensor& x) const {
    Shape shape{x.dim(0), x.dim(1)};
    shape.resize(static_cast<size_t>(x.rank()), 1);
    const int64_t channels = x.dim(1), pixels = element_count({x.shape().begin() + 2, x.shape().end()});
    if (pixels == 0) throw Error(ErrorKind::Malformed, "an average of no elements");
    if (pixels >= 1 << 23) throw Error(ErrorKind::Unsupported, "an average of " + std::to_string(pixels) + " codes");
    Tensor& y = context.out(0, output_.dtype, shape, Layout::ChannelsLast);
    if (y.size() == 0) return;
    const cpu::Int8Mean mean{input_.dtype, output_.dtype, input_.zero, output_.zero, input_.scale / (output_.scale * static_cast<float>(pixels))};
    share_work(x.dim(0), 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) cpu::int8_global_average(mean, x.raw() + n * pixels * channels, pixels, channels, y.mutable_raw() + n * channels);
    });
  }

  WindowAttributes window_;
  Kind kind_;
  Codes input_, output_;
  bool include_pad_;
};

/// A MaxPool whose input is surely codes by itself: scales don't matter to it.
std::optional<FusedStep> pool_of_codes(PlanView& view, const Node& node) {
  const DType type = node.outputs.size() == 1 && node.i("storage_order", 0) == 0 ? code_type(view, node.input(0)) : DType::Undefined;
  if (type != DType::U8 && type != DType::I8) return std::nullopt;
  FusedStep step;
  step.inputs = {node.input(0)};
  const Codes codes{node.input(0), type};
  if (const Device* device = view.device()) step.kernel = device->integer_pool({IntegerPool::Max, WindowAttributes::of(node), false, codes.step(), codes.step()});
  else step.kernel = std::make_unique<IntegerPoolKernel>(node, Kind::Max, codes, codes);
  return step;
}

}  // namespace

std::optional<FusedStep> fuse_integer_pool(PlanView& view, const Node& node) {
  if (node.is("MaxPool")) return pool_of_codes(view, node);
  const auto output = quantizes(view, node);
  const Node* before = output ? view.only_for_one(node.input(0)) : nullptr;
  if (!before || before->outputs.size() != 1) return std::nullopt;
  Kind kind = Kind::Max;
  if (before->is("AveragePool")) kind = Kind::Average;
  else if (before->is("GlobalAveragePool")) kind = Kind::Global;
  else if (!before->is("MaxPool")) return std::nullopt;
  const auto input = dequantized(view, before->input(0));
  if (!input) return std::nullopt;
  if (kind == Kind::Max && !input->same_step(*output)) {
    view.refuse(*before, "its input and output have different scales");
    return std::nullopt;
  }
  FusedStep step;
  step.inputs = {input->value};
  step.covers = {before->id};
  step.named = before->id;
  if (const Device* device = view.device()) {
    step.kernel = device->integer_pool({static_cast<IntegerPool::Kind>(kind), WindowAttributes::of(*before), before->i("count_include_pad", 0) != 0, input->step(), output->step()});
    return step;
  }
  step.kernel = std::make_unique<IntegerPoolKernel>(*before, kind, *input, *output);
  return step;
}

}  // namespace infopt

// Pad and CenterCropPad, in the layout that the input has.
#include "lib/ops/pad.h"

#include <algorithm>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/moves.h"

namespace infopt::cuda {
namespace {

constexpr int kThreads = 256;

/// An axis of the result: `n` elements of x along it, the first at `begin`.
struct PadAxis { int64_t n = 1, begin = 0, stride = 1; };

template <class I> struct PadAxes {
  int rank = 0;
  PadMode mode = PadMode::Constant;
  Divider<I> size[kMostAxes];
  PadAxis axis[kMostAxes];
};

/// The element's own place, or the one that the mode takes it from; -1 for the constant.
INFOPT_DEVICE int64_t source_of(int64_t p, int64_t n, PadMode mode) {
  if (p >= 0 && p < n) return p;
  if (mode == PadMode::Edge) return p < 0 ? 0 : n - 1;
  if (mode == PadMode::Wrap) return ((p % n) + n) % n;
  if (mode == PadMode::Reflect) {
    const int64_t period = n > 1 ? 2 * (n - 1) : 1;
    p = ((p % period) + period) % period;
    return p >= n ? period - p : p;
  }
  return -1;
}

/// `value`: the constant, in the device's memory; null for zero bits. A T may be several of these.
template <class T, class I> __global__ void pad_elements(const T* x, T* y, I count, PadAxes<I> axes, const std::byte* value, int value_bytes) {
  T constant{};
  if (value)
    for (int i = 0; i < static_cast<int>(sizeof(T)); ++i) reinterpret_cast<std::byte*>(&constant)[i] = value[i % value_bytes];
  for (I e = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<I>(gridDim.x) * kThreads) {
    I rest = e;
    int64_t from = 0;
    bool outside = false;
    for (int d = axes.rank - 1; d >= 0; --d) {
      I place = rest;
      rest = divide_off(place, axes.size[d]);
      const int64_t p = source_of(static_cast<int64_t>(place) - axes.axis[d].begin, axes.axis[d].n, axes.mode);
      outside = outside || p < 0;
      from += p * axes.axis[d].stride;
    }
    y[e] = outside ? constant : x[from];
  }
}

struct Axis {
  int64_t n, begin, end, stride;
  bool padded() const { return begin != 0 || end != 0; }
};

/// The axes as they lie in memory; neighbours without pads are one where they are dense.
std::vector<Axis> axes_in_memory(const Shape& x, const PadPlan& plan, Layout layout) {
  const Shape strides = strides_in(x, layout);
  std::vector<size_t> order(x.size());
  for (size_t d = 0; d < order.size(); ++d) order[d] = d;
  if (layout == Layout::ChannelsLast) std::rotate(order.begin() + 1, order.begin() + 2, order.end());
  std::vector<Axis> axes;
  for (const size_t d : order) {
    const Axis a{plan.kept[d], plan.begin[d], plan.end[d], strides[d]};
    if (a.n == 1 && !a.padded()) continue;
    const bool merges = !axes.empty() && !a.padded() && !axes.back().padded() && axes.back().stride == a.stride * a.n;
    if (merges) axes.back() = {axes.back().n * a.n, 0, 0, a.stride};
    else axes.push_back(a);
  }
  return axes;
}

/// Dense runs without pads become elements of up to 16 bytes. Gives how many bytes an element has now.
size_t widen(std::vector<Axis>& axes, size_t bytes, const std::byte* x) {
  if (axes.empty() || axes.back().padded() || axes.back().stride != 1) return bytes;
  const auto fits = [&](int64_t by) {
    if (reinterpret_cast<uintptr_t>(x) % (bytes * at(by)) || axes.back().n % by) return false;
    return std::all_of(axes.begin(), axes.end() - 1, [by](const Axis& a) { return a.stride % by == 0; });
  };
  auto by = static_cast<int64_t>(16 / bytes);
  while (by > 1 && !fits(by)) by /= 2;
  for (Axis& a : axes)
    if (&a != &axes.back()) a.stride /= by;
  axes.back().n /= by;
  return bytes * at(by);
}

template <class T, class I> void launch(Stream& stream, const std::vector<Axis>& axes, PadMode mode, const std::byte* x, std::byte* y, int64_t count, const std::byte* value, size_t bytes) {
  if (axes.size() > static_cast<size_t>(kMostAxes)) unsupported("a Pad of more than 8 axes");
  PadAxes<I> p;
  p.rank = static_cast<int>(axes.size());
  p.mode = mode;
  for (size_t d = 0; d < axes.size(); ++d) {
    p.size[d] = Divider<I>(axes[d].n + axes[d].begin + axes[d].end);
    p.axis[d] = {axes[d].n, axes[d].begin, axes[d].stride};
  }
  INFOPT_LAUNCH(stream, (pad_elements<T, I>), {grid_for(count, kThreads)}, {kThreads}, 0, reinterpret_cast<const T*>(x), reinterpret_cast<T*>(y), static_cast<I>(count), p, value,
                static_cast<int>(bytes));
}

/// `value`: one element in the device's memory, or undefined for zero.
void pad(CudaContext& c, const std::vector<int64_t>& pads, std::vector<int64_t> axes, const Tensor& value, PadMode mode) {
  Layout layout;
  const Tensor& x = c.in_any(0, layout);
  const PadPlan plan = plan_pad(x.shape(), pads, std::move(axes), mode);
  if (value.defined() && value.size() != 1) malformed("Pad's constant should be one element");
  if (value.defined() && value.dtype() != x.dtype()) malformed("Pad's constant is " + std::string(name_of(value.dtype())) + ", its input " + std::string(name_of(x.dtype())));
  const size_t bytes = element_bytes(x.dtype());
  const Shape strides = strides_in(x.shape(), layout);
  int64_t offset = 0;
  for (size_t d = 0; d < strides.size(); ++d) offset += plan.kept[d] ? plan.cut[d] * strides[d] : 0;
  if (plan.shape == plan.kept) return c.set(0, read_box(c, x, plan.kept, offset, strides, layout), layout);
  Tensor& y = c.out(0, x.dtype(), plan.shape, layout);
  if (y.size() == 0) return;
  std::vector<Axis> memory = axes_in_memory(x.shape(), plan, layout);
  const std::byte* from = x.raw() + offset * static_cast<int64_t>(bytes);
  const size_t wide = widen(memory, bytes, from);
  const int64_t count = y.size() / static_cast<int64_t>(wide / bytes);
  with_element(wide, [&](auto zero) {
    using T = decltype(zero);
    with_index(count, [&](auto index) { launch<T, decltype(index)>(c.stream(), memory, mode, from, y.mutable_raw(), count, value.defined() ? value.raw() : nullptr, bytes); });
  });
}

std::unique_ptr<Kernel> pad_attributes(const KernelSpec& spec) {
  const PadMode mode = pad_mode(spec.node.s("mode", "constant"));
  const std::vector<int64_t> pads = spec.node.ints("pads");
  const float value = spec.node.f("value", 0);
  const DType type = declared_type(spec, 0);
  need_whole_bytes(spec, {0});
  if (type == DType::Undefined && value != 0) unsupported("a Pad of a type that isn't known");
  const auto constant = std::make_shared<OnDevice>(value != 0 ? cast(Tensor::scalar(value), type) : Tensor());
  return make_cuda_kernel(
      [=](CudaContext& c) { pad(c, pads, all_axes(c.in(0).rank()), constant->defined() ? constant->get(c.run()) : Tensor(), mode); }, "one element a thread");
}

std::unique_ptr<Kernel> pad_inputs(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  const PadMode mode = pad_mode(spec.node.s("mode", "constant"));
  return make_cuda_kernel(
      [mode](CudaContext& c) {
        Layout layout;
        const std::vector<int64_t> axes = c.has(3) ? integers(c.host(3)) : all_axes(c.in_any(0, layout).rank());
        const Tensor value = c.has(2) ? c.in(2) : Tensor();
        pad(c, integers(c.host(1)), axes, value.size() > 0 ? value : Tensor(), mode);
      },
      "one element a thread");
}

std::unique_ptr<Kernel> center_crop_pad(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  return make_cuda_kernel(
      [given = spec.node.ints("axes"), whole = spec.node.find("axes") == nullptr](CudaContext& c) {
        Layout layout;
        const Tensor& x = c.in_any(0, layout);
        const std::vector<int64_t> axes = whole ? all_axes(x.rank()) : normal_axes(given, x.rank());
        pad(c, center_pads(x.shape(), axes, integers(c.host(1))), axes, {}, PadMode::Constant);
      },
      "one element a thread");
}

}  // namespace

std::vector<CudaOp> cuda_pad() {
  return {{.name = "Pad", .since = 2, .until = 10, .make = &pad_attributes}, {.name = "Pad", .since = 11, .make = &pad_inputs}, {.name = "CenterCropPad", .make = &center_crop_pad}};
}

}  // namespace infopt::cuda

// Pad: constant, reflect, edge and wrap, with negative pads, which crop first. CenterCropPad, which is such a Pad.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"
#include "lib/ops/pad.h"

namespace infopt {
namespace {

/// Where element i - begin of an axis of length n is read; -1 for the constant.
std::vector<int64_t> source_of(int64_t n, int64_t begin, int64_t end, PadMode mode) {
  std::vector<int64_t> from(at(n + begin + end), -1);
  if (n == 0) return from;
  const int64_t period = std::max<int64_t>(1, 2 * (n - 1));
  for (int64_t i = 0; i < static_cast<int64_t>(from.size()); ++i) {
    int64_t p = i - begin;
    if (p < 0 || p >= n) {
      if (mode == PadMode::Constant) continue;
      if (mode == PadMode::Edge) p = std::clamp<int64_t>(p, 0, n - 1);
      if (mode == PadMode::Wrap) p = ((p % n) + n) % n;
      if (mode == PadMode::Reflect) {
        p = ((p % period) + period) % period;
        if (p >= n) p = period - p;
      }
    }
    from[at(i)] = p;
  }
  return from;
}

class Padder {
 public:
  Padder(const Tensor& x, const Tensor& value, const std::vector<int64_t>& begins, const std::vector<int64_t>& ends, PadMode mode)
      : size_(element_bytes(x.dtype())), x_(x), value_(value), begins_(begins) {
    Shape shape;
    for (size_t i = 0; i < begins.size(); ++i) shape.push_back(x.shape()[i] + begins[i] + ends[i]);
    y_ = Tensor(x.dtype(), shape);
    if (y_.size() == 0) return;
    for (size_t i = 0; i < begins.size(); ++i) from_.push_back(source_of(x.shape()[i], begins[i], ends[i], mode));
    in_ = row_major_strides(x.shape());
    out_ = row_major_strides(shape);
    whole_.assign(begins.size() + 1, true);
    for (size_t i = begins.size(); i-- > 0;) whole_[i] = whole_[i + 1] && begins[i] == 0 && ends[i] == 0;
    copy(0, 0, 0);
  }
  Tensor result() const { return y_; }

 private:
  std::byte* to(int64_t element) { return y_.mutable_raw() + size_ * at(element); }
  const std::byte* from(int64_t element) const { return x_.raw() + size_ * at(element); }

  void copy(size_t axis, int64_t out, int64_t in) {
    if (whole_[axis]) {
      std::memcpy(to(out), from(in), size_ * at(product(x_.shape(), axis, begins_.size())));
      return;
    }
    const std::vector<int64_t>& map = from_[axis];
    const auto n = static_cast<int64_t>(map.size());
    if (axis + 1 == begins_.size()) return copy_row(map, begins_[axis], x_.shape()[axis], out, in);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t source = map[at(i)];
      if (source < 0) fill_elements(size_, to(out + i * out_[axis]), value_.raw(), out_[axis]);
      else copy(axis + 1, out + i * out_[axis], in + source * in_[axis]);
    }
  }
  void copy_row(const std::vector<int64_t>& map, int64_t begin, int64_t n, int64_t out, int64_t in) {
    const auto border = [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) std::memcpy(to(out + i), map[at(i)] < 0 ? value_.raw() : from(in + map[at(i)]), size_);
    };
    border(0, begin);
    if (n) std::memcpy(to(out + begin), from(in), size_ * at(n));
    border(begin + n, static_cast<int64_t>(map.size()));
  }

  size_t size_;
  const Tensor &x_, &value_;
  const std::vector<int64_t>& begins_;
  Tensor y_;
  std::vector<std::vector<int64_t>> from_;
  Shape in_, out_;
  std::vector<bool> whole_;  ///< from this axis on nothing is padded
};

Tensor padded(Tensor x, const Tensor& value, const PadPlan& plan, PadMode mode) {
  const Shape strides = row_major_strides(x.shape());
  int64_t offset = 0;
  for (size_t i = 0; i < strides.size(); ++i) offset += plan.kept[i] ? plan.cut[i] * strides[i] : 0;
  if (plan.kept != x.shape()) x = gather_strided(x, plan.kept, offset, strides);
  if (x.rank() == 0) return x;
  return Padder(x, value, plan.begin, plan.end, mode).result();
}

void pad(KernelContext& c, const std::vector<int64_t>& pads, std::vector<int64_t> axes, const Tensor& value, PadMode mode) {
  const Tensor& x = c.in(0);
  const PadPlan plan = plan_pad(x.shape(), pads, std::move(axes), mode);
  if (value.size() != 1) malformed("Pad's constant should be one element");
  c.set(0, move_elements({x, value}, [&](const std::vector<Tensor>& in) { return padded(in[0], in[1], plan, mode); }));
}

std::unique_ptr<Kernel> pad_attributes(const KernelSpec& spec) {
  const PadMode mode = pad_mode(spec.node.s("mode", "constant"));
  const std::vector<int64_t> pads = spec.node.ints("pads");
  const float value = spec.node.f("value", 0);
  return make_kernel([=](KernelContext& c) {
    const Tensor& x = c.in(0);
    pad(c, pads, all_axes(x.rank()), cast(Tensor::scalar(value), x.dtype()), mode);
  });
}

std::unique_ptr<Kernel> pad_inputs(const KernelSpec& spec) {
  const PadMode mode = pad_mode(spec.node.s("mode", "constant"));
  return make_kernel([mode](KernelContext& c) {
    const Tensor& x = c.in(0);
    const bool given = c.inputs() > 2 && c.has(2) && c.in(2).size() > 0;
    const std::vector<int64_t> axes = c.inputs() > 3 && c.has(3) ? integers(c.in(3)) : all_axes(x.rank());
    pad(c, integers(c.in(1)), axes, given ? c.in(2) : Tensor::zeros(x.dtype(), {}), mode);
  });
}

std::unique_ptr<Kernel> center_crop_pad(const KernelSpec& spec) {
  const Node& node = spec.node;
  return make_kernel([given = node.ints("axes"), whole = node.find("axes") == nullptr](KernelContext& c) {
    const Tensor& x = c.in(0);
    const std::vector<int64_t> axes = whole ? all_axes(x.rank()) : normal_axes(given, x.rank()), target = integers(c.in(1));
    pad(c, center_pads(x.shape(), axes, target), axes, Tensor::zeros(x.dtype(), {}), PadMode::Constant);
  });
}

}  // namespace

PadMode pad_mode(const std::string& name) {
  if (name == "constant") return PadMode::Constant;
  if (name == "reflect") return PadMode::Reflect;
  if (name == "edge") return PadMode::Edge;
  if (name == "wrap") return PadMode::Wrap;
  malformed("Pad has no mode '" + name + "'");
}

std::vector<int64_t> all_axes(int64_t rank) {
  std::vector<int64_t> axes(at(rank));
  std::iota(axes.begin(), axes.end(), 0);
  return axes;
}

PadPlan plan_pad(const Shape& shape, const std::vector<int64_t>& pads, std::vector<int64_t> axes, PadMode mode) {
  axes = normal_axes(std::move(axes), static_cast<int64_t>(shape.size()));
  if (pads.size() != 2 * axes.size())
    malformed("Pad has " + std::to_string(pads.size()) + " pads for " + std::to_string(axes.size()) + " axes");
  const Shape none(shape.size());
  PadPlan plan{none, shape, none, none, shape};
  for (size_t k = 0; k < axes.size(); ++k) {
    const int64_t begin = pads[k], end = pads[k + axes.size()];
    const size_t i = at(axes[k]);
    if (std::min(begin, end) < -(int64_t{1} << 62)) malformed("Pad removes more elements than there are");
    plan.cut[i] = std::max<int64_t>(0, -begin);
    const int64_t cut = plan.cut[i] + std::max<int64_t>(0, -end);
    if (cut > shape[i]) malformed("Pad removes more elements than a dimension of " + std::to_string(shape[i]) + " has");
    plan.kept[i] -= cut;
    plan.begin[i] = std::max<int64_t>(0, begin);
    plan.end[i] = std::max<int64_t>(0, end);
    if (__builtin_add_overflow(plan.kept[i], plan.begin[i], &plan.shape[i]) || __builtin_add_overflow(plan.shape[i], plan.end[i], &plan.shape[i]))
      malformed("Pad's output overflows 64 bits");
  }
  if (element_count(plan.shape) > 0 && mode != PadMode::Constant)
    for (const int64_t n : plan.kept)
      if (n == 0) malformed("Pad can't take elements from an empty axis");
  return plan;
}

/// Half of what is missing, rounded down, stands before the elements; half of what is too much is cut off before them.
std::vector<int64_t> center_pads(const Shape& shape, const std::vector<int64_t>& axes, const std::vector<int64_t>& target) {
  if (target.size() != axes.size())
    malformed("CenterCropPad's shape has " + std::to_string(target.size()) + " dimensions for " + std::to_string(axes.size()) + " axes");
  std::vector<int64_t> pads(2 * axes.size());
  for (size_t i = 0; i < axes.size(); ++i) {
    if (target[i] < 0) malformed("CenterCropPad's shape holds " + std::to_string(target[i]));
    const int64_t more = target[i] - shape[at(axes[i])];
    pads[i] = more / 2;
    pads[i + axes.size()] = more - more / 2;
  }
  return pads;
}

std::vector<OpDef> op_pad() {
  return {{.name = "Pad", .since = 2, .until = 10, .cpu = &pad_attributes}, {.name = "Pad", .since = 11, .cpu = &pad_inputs}, {.name = "CenterCropPad", .cpu = &center_crop_pad}};
}

}  // namespace infopt

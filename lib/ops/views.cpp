// Operators that keep the elements where they are: Identity, Reshape, Flatten, Squeeze, Unsqueeze; and Shape and Size.
#include <algorithm>

#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

std::unique_ptr<Kernel> identity(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    if (!c.is_tensor(0)) return c.set_datum(0, c.datum(0));
    Layout layout;
    const Tensor& x = c.in_any(0, layout);
    c.set(0, x, layout);
  });
}

std::unique_ptr<Kernel> shape(const KernelSpec& spec) {
  const int64_t start = spec.node.i("start", 0);
  const int64_t end = spec.node.i("end", std::numeric_limits<int64_t>::max());
  return make_kernel([start, end](KernelContext& c) {
    Layout layout;
    const Shape& dims = c.in_any(0, layout).shape();
    const auto rank = static_cast<int64_t>(dims.size());
    const auto place = [rank](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + rank : i, 0, rank); };
    const int64_t a = place(start), b = std::max(a, place(end));
    c.set(0, Tensor::vector(std::vector<int64_t>(dims.begin() + a, dims.begin() + b)));
  });
}

std::unique_ptr<Kernel> size(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    Layout layout;
    c.set(0, Tensor::scalar<int64_t>(c.in_any(0, layout).size()));
  });
}

Shape reshape_target(const Shape& from, int64_t count, std::vector<int64_t> to, bool allow_zero) {
  int64_t known = 1, unknown = -1;
  for (size_t i = 0; i < to.size(); ++i) {
    if (to[i] == 0 && !allow_zero) {
      if (i >= from.size()) malformed("Reshape copies dimension " + std::to_string(i) + " of a tensor of shape " + to_string(from));
      to[i] = from[i];
    }
    if (to[i] == -1 && unknown < 0) {
      unknown = static_cast<int64_t>(i);
      continue;
    }
    if (to[i] < 0) malformed("Reshape to " + to_string(to) + ": a negative dimension, or more than one to infer");
    if (__builtin_mul_overflow(known, to[i], &known)) malformed("the shape " + to_string(to) + " overflows 64 bits");
  }
  if (unknown >= 0) {
    if (known == 0 || count % known != 0) malformed("a tensor of shape " + to_string(from) + " can't be reshaped to " + to_string(to));
    to[at(unknown)] = count / known;
  }
  return to;
}

std::unique_ptr<Kernel> reshape(const KernelSpec& spec) {
  const bool allow_zero = spec.node.i("allowzero", 0) != 0;
  return make_kernel([allow_zero](KernelContext& c) {
    const Tensor& x = c.in(0);
    c.set(0, x.reshaped(reshape_target(x.shape(), x.size(), integers(c.in(1)), allow_zero)));
  });
}

std::unique_ptr<Kernel> flatten(const KernelSpec& spec) {
  const int64_t given = spec.node.i("axis", 1);
  return make_kernel([given](KernelContext& c) {
    const Tensor& x = c.in(0);
    const int64_t axis = given == x.rank() ? given : given == 0 ? 0 : normal_axis(given, x.rank());
    const size_t rank = x.shape().size();
    c.set(0, x.reshaped({product(x.shape(), 0, at(axis)), product(x.shape(), at(axis), rank)}));
  });
}

/// The axes attribute, or the second input where there is one.
std::vector<int64_t> axes_of(KernelContext& c, const std::vector<int64_t>& attribute) {
  return c.inputs() > 1 && c.has(1) ? integers(c.in(1)) : attribute;
}

std::unique_ptr<Kernel> squeeze(const KernelSpec& spec) {
  const std::vector<int64_t> attribute = spec.node.ints("axes");
  const bool given = spec.node.find("axes") != nullptr;
  return make_kernel([attribute, given](KernelContext& c) {
    const Tensor& x = c.in(0);
    const bool all = !given && !(c.inputs() > 1 && c.has(1));
    std::vector<bool> drop(x.shape().size());
    if (all) {
      for (size_t i = 0; i < drop.size(); ++i) drop[i] = x.shape()[i] == 1;
    } else {
      for (int64_t axis : axes_of(c, attribute)) {
        axis = normal_axis(axis, x.rank());
        if (x.dim(axis) != 1) malformed("Squeeze of axis " + std::to_string(axis) + " of a tensor of shape " + to_string(x.shape()));
        drop[at(axis)] = true;
      }
    }
    Shape y;
    for (size_t i = 0; i < drop.size(); ++i)
      if (!drop[i]) y.push_back(x.shape()[i]);
    c.set(0, x.reshaped(y));
  });
}

std::unique_ptr<Kernel> unsqueeze(const KernelSpec& spec) {
  const std::vector<int64_t> attribute = spec.node.ints("axes");
  return make_kernel([attribute](KernelContext& c) {
    const Tensor& x = c.in(0);
    const std::vector<int64_t> given = axes_of(c, attribute);
    const int64_t rank = x.rank() + static_cast<int64_t>(given.size());
    std::vector<int64_t> axes = normal_axes(given, rank);
    std::sort(axes.begin(), axes.end());
    Shape y = x.shape();
    for (int64_t axis : axes) y.insert(y.begin() + axis, 1);
    c.set(0, x.reshaped(y));
  });
}

}  // namespace

std::vector<OpDef> op_views() {
  return {{.name = "Identity", .cpu = &identity},           {.name = "Shape", .cpu = &shape},     {.name = "Size", .cpu = &size},
          {.name = "Reshape", .since = 5, .cpu = &reshape}, {.name = "Flatten", .cpu = &flatten}, {.name = "Squeeze", .cpu = &squeeze},
          {.name = "Unsqueeze", .cpu = &unsqueeze}};
}

}  // namespace infopt

// Slice, Expand, Tile and Trilu: boxes read with strides.
#include <algorithm>
#include <numeric>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

struct Range {
  int64_t first, step, count;
};

/// NumPy's rules for start:end:step on a dimension of n; anything out of range is clamped.
Range clamp_range(int64_t start, int64_t end, int64_t step, int64_t n) {
  if (step == 0) malformed("a Slice with step 0");
  step = std::clamp(step, -n - 1, n + 1);
  if (start < 0) start += n;
  if (end < 0) end += n;
  if (step > 0) {
    start = std::clamp<int64_t>(start, 0, n);
    end = std::clamp<int64_t>(end, 0, n);
    return {start, step, end > start ? (end - start + step - 1) / step : 0};
  }
  start = std::clamp<int64_t>(start, -1, n - 1);
  end = std::clamp<int64_t>(end, -1, n - 1);
  return {start, step, start > end ? (start - end - step - 1) / -step : 0};
}

struct Bounds {
  std::vector<int64_t> starts, ends, axes, steps;
};

void slice_by(KernelContext& c, Bounds b) {
  const Tensor& x = c.in(0);
  const size_t n = b.starts.size();
  if (b.axes.empty()) {
    b.axes.resize(n);
    std::iota(b.axes.begin(), b.axes.end(), 0);
  }
  if (b.steps.empty()) b.steps.assign(n, 1);
  if (b.ends.size() != n || b.axes.size() != n || b.steps.size() != n) malformed("Slice's starts, ends, axes and steps differ in length");
  b.axes = normal_axes(b.axes, x.rank());
  Shape shape = x.shape(), strides = row_major_strides(x.shape());
  int64_t offset = 0;
  bool whole = true;
  for (size_t i = 0; i < n; ++i) {
    const size_t axis = at(b.axes[i]);
    const Range r = clamp_range(b.starts[i], b.ends[i], b.steps[i], shape[axis]);
    whole = whole && r.count == shape[axis] && r.step == 1;
    shape[axis] = r.count;
    offset += r.count ? r.first * strides[axis] : 0;
    strides[axis] *= r.step;
  }
  if (whole) return c.set(0, x);
  c.set(0, move_elements({x}, [&](const std::vector<Tensor>& in) { return gather_strided(in[0], shape, offset, strides); }));
}

std::unique_ptr<Kernel> slice_attributes(const KernelSpec& spec) {
  const Bounds b{spec.node.ints("starts"), spec.node.ints("ends"), spec.node.ints("axes"), {}};
  return make_kernel([b](KernelContext& c) { slice_by(c, b); });
}

std::unique_ptr<Kernel> slice_inputs(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    const auto optional = [&](size_t i) { return c.inputs() > i && c.has(i) ? integers(c.in(i)) : std::vector<int64_t>{}; };
    slice_by(c, {integers(c.in(1)), integers(c.in(2)), optional(3), optional(4)});
  });
}

std::unique_ptr<Kernel> expand(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    const Tensor& x = c.in(0);
    const std::vector<int64_t> to = integers(c.in(1));
    const size_t rank = std::max(to.size(), x.shape().size());
    Shape from = x.shape(), shape(rank, 1);
    from.insert(from.begin(), rank - from.size(), 1);
    std::copy(to.begin(), to.end(), shape.end() - static_cast<ptrdiff_t>(to.size()));
    Shape strides = row_major_strides(from);
    for (size_t i = 0; i < rank; ++i) {
      if (from[i] == shape[i]) continue;
      if (from[i] != 1 && shape[i] != 1) malformed("Expand of shape " + to_string(x.shape()) + " to " + to_string(to));
      if (shape[i] == 1) shape[i] = from[i];
      else strides[i] = 0;
    }
    if (shape == from) return c.set(0, x.reshaped(shape));
    c.set(0, move_elements({x}, [&](const std::vector<Tensor>& in) { return gather_strided(in[0], shape, 0, strides); }));
  });
}

std::unique_ptr<Kernel> tile(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    const Tensor& x = c.in(0);
    const std::vector<int64_t> repeats = integers(c.in(1));
    if (static_cast<int64_t>(repeats.size()) != x.rank()) malformed("Tile of shape " + to_string(x.shape()) + " by " + to_string(repeats));
    const Shape strides = row_major_strides(x.shape());
    Shape box, from, shape;
    for (size_t i = 0; i < repeats.size(); ++i) {
      box.insert(box.end(), {repeats[i], x.shape()[i]});
      from.insert(from.end(), {0, strides[i]});
      int64_t n = 0;
      if (repeats[i] < 0 || __builtin_mul_overflow(repeats[i], x.shape()[i], &n)) malformed("Tile by " + to_string(repeats));
      shape.push_back(n);
    }
    c.set(0, move_elements({x}, [&](const std::vector<Tensor>& in) { return gather_strided(in[0], box, 0, from); }).reshaped(shape));
  });
}

Tensor triangle(const Tensor& x, const Tensor& zero, bool upper, int64_t k) {
  const size_t size = element_bytes(x.dtype());
  const int64_t rows = x.dim(-2), columns = x.dim(-1);
  k = std::clamp(k, -rows - 1, columns + 1);
  Tensor y = x.clone();
  const int64_t matrices = x.size() ? x.size() / (rows * columns) : 0;
  for (int64_t m = 0; m < matrices; ++m) {
    for (int64_t r = 0; r < rows; ++r) {
      std::byte* row = y.mutable_raw() + size * at((m * rows + r) * columns);
      const int64_t edge = std::clamp<int64_t>(upper ? r + k : r + k + 1, 0, columns);
      if (upper) fill_elements(size, row, zero.raw(), edge);
      else fill_elements(size, row + size * at(edge), zero.raw(), columns - edge);
    }
  }
  return y;
}

std::unique_ptr<Kernel> trilu(const KernelSpec& spec) {
  const bool upper = spec.node.i("upper", 1) != 0;
  return make_kernel([upper](KernelContext& c) {
    const Tensor& x = c.in(0);
    if (x.rank() < 2) malformed("Trilu of a tensor of shape " + to_string(x.shape()));
    const int64_t k = c.inputs() > 1 && c.has(1) ? to_scalar<int64_t>(c.in(1)) : 0;
    c.set(0, move_elements({x, Tensor::zeros(x.dtype(), {})},
                           [&](const std::vector<Tensor>& in) { return triangle(in[0], in[1], upper, k); }));
  });
}

}  // namespace

std::vector<OpDef> op_slice() {
  return {{.name = "Slice", .until = 9, .cpu = &slice_attributes},
          {.name = "Slice", .since = 10, .cpu = &slice_inputs},
          {.name = "Expand", .since = 8, .cpu = &expand},
          {.name = "Tile", .since = 6, .cpu = &tile},
          {.name = "Trilu", .since = 14, .cpu = &trilu}};
}

}  // namespace infopt

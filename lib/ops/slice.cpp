// Slice, Expand, Tile and Trilu: boxes read with strides.
#include <algorithm>
#include <numeric>

#include "lib/base/strided.h"
#include "lib/ops/boxes.h"
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

void slice_by(KernelContext& c, SliceBounds bounds) {
  const Tensor& x = c.in(0);
  const Box box = slice_box(x.shape(), row_major_strides(x.shape()), std::move(bounds));
  if (box.whole) return c.set(0, x);
  c.set(0, move_elements({x}, [&](const std::vector<Tensor>& in) { return gather_strided(in[0], box.shape, box.offset, box.strides); }));
}

std::unique_ptr<Kernel> slice_attributes(const KernelSpec& spec) {
  const SliceBounds b{spec.node.ints("starts"), spec.node.ints("ends"), spec.node.ints("axes"), {}};
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
    const Box box = expand_box(x.shape(), row_major_strides(x.shape()), integers(c.in(1)));
    if (box.whole) return c.set(0, x.reshaped(box.shape));
    c.set(0, move_elements({x}, [&](const std::vector<Tensor>& in) { return gather_strided(in[0], box.shape, 0, box.strides); }));
  });
}

std::unique_ptr<Kernel> tile(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    const Tensor& x = c.in(0);
    Shape shape;
    const Box box = tile_box(x.shape(), row_major_strides(x.shape()), integers(c.in(1)), shape);
    c.set(0, move_elements({x}, [&](const std::vector<Tensor>& in) { return gather_strided(in[0], box.shape, 0, box.strides); }).reshaped(shape));
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

Box slice_box(const Shape& shape, const Shape& strides, SliceBounds b) {
  const size_t n = b.starts.size();
  if (b.axes.empty()) {
    b.axes.resize(n);
    std::iota(b.axes.begin(), b.axes.end(), 0);
  }
  if (b.steps.empty()) b.steps.assign(n, 1);
  if (b.ends.size() != n || b.axes.size() != n || b.steps.size() != n) malformed("Slice's starts, ends, axes and steps differ in length");
  b.axes = normal_axes(b.axes, static_cast<int64_t>(shape.size()));
  Box box{shape, 0, strides, true};
  for (size_t i = 0; i < n; ++i) {
    const size_t axis = at(b.axes[i]);
    const Range r = clamp_range(b.starts[i], b.ends[i], b.steps[i], shape[axis]);
    box.whole = box.whole && r.count == shape[axis] && r.step == 1;
    box.shape[axis] = r.count;
    box.offset += r.count ? r.first * strides[axis] : 0;
    box.strides[axis] *= r.step;
  }
  return box;
}

Box expand_box(const Shape& given, const Shape& given_strides, const std::vector<int64_t>& to) {
  const size_t rank = std::max(to.size(), given.size());
  Shape from = given;
  from.insert(from.begin(), rank - from.size(), 1);
  Box box{Shape(rank, 1), 0, given_strides, false};
  box.strides.insert(box.strides.begin(), rank - given.size(), 0);
  std::copy(to.begin(), to.end(), box.shape.end() - static_cast<ptrdiff_t>(to.size()));
  for (size_t i = 0; i < rank; ++i) {
    if (from[i] == box.shape[i]) continue;
    if (from[i] != 1 && box.shape[i] != 1) malformed("Expand of shape " + to_string(given) + " to " + to_string(to));
    if (box.shape[i] == 1) box.shape[i] = from[i];
    else box.strides[i] = 0;
  }
  box.whole = box.shape == from;
  return box;
}

Box tile_box(const Shape& given, const Shape& strides, const std::vector<int64_t>& repeats, Shape& result) {
  if (repeats.size() != given.size()) malformed("Tile of shape " + to_string(given) + " by " + to_string(repeats));
  Box box;
  result.clear();
  for (size_t i = 0; i < repeats.size(); ++i) {
    box.shape.insert(box.shape.end(), {repeats[i], given[i]});
    box.strides.insert(box.strides.end(), {0, strides[i]});
    int64_t n = 0;
    if (repeats[i] < 0 || __builtin_mul_overflow(repeats[i], given[i], &n)) malformed("Tile by " + to_string(repeats));
    result.push_back(n);
  }
  return box;
}

std::vector<OpDef> op_slice() {
  return {{.name = "Slice", .until = 9, .cpu = &slice_attributes},
          {.name = "Slice", .since = 10, .cpu = &slice_inputs},
          {.name = "Expand", .since = 8, .cpu = &expand},
          {.name = "Tile", .since = 6, .cpu = &tile},
          {.name = "Trilu", .since = 14, .cpu = &trilu}};
}

}  // namespace infopt

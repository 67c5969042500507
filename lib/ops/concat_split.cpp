// Concat and Split. Both work in either layout: along a logical axis that lies elsewhere in memory.
#include "lib/ops/concat_split.h"

#include <cstring>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

/// Concatenates along an axis of memory, in y of the shape that lies there. The shapes agree elsewhere.
void concatenate(const std::vector<Tensor>& parts, const Shape& shape, size_t axis, Tensor& y) {
  const size_t size = element_bytes(parts[0].dtype());
  const size_t inner = size * at(product(shape, axis + 1, shape.size()));
  const int64_t outer = product(shape, 0, axis);
  const size_t row = inner * at(shape[axis]);
  if (y.size() == 0) return;
  size_t place = 0;
  for (const Tensor& part : parts) {
    if (part.size() == 0) continue;
    const size_t run = part.bytes() / at(outer);
    if (run <= 64 && outer > 1) {
      const auto n = static_cast<int64_t>(run / size);
      copy_strided(size, {outer, n}, y.mutable_raw() + place, {static_cast<int64_t>(row / size), 1}, part.raw(), {n, 1});
    } else {
      for (int64_t o = 0; o < outer; ++o) std::memcpy(y.mutable_raw() + place + at(o) * row, part.raw() + at(o) * run, run);
    }
    place += run;
  }
}

Tensor concatenated(const std::vector<Tensor>& parts, const Shape& shape, size_t axis) {
  Tensor y(parts[0].dtype(), shape);
  concatenate(parts, shape, axis, y);
  return y;
}

std::unique_ptr<Kernel> concat(const KernelSpec& spec) {
  if (spec.opset >= 4 && !spec.node.find("axis")) malformed("Concat needs its axis");
  const int64_t given = spec.node.i("axis", 1);
  return make_kernel([given](KernelContext& c) {
    if (c.inputs() == 0) malformed("Concat without an input");
    Layout common = Layout::ChannelsLast;
    for (size_t i = 0; i < c.inputs(); ++i) {
      Layout layout;
      c.in_any(i, layout);
      if (layout == Layout::Plain) common = Layout::Plain;
    }
    std::vector<Tensor> parts;
    for (size_t i = 0; i < c.inputs(); ++i) {
      Layout layout;
      parts.push_back(common == Layout::Plain ? c.in(i) : c.in_any(i, layout));
    }
    const int64_t rank = parts[0].rank(), axis = normal_axis(given, rank);
    const Shape shape = concat_shape(parts, at(axis));
    const size_t place = at(memory_axis(axis, rank, common));
    if (bits_of(parts[0].dtype()) >= 8 && std::all_of(parts.begin(), parts.end(), [&](const Tensor& p) { return p.dtype() == parts[0].dtype(); })) {
      concatenate(parts, memory_shape(shape, common), place, c.out(0, parts[0].dtype(), shape, common));
      return;
    }
    const Tensor y =
        move_elements(parts, [&](const std::vector<Tensor>& in) { return concatenated(in, memory_shape(shape, common), place); });
    c.set(0, y.reshaped(shape), common);
  });
}

Tensor dense_part(const Tensor& x, size_t axis, int64_t begin, int64_t count) {
  Shape shape = x.shape();
  shape[axis] = count;
  const Shape strides = row_major_strides(x.shape());
  return gather_strided(x, shape, begin * strides[axis], strides);
}

std::unique_ptr<Kernel> split(const KernelSpec& spec) {
  const int64_t given_axis = spec.node.i("axis", 0);
  const std::vector<int64_t> attribute = spec.node.ints("split");
  const auto parts = static_cast<int64_t>(spec.node.outputs.size());
  const bool even_only = spec.opset < 18;
  const int64_t declared = spec.node.i("num_outputs", parts);
  if (parts == 0 || declared != parts)
    malformed("Split's num_outputs is " + std::to_string(declared) + " for " + std::to_string(parts) + " outputs");
  return make_kernel([=](KernelContext& c) {
    const std::vector<int64_t> given = c.inputs() > 1 && c.has(1) ? integers(c.in(1)) : attribute;
    Layout layout;
    const Tensor& x = c.in_any(0, layout);
    const int64_t axis = normal_axis(given_axis, x.rank());
    const std::vector<int64_t> sizes = split_sizes(x.dim(axis), given, parts, even_only);
    const Tensor lying = x.reshaped(memory_shape(x.shape(), layout));
    const size_t place = at(memory_axis(axis, x.rank(), layout));
    int64_t begin = 0;
    for (size_t k = 0; k < sizes.size(); ++k) {
      Shape shape = x.shape();
      shape[at(axis)] = sizes[k];
      if (c.wanted(k)) {
        const auto take = [&](const std::vector<Tensor>& in) { return dense_part(in[0], place, begin, sizes[k]); };
        c.set(k, move_elements({lying}, take).reshaped(shape), layout);
      }
      begin += sizes[k];
    }
  });
}

}  // namespace

Shape memory_shape(const Shape& shape, Layout layout) {
  if (layout == Layout::Plain) return shape;
  Shape m(shape.begin(), shape.end());
  m.erase(m.begin() + 1);
  m.push_back(shape[1]);
  return m;
}

int64_t memory_axis(int64_t axis, int64_t rank, Layout layout) {
  if (layout == Layout::Plain || axis == 0) return axis;
  return axis == 1 ? rank - 1 : axis - 1;
}

Shape concat_shape(const std::vector<Tensor>& parts, size_t axis) {
  Shape shape = parts[0].shape();
  for (size_t k = 1; k < parts.size(); ++k) {
    const Shape& s = parts[k].shape();
    bool fits = s.size() == shape.size();
    for (size_t d = 0; fits && d < s.size(); ++d) fits = d == axis || s[d] == shape[d];
    if (!fits) malformed("Concat on axis " + std::to_string(axis) + " of shapes " + to_string(parts[0].shape()) + " and " + to_string(s));
    if (__builtin_add_overflow(shape[axis], s[axis], &shape[axis])) malformed("Concat's dimension overflows 64 bits");
  }
  return shape;
}

std::vector<int64_t> split_sizes(int64_t n, std::vector<int64_t> given, int64_t parts, bool even_only) {
  if (!given.empty()) {
    int64_t sum = 0;
    for (int64_t g : given)
      if (g < 0 || __builtin_add_overflow(sum, g, &sum)) malformed("Split into parts of " + to_string(given));
    if (sum != n || static_cast<int64_t>(given.size()) != parts)
      malformed("Split of a dimension of " + std::to_string(n) + " into " + to_string(given) + " for " + std::to_string(parts) +
                " outputs");
    return given;
  }
  if (even_only && n % parts) malformed("Split of a dimension of " + std::to_string(n) + " into " + std::to_string(parts) + " equal parts");
  const int64_t most = (n + parts - 1) / parts;
  for (int64_t k = 0; k < parts; ++k) {
    const int64_t left = n - std::min(n, k * most);
    given.push_back(std::min(most, left));
  }
  return given;
}

Tensor concat_tensors(const std::vector<Tensor>& parts, int64_t axis) {
  if (parts.empty()) malformed("nothing to concatenate");
  const size_t place = at(normal_axis(axis, parts[0].rank()));
  const Shape shape = concat_shape(parts, place);
  return move_elements(parts, [&](const std::vector<Tensor>& in) { return concatenated(in, shape, place); });
}

Tensor part_of(const Tensor& x, int64_t axis, int64_t begin, int64_t count) {
  return move_elements({x}, [&](const std::vector<Tensor>& in) { return dense_part(in[0], at(axis), begin, count); });
}

std::vector<OpDef> op_concat_split() { return {{.name = "Concat", .cpu = &concat}, {.name = "Split", .since = 2, .cpu = &split}}; }

}  // namespace infopt

// Gather, GatherElements, GatherND, Compress.
#include "lib/ops/gather.h"

#include <cstring>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

/// Copies the chosen entries (each in [0, dimension)) of an axis.
Tensor rows_of(const Tensor& x, size_t axis, const std::vector<int64_t>& rows, const Shape& shape) {
  const size_t size = element_bytes(x.dtype());
  Tensor y(x.dtype(), shape);
  if (y.size() == 0) return y;
  const int64_t outer = product(x.shape(), 0, axis), n = x.shape()[axis];
  const size_t run = size * at(product(x.shape(), axis + 1, x.shape().size()));
  std::byte* out = y.mutable_raw();
  for (int64_t o = 0; o < outer; ++o) {
    const std::byte* in = x.unaligned_bytes() + run * at(o * n);
    if (run == size) {
      with_block(size, [&](auto block) {
        using T = decltype(block);
        auto* to = reinterpret_cast<T*>(out);
        const auto* from = reinterpret_cast<const T*>(in);
        for (size_t i = 0; i < rows.size(); ++i) to[i] = from[rows[i]];
      });
      out += size * rows.size();
      continue;
    }
    for (const int64_t row : rows) {
      std::memcpy(out, in + run * at(row), run);
      out += run;
    }
  }
  return y;
}

std::unique_ptr<Kernel> gather(const KernelSpec& spec) {
  const int64_t given = spec.node.i("axis", 0);
  return make_kernel([given](KernelContext& c) {
    const Tensor &x = c.in(0), &indices = c.in(1);
    const int64_t axis = normal_axis(given, x.rank());
    std::vector<int64_t> rows = integers(indices);
    for (int64_t& row : rows) row = normal_index(row, x.dim(axis));
    Shape shape = x.shape();
    shape.erase(shape.begin() + axis);
    shape.insert(shape.begin() + axis, indices.shape().begin(), indices.shape().end());
    c.set(0, move_elements({x}, [&](const std::vector<Tensor>& in) { return rows_of(in[0], at(axis), rows, shape); }));
  });
}

/// Elements of x at the given flat places.
Tensor elements_at(const Tensor& x, const std::vector<int64_t>& places, const Shape& shape) {
  Tensor y(x.dtype(), shape);
  with_block(element_bytes(x.dtype()), [&](auto block) {
    using T = decltype(block);
    auto* to = reinterpret_cast<T*>(y.mutable_raw());
    const auto* from = reinterpret_cast<const T*>(x.raw());
    for (size_t i = 0; i < places.size(); ++i) to[i] = from[places[i]];
  });
  return y;
}

std::unique_ptr<Kernel> gather_elements(const KernelSpec& spec) {
  const int64_t given = spec.node.i("axis", 0);
  return make_kernel([given](KernelContext& c) {
    const Tensor &x = c.in(0), &indices = c.in(1);
    const int64_t axis = normal_axis(given, x.rank());
    const std::vector<int64_t> places = element_places(x.shape(), indices, axis);
    c.set(0, move_elements({x}, [&](const std::vector<Tensor>& in) { return elements_at(in[0], places, indices.shape()); }));
  });
}

std::unique_ptr<Kernel> gather_nd(const KernelSpec& spec) {
  const int64_t batch_dims = spec.node.i("batch_dims", 0);
  return make_kernel([batch_dims](KernelContext& c) {
    const Tensor &x = c.in(0), &indices = c.in(1);
    if (indices.rank() < 1 || batch_dims < 0 || batch_dims >= std::min(x.rank(), indices.rank()))
      malformed("GatherND with batch_dims " + std::to_string(batch_dims));
    const NdPlaces p = nd_places(x.shape(), indices, at(batch_dims));
    const Shape slice(x.shape().begin() + static_cast<ptrdiff_t>(p.depth), x.shape().end());
    Shape shape(indices.shape().begin(), indices.shape().end() - 1);
    shape.insert(shape.end(), slice.begin(), slice.end());
    const Tensor rows = x.reshaped({x.size() / std::max<int64_t>(1, p.slice), p.slice});
    c.set(0, move_elements({rows}, [&](const std::vector<Tensor>& in) { return rows_of(in[0], 0, p.rows, shape); }));
  });
}

std::unique_ptr<Kernel> compress(const KernelSpec& spec) {
  const int64_t given = spec.node.i("axis", 0);
  const bool flat = spec.node.find("axis") == nullptr;
  return make_kernel([given, flat](KernelContext& c) {
    const Tensor x = flat ? c.in(0).reshaped({c.in(0).size()}) : c.in(0);
    const int64_t axis = flat ? 0 : normal_axis(given, x.rank());
    const std::vector<int64_t> keep = to_vector<int64_t>(c.in(1));
    if (static_cast<int64_t>(keep.size()) > x.dim(axis)) malformed("Compress has more conditions than there are entries");
    std::vector<int64_t> rows;
    for (size_t i = 0; i < keep.size(); ++i)
      if (keep[i]) rows.push_back(static_cast<int64_t>(i));
    Shape shape = x.shape();
    shape[at(axis)] = static_cast<int64_t>(rows.size());
    c.set(0, move_elements({x}, [&](const std::vector<Tensor>& in) { return rows_of(in[0], at(axis), rows, shape); }));
  });
}

}  // namespace

std::vector<int64_t> element_places(const Shape& data, const Tensor& indices, int64_t axis) {
  const Shape& box = indices.shape();
  if (box.size() != data.size()) malformed("the indices' shape " + to_string(box) + " has another rank than " + to_string(data));
  for (size_t d = 0; d < box.size(); ++d)
    if (d != at(axis) && box[d] > data[d]) malformed("the indices' shape " + to_string(box) + " goes beyond " + to_string(data));
  std::vector<int64_t> places = integers(indices);
  const Shape strides = row_major_strides(data);
  Shape at_index(box.size());
  int64_t base = 0;  // of all axes but `axis`
  for (int64_t& place : places) {
    place = base + normal_index(place, data[at(axis)]) * strides[at(axis)];
    for (size_t d = box.size(); d-- > 0;) {
      const int64_t step = d == at(axis) ? 0 : strides[d];
      base += step;
      if (++at_index[d] < box[d]) break;
      base -= step * box[d];
      at_index[d] = 0;
    }
  }
  return places;
}

NdPlaces nd_places(const Shape& data, const Tensor& indices, size_t batch_dims) {
  const Shape& shape = indices.shape();
  const int64_t width = shape.back();
  if (width < 0 || width > static_cast<int64_t>(data.size() - batch_dims))
    malformed("indices of shape " + to_string(shape) + " into a tensor of shape " + to_string(data));
  for (size_t d = 0; d < batch_dims; ++d)
    if (shape[d] != data[d]) malformed("the batch dimensions of " + to_string(shape) + " and " + to_string(data) + " differ");
  NdPlaces p;
  p.depth = batch_dims + at(width);
  p.slice = product(data, p.depth, data.size());
  const int64_t batches = product(shape, 0, batch_dims), tuples = product(shape, batch_dims, shape.size() - 1);
  const std::vector<int64_t> flat = integers(indices);
  p.rows.reserve(at(batches * tuples));
  const int64_t* tuple = flat.data();
  for (int64_t b = 0; b < batches; ++b) {
    for (int64_t t = 0; t < tuples; ++t) {
      int64_t row = b;
      for (size_t d = 0; d < at(width); ++d) row = row * data[batch_dims + d] + normal_index(tuple[d], data[batch_dims + d]);
      p.rows.push_back(row);
      tuple += width;
    }
  }
  return p;
}

std::vector<OpDef> op_gather() {
  return {{.name = "Gather", .cpu = &gather},
          {.name = "GatherElements", .since = 11, .cpu = &gather_elements},
          {.name = "GatherND", .since = 11, .cpu = &gather_nd},
          {.name = "Compress", .since = 9, .cpu = &compress}};
}

}  // namespace infopt

// Rare ones: BitCast, Det, Col2Im, TensorScatter.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

std::unique_ptr<Kernel> bit_cast(const KernelSpec& spec) {
  const int64_t to = spec.node.i("to", 0);
  if (to <= 0 || to >= kDTypeCount) malformed("BitCast to element type " + std::to_string(to));
  const auto dtype = static_cast<DType>(to);
  return make_kernel([dtype](KernelContext& c) {
    const Tensor& x = c.in(0);
    if (dtype == DType::String || bits_of(dtype) != bits_of(x.dtype()))
      malformed("BitCast of " + std::string(name_of(x.dtype())) + " to " + std::string(name_of(dtype)));
    Tensor& y = c.out(0, dtype, x.shape());
    std::copy_n(x.raw(), x.bytes(), y.mutable_raw());
    if (dtype == DType::Bool) {  // any other byte isn't a bool
      auto* p = reinterpret_cast<uint8_t*>(y.mutable_raw());
      std::transform(p, p + y.size(), p, [](uint8_t v) { return static_cast<uint8_t>(v != 0); });
    }
  });
}

/// Gaussian elimination with the largest pivot of each column.
double determinant(std::vector<double> a, size_t n) {
  double det = 1;
  for (size_t k = 0; k < n; ++k) {
    size_t pivot = k;
    for (size_t r = k + 1; r < n; ++r)
      if (std::abs(a[r * n + k]) > std::abs(a[pivot * n + k])) pivot = r;
    if (a[pivot * n + k] == 0) return 0;
    if (pivot != k) {
      std::swap_ranges(a.begin() + static_cast<ptrdiff_t>(k * n), a.begin() + static_cast<ptrdiff_t>((k + 1) * n),
                       a.begin() + static_cast<ptrdiff_t>(pivot * n));
      det = -det;
    }
    det *= a[k * n + k];
    for (size_t r = k + 1; r < n; ++r) {
      const double by = a[r * n + k] / a[k * n + k];
      for (size_t j = k; j < n; ++j) a[r * n + j] -= by * a[k * n + j];
    }
  }
  return det;
}

std::unique_ptr<Kernel> det(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    const Tensor& x = c.in(0);
    if (x.rank() < 2 || x.dim(-1) != x.dim(-2)) malformed("Det of a tensor of shape " + to_string(x.shape()));
    const std::vector<double> all = to_vector<double>(x);
    const size_t n = at(x.dim(-1));
    Tensor y(DType::F64, Shape(x.shape().begin(), x.shape().end() - 2));
    for (int64_t i = 0; i < y.size(); ++i) {
      const auto first = all.begin() + static_cast<ptrdiff_t>(at(i) * n * n);
      y.mutable_data<double>()[i] = determinant(std::vector<double>(first, first + static_cast<ptrdiff_t>(n * n)), n);
    }
    c.set(0, cast(y, x.dtype()));
  });
}

struct Columns {
  std::vector<int64_t> image, block, strides, dilations, pads, steps;  ///< steps: how often the block fits, by axis
};

/// Adds up to where the columns came from: x (batch, channels·block, steps), y (batch, channels, image).
template <class T>
void fold(const T* x, T* y, int64_t planes, const Columns& s) {
  const size_t dims = s.image.size();
  const int64_t block = std::accumulate(s.block.begin(), s.block.end(), int64_t{1}, std::multiplies<>());
  const int64_t steps = std::accumulate(s.steps.begin(), s.steps.end(), int64_t{1}, std::multiplies<>());
  const int64_t image = std::accumulate(s.image.begin(), s.image.end(), int64_t{1}, std::multiplies<>());
  for (int64_t p = 0; p < planes; ++p)
    for (int64_t b = 0; b < block; ++b)
      for (int64_t i = 0; i < steps; ++i) {
        int64_t rest_b = b, rest_i = i, place = 0, step = 1;
        bool inside = true;
        for (size_t d = dims; d-- > 0;) {
          const int64_t at_axis = rest_i % s.steps[d] * s.strides[d] - s.pads[d] + rest_b % s.block[d] * s.dilations[d];
          inside = inside && at_axis >= 0 && at_axis < s.image[d];
          place += at_axis * step;
          step *= s.image[d];
          rest_b /= s.block[d];
          rest_i /= s.steps[d];
        }
        if (inside) y[p * image + place] += x[(p * block + b) * steps + i];
      }
}

std::unique_ptr<Kernel> col2im(const KernelSpec& spec) {
  const std::vector<int64_t> strides = spec.node.ints("strides"), dilations = spec.node.ints("dilations"), pads = spec.node.ints("pads");
  return make_kernel([=](KernelContext& c) {
    const Tensor& x = c.in(0);
    Columns s{integers(c.in(1)), integers(c.in(2)), strides, dilations, pads, {}};
    const size_t dims = s.image.size();
    if (s.strides.empty()) s.strides.assign(dims, 1);
    if (s.dilations.empty()) s.dilations.assign(dims, 1);
    if (s.pads.empty()) s.pads.assign(2 * dims, 0);
    if (x.rank() != 3 || s.block.size() != dims || s.strides.size() != dims || s.dilations.size() != dims || s.pads.size() != 2 * dims)
      malformed("Col2Im's image, block, strides, dilations and pads don't fit a tensor of shape " + to_string(x.shape()));
    int64_t block = 1, steps = 1;
    const int64_t limit = int64_t{1} << 31;
    for (size_t d = 0; d < dims; ++d) {
      for (const int64_t v : {s.image[d], s.block[d], s.strides[d], s.dilations[d]})
        if (v < 1 || v > limit) malformed("Col2Im with a size of " + std::to_string(v));
      for (const int64_t v : {s.pads[d], s.pads[dims + d]})
        if (v < 0 || v > limit) malformed("Col2Im with a pad of " + std::to_string(v));
      const int64_t room = s.image[d] + s.pads[d] + s.pads[dims + d] - s.dilations[d] * (s.block[d] - 1) - 1;
      s.steps.push_back(room < 0 ? 0 : room / s.strides[d] + 1);
      if (__builtin_mul_overflow(block, s.block[d], &block) || __builtin_mul_overflow(steps, s.steps[d], &steps))
        malformed("Col2Im's sizes overflow 64 bits");
    }
    if (x.dim(1) % block || x.dim(2) != steps)
      malformed("Col2Im of shape " + to_string(x.shape()) + " to blocks of " + to_string(s.block) + ", " + to_string(s.steps) + " of them");
    Shape shape{x.dim(0), x.dim(1) / block};
    shape.insert(shape.end(), s.image.begin(), s.image.end());
    const bool is_double = x.dtype() == DType::F64 || (is_integer(x.dtype()) && bits_of(x.dtype()) > 16);
    const Tensor from = cast(x, is_double ? DType::F64 : DType::F32);
    Tensor y = Tensor::zeros(from.dtype(), shape);
    if (is_double) fold(from.data<double>(), y.mutable_data<double>(), shape[0] * shape[1], s);
    else fold(from.data<float>(), y.mutable_data<float>(), shape[0] * shape[1], s);
    c.set(0, cast(y, x.dtype()));
  });
}

std::unique_ptr<Kernel> tensor_scatter(const KernelSpec& spec) {
  const bool circular = spec.node.s("mode", "linear") == "circular";
  const int64_t given = spec.node.i("axis", -2);
  return make_kernel([circular, given](KernelContext& c) {
    const Tensor &cache = c.in(0), &update = c.in(1);
    const size_t axis = at(normal_axis(given, cache.rank()));
    Shape fits = cache.shape();
    if (update.rank() == cache.rank()) fits[axis] = update.shape()[axis];
    if (axis == 0 || update.shape() != fits || fits[axis] > cache.shape()[axis])
      malformed("TensorScatter of an update of shape " + to_string(update.shape()) + " into " + to_string(cache.shape()));
    const int64_t batch = cache.dim(0), most = cache.shape()[axis], length = fits[axis];
    const std::vector<int64_t> first = c.inputs() > 2 && c.has(2) ? integers(c.in(2)) : std::vector<int64_t>(at(batch));
    if (static_cast<int64_t>(first.size()) != batch)
      malformed("TensorScatter has " + std::to_string(first.size()) + " write indices for a batch of " + std::to_string(batch));
    const int64_t outer = product(cache.shape(), 1, axis), inner = product(cache.shape(), axis + 1, cache.shape().size());
    for (const int64_t f : first)
      if (f < 0 || f > (circular ? std::numeric_limits<int64_t>::max() - length : most - length))
        malformed("write index " + std::to_string(f) + " is out of range for a cache of " + std::to_string(most));
    c.set(0, move_elements({cache, update}, [&](const std::vector<Tensor>& in) {
            Tensor y = in[0].clone();
            const size_t run = element_bytes(y.dtype()) * at(inner);
            for (int64_t b = 0; b < batch; ++b)
              for (int64_t o = 0; o < outer; ++o)
                for (int64_t i = 0; i < length; ++i)
                  std::copy_n(in[1].raw() + run * at((b * outer + o) * length + i), run,
                              y.mutable_raw() + run * at((b * outer + o) * most + (first[at(b)] + i) % most));
            return y;
          }));
  });
}

}  // namespace

std::vector<OpDef> op_rearrange() {
  return {{.name = "BitCast", .since = 26, .cpu = &bit_cast},
          {.name = "Det", .since = 11, .cpu = &det},
          {.name = "Col2Im", .since = 18, .cpu = &col2im},
          {.name = "TensorScatter", .since = 24, .cpu = &tensor_scatter}};
}

}  // namespace infopt

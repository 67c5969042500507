#include "lib/runtime/cpu/int8_conv.h"

#include <gtest/gtest.h>

#include "lib/base/error.h"
#include "tests/runtime/int8_reference.h"

namespace infopt::cpu {
namespace {

struct Case {
  ConvGeometry geometry;
  std::vector<int64_t> in, kernel;
  int64_t images = 1, columns = 1, channels = 1;  ///< channels of a group; columns of all
};

std::string to_text(const Case& c) {
  std::string text = "in " + to_string(c.in) + " kernel " + to_string(c.kernel) + " strides " + to_string(c.geometry.strides) +
                     " dilations " + to_string(c.geometry.dilations) + " pads " + to_string(c.geometry.pads_begin) +
                     to_string(c.geometry.pads_end);
  return text + " images " + std::to_string(c.images) + " M " + std::to_string(c.columns) + " C/g " + std::to_string(c.channels) +
         " groups " + std::to_string(c.geometry.groups);
}

Tensor tensor_of(DType dtype, Shape shape, const std::vector<uint8_t>& bytes) {
  Tensor t(dtype, std::move(shape));
  if (t.bytes() != bytes.size()) throw std::logic_error("size");
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<uint8_t*>(t.mutable_raw()));
  return t;
}

/// Calls f with every index of a box in row-major order.
template <class F>
void each_index(const std::vector<int64_t>& box, F f) {
  std::vector<int64_t> index(box.size(), 0);
  for (;;) {
    f(index);
    size_t d = box.size();
    while (d > 0 && ++index[d - 1] == box[d - 1]) index[--d] = 0;
    if (d == 0) return;
  }
}

struct Operands {
  DType src_dtype, w_dtype;
  int32_t zero;
  std::vector<int32_t> w_zeros;
  std::vector<uint8_t> src, weights;
};

/// Σ (a − za)(w − zw) of one output by ONNX's definition of Conv; places outside of the image contribute nothing.
int64_t sum_at(const Case& c, const Operands& o, int64_t image, const std::vector<int64_t>& out, int64_t m) {
  const int64_t all_channels = c.channels * c.geometry.groups, group = m / (c.columns / c.geometry.groups);
  int64_t sum = 0, tap = 0, taps = 1;
  for (const int64_t k : c.kernel) taps *= k;
  each_index(c.kernel, [&](const std::vector<int64_t>& k) {
    int64_t pixel = image;
    bool inside = true;
    for (size_t d = 0; d < k.size(); ++d) {
      const int64_t at = out[d] * c.geometry.strides[d] - c.geometry.pads_begin[d] + k[d] * c.geometry.dilations[d];
      inside = inside && at >= 0 && at < c.in[d];
      pixel = pixel * c.in[d] + at;
    }
    for (int64_t ch = 0; inside && ch < c.channels; ++ch)
      sum +=
          static_cast<int64_t>(code_value(o.src[static_cast<size_t>(pixel * all_channels + group * c.channels + ch)], o.src_dtype) -
                               o.zero) *
          (code_value(o.weights[static_cast<size_t>((m * c.channels + ch) * taps + tap)], o.w_dtype) - o.w_zeros[static_cast<size_t>(m)]);
    ++tap;
  });
  return sum;
}

enum class WeightZeros { ByChance, Extreme };

void check(unsigned seed, const Case& c, WeightZeros kind = WeightZeros::ByChance) {
  Random r(seed);
  Operands o;
  o.src_dtype = r.pick({DType::U8, DType::U8, DType::I8});
  o.w_dtype = r.pick({DType::I8, DType::I8, DType::U8});
  o.zero = random_zero(r, o.src_dtype);
  const int64_t channels = c.channels * c.geometry.groups;
  Shape src_shape{c.images, channels}, w_shape{c.columns, c.channels}, out_box;
  for (size_t d = 0; d < c.in.size(); ++d) {
    src_shape.push_back(c.in[d]);
    w_shape.push_back(c.kernel[d]);
    const ConvGeometry& g = c.geometry;
    out_box.push_back((c.in[d] + g.pads_begin[d] + g.pads_end[d] - (c.kernel[d] - 1) * g.dilations[d] - 1) / g.strides[d] + 1);
  }
  o.src = r.bytes(element_count(src_shape));
  o.weights = r.bytes(element_count(w_shape));
  const bool extreme = kind == WeightZeros::Extreme, symmetric = !extreme && !r.chance(4);
  for (int64_t m = 0; m < c.columns; ++m)
    o.w_zeros.push_back(extreme     ? least_of(o.w_dtype) + r.pick({0, 1, 127, 128, 129, 254, 255})
                        : symmetric ? (o.w_dtype == DType::U8 ? 128 : 0)
                                    : random_zero(r, o.w_dtype));

  const Tensor src = tensor_of(o.src_dtype, src_shape, o.src), weights = tensor_of(o.w_dtype, w_shape, o.weights);
  const Int8Convolution convolution(c.geometry, weights, o.src_dtype, o.w_zeros.data());
  Shape out_shape{c.images, c.columns};
  out_shape.insert(out_shape.end(), out_box.begin(), out_box.end());
  ASSERT_EQ(convolution.output_shape(src_shape), out_shape) << to_text(c);

  const int64_t elements = element_count(out_shape);
  const EpilogueCase epilogue(r, c.columns, elements, 4000.0 * std::sqrt(static_cast<double>(element_count(w_shape) / c.columns)));
  const size_t size = int8_output_bytes(epilogue.e);
  std::vector<uint8_t> expected(static_cast<size_t>(elements) * size);
  int64_t pixel = 0;
  for (int64_t image = 0; image < c.images; ++image)
    each_index(out_box, [&](const std::vector<int64_t>& out) {
      for (int64_t m = 0; m < c.columns; ++m) {
        const int64_t at = pixel * c.columns + m;
        epilogue.store(sum_at(c, o, image, out, m), m, at, expected.data() + static_cast<size_t>(at) * size);
      }
      ++pixel;
    });

  const Tensor residual = epilogue.e.residual ? tensor_of(epilogue.e.residual_dtype, out_shape, epilogue.residual) : Tensor();
  const std::vector<int64_t> cuts = random_cuts(r, convolution.tasks(src_shape));
  for (const Int8Isa isa : int8_isas()) {
    use_int8_isa(isa);
    Tensor dst(epilogue.e.output, out_shape);
    std::fill_n(reinterpret_cast<uint8_t*>(dst.mutable_raw()), dst.bytes(), uint8_t{0xAB});
    for (size_t i = 0; i + 1 < cuts.size(); ++i)
      convolution.run(src, o.zero, epilogue.e, epilogue.e.residual ? &residual : nullptr, dst, cuts[i], cuts[i + 1]);
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(), reinterpret_cast<const uint8_t*>(dst.raw())))
        << "isa " << static_cast<int>(isa) << ", seed " << seed << ": " << to_text(c) << ", " << name_of(o.src_dtype) << " × "
        << name_of(o.w_dtype) << (symmetric ? "" : " with zero points") << " to " << epilogue.describe();
  }
}

/// A geometry by chance, the window always within the padded image.
Case random_case(Random& r, size_t rank, int64_t most) {
  Case c;
  c.images = r.in(1, 2);
  for (size_t d = 0; d < rank; ++d) {
    const int64_t kernel = r.in(1, most), dilation = r.chance(3) ? r.in(2, 3) : 1, before = r.in(0, 2), after = r.in(0, 2);
    c.kernel.push_back(kernel);
    c.geometry.strides.push_back(r.in(1, 3));
    c.geometry.dilations.push_back(dilation);
    c.geometry.pads_begin.push_back(before);
    c.geometry.pads_end.push_back(after);
    c.in.push_back(std::max<int64_t>((kernel - 1) * dilation + 1 - before - after, 1) + r.in(0, 9));
  }
  return c;
}

TEST(Int8Convolution, EqualsTheSumsInInt64ForRandomImages) {
  for (unsigned seed = 0; seed < 250; ++seed) {
    Random r(seed + 5000);
    Case c = random_case(r, 2, 4);
    c.channels = r.pick<int64_t>({1, 2, 3, 4, 5, 8, 16, 19});
    c.columns = r.in(1, 80);
    check(seed, c);
  }
}

TEST(Int8Convolution, EqualsTheSumsForSignalsAndVolumes) {
  for (unsigned seed = 0; seed < 80; ++seed) {
    Random r(seed + 6000);
    Case c = random_case(r, seed % 2 ? 1 : 3, 3);
    c.geometry.groups = r.pick<int64_t>({1, 1, 2});
    c.channels = r.in(1, 6);
    c.columns = c.geometry.groups * r.in(1, 20);
    check(seed, c);
  }
}

TEST(Int8Convolution, EqualsTheSumsForGroups) {
  for (unsigned seed = 0; seed < 120; ++seed) {
    Random r(seed + 7000);
    Case c = random_case(r, 2, 3);
    c.geometry.groups = r.in(2, 9);
    c.channels = r.in(1, 9);
    c.columns = c.geometry.groups * r.in(1, 7);
    check(seed, c);
  }
}

TEST(Int8Convolution, EqualsTheSumsForDepthwiseWindowsOfEverySize) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    Random r(seed + 8000);
    Case c = random_case(r, r.chance(8) ? 1 : r.chance(12) ? 3 : 2, 7);
    c.channels = 1;
    c.columns = c.geometry.groups = r.pick<int64_t>({1, 3, 16, 17, 32, 40, 48, 63, 64, 96, 130});
    check(seed, c);
  }
}

// A weight less its zero point is anything from −255 to 255: up to three parts of int8.
TEST(Int8Convolution, WeightsMayHaveAnyZeroPoints) {
  for (unsigned seed = 0; seed < 120; ++seed) {
    Random r(seed + 8500);
    Case c = random_case(r, 2, 3);
    const bool depthwise = r.chance(2);
    if (depthwise && r.chance(2)) {  // the windows that slide
      c.kernel = {3, 3};
      c.geometry.dilations = {1, 1};
      c.geometry.strides = {1, r.in(1, 2)};
      c.in = {r.in(3, 9), r.in(3, 20)};
    }
    c.geometry.groups = depthwise ? r.pick<int64_t>({5, 16, 32, 63, 100}) : r.in(1, 6);
    c.channels = depthwise ? 1 : r.in(1, 40);
    c.columns = c.geometry.groups * (depthwise ? 1 : r.in(1, 30));
    check(seed, c, WeightZeros::Extreme);
  }
}

TEST(Int8Convolution, PixelsByThemselvesAreAProduct) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    Random r(seed + 9000);
    Case c;
    c.images = r.in(1, 3);
    c.in = {r.in(1, 12), r.in(1, 12)};
    c.kernel = {1, 1};
    c.geometry = {.strides = r.chance(3) ? std::vector<int64_t>{2, 2} : std::vector<int64_t>{1, 1},
                  .dilations = {1, 1},
                  .pads_begin = {0, 0},
                  .pads_end = {0, 0}};
    c.channels = r.in(1, 40);
    c.columns = r.in(1, 140);
    check(seed, c);
  }
}

TEST(Int8Convolution, LargeImagesAreCutIntoTasks) {
  for (unsigned seed = 0; seed < 4; ++seed) {
    Case c;
    c.in = {70, 90};
    c.kernel = {3, 3};
    c.geometry = {.strides = {1, 1}, .dilations = {1, 1}, .pads_begin = {1, 1}, .pads_end = {1, 1}};
    c.geometry.groups = c.columns = seed % 2 ? 40 : 1;
    c.channels = seed % 2 ? 1 : 3;
    if (seed % 2 == 0) c.columns = 3;
    check(seed, c);
  }
}

TEST(Int8Convolution, WhatDoesNotFitIsRefused) {
  const ConvGeometry g{.strides = {1, 1}, .dilations = {1, 1}, .pads_begin = {0, 0}, .pads_end = {0, 0}};
  const Int8Convolution convolution(g, Tensor::zeros(DType::I8, {4, 2, 3, 3}), DType::U8);
  EXPECT_THROW(convolution.output_shape({1, 3, 8, 8}), Error);
  EXPECT_THROW(convolution.output_shape({1, 2, 8}), Error);
  EXPECT_THROW(convolution.output_shape({1, 2, 2, 8}), Error);
  EXPECT_THROW(Int8Convolution(g, Tensor::zeros(DType::I8, {4, 2, 3}), DType::U8), Error);
  EXPECT_THROW(Int8Convolution(g, Tensor::zeros(DType::I8, {4, 2, 3, 3, 3, 3}), DType::U8), Error);
}

}  // namespace
}  // namespace infopt::cpu

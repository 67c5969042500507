#include "lib/runtime/cpu/int8_elementwise.h"

#include <gtest/gtest.h>

#include "tests/runtime/int8_reference.h"

namespace infopt::cpu {
namespace {

TEST(Int8Lookup, ReplacesEveryByteForEveryLength) {
  Random r(1);
  const std::vector<uint8_t> table = r.bytes(256);
  for (const Int8Isa isa : int8_isas()) {
    use_int8_isa(isa);
    for (int64_t n = 0; n < 200; n += n < 70 ? 1 : 13) {
      std::vector<uint8_t> x = r.bytes(n), expected;
      for (const uint8_t b : x) expected.push_back(table[b]);
      int8_lookup(x.data(), x.data(), n, table.data());
      ASSERT_EQ(x, expected) << n;
    }
  }
}

TEST(Int8Binary, AddsAndMultipliesByTheFormulas) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    Random r(seed);
    Int8Binary how;
    how.a_dtype = r.pick({DType::U8, DType::I8});
    how.b_dtype = r.pick({DType::U8, DType::I8});
    how.output = r.pick({DType::U8, DType::I8});
    how.a_zero = random_zero(r, how.a_dtype);
    how.b_zero = random_zero(r, how.b_dtype);
    how.zero = random_zero(r, how.output);
    const bool multiply = r.chance(2);
    how.a_ratio = r.real(0.1f, 2) * (multiply ? 0.01f : 1.0f);
    how.b_ratio = r.real(0.1f, 2);
    if (r.chance(2)) how.low = r.pick({0.0f, -7.5f});
    if (r.chance(2)) how.high = 60.3f;
    const int64_t b_count = r.pick<int64_t>({1, 3, 64, 100, 300, 700}), n = b_count * r.in(1, 5);
    const std::vector<uint8_t> a = r.bytes(n), b = r.bytes(b_count);
    std::vector<uint8_t> expected(a.size());
    for (size_t i = 0; i < a.size(); ++i) {
      const float x = static_cast<float>(code_value(a[i], how.a_dtype) - how.a_zero);
      const float y = static_cast<float>(code_value(b[i % b.size()], how.b_dtype) - how.b_zero);
      const float v = multiply ? x * y * how.a_ratio : x * how.a_ratio + y * how.b_ratio;
      expected[i] = static_cast<uint8_t>(saturated(std::min(std::max(v, how.low), how.high), how.zero, how.output));
    }
    for (const Int8Isa isa : int8_isas()) {
      use_int8_isa(isa);
      std::vector<uint8_t> got = a;  // in place
      (multiply ? int8_multiply : int8_add)(how, got.data(), b.data(), b_count, got.data(), n);
      ASSERT_EQ(got, expected) << "seed " << seed;
    }
  }
}

TEST(Int8Quantize, DividesRoundsHalfToEvenAndSaturates) {
  const std::vector<float> x{0.25f, 0.75f, -0.25f, 1e30f, -1e30f, std::numeric_limits<float>::quiet_NaN(), 0.1f, 63.0f};
  std::vector<int8_t> q(x.size());
  int8_quantize(x.data(), q.data(), DType::I8, static_cast<int64_t>(x.size()), 0.5f, 3);
  EXPECT_EQ(q, (std::vector<int8_t>{3, 5, 3, 127, -128, -128, 3, 127}));
  std::vector<uint8_t> u(x.size());
  int8_quantize(x.data(), u.data(), DType::U8, static_cast<int64_t>(x.size()), 0.5f, 3);
  EXPECT_EQ(u, (std::vector<uint8_t>{3, 5, 3, 255, 0, 0, 3, 129}));
  for (unsigned seed = 0; seed < 20; ++seed) {
    Random r(seed);
    const float scale = r.real(0.01f, 0.3f);
    const int32_t zero = random_zero(r, DType::U8);
    std::vector<float> values;
    for (int i = 0; i < 77; ++i) values.push_back(r.real(-30, 30));
    std::vector<uint8_t> codes(values.size());
    int8_quantize(values.data(), codes.data(), DType::U8, 77, scale, zero);
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(codes[i], saturated(values[i] / scale, zero, DType::U8));
  }
}

TEST(Int8Dequantize, IsTheDifferenceTimesTheScale) {
  Random r(5);
  const std::vector<uint8_t> q = r.bytes(133);
  std::vector<float> x(q.size());
  for (const DType t : {DType::U8, DType::I8}) {
    int8_dequantize(q.data(), t, x.data(), 133, 0.37f, -5);
    for (size_t i = 0; i < q.size(); ++i) ASSERT_EQ(x[i], static_cast<float>(code_value(q[i], t) + 5) * 0.37f);
  }
}

TEST(Int8GlobalAverage, SumsExactly) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    Random r(seed);
    const int64_t pixels = r.in(1, 60), channels = r.in(1, 150);
    Int8Mean how{r.pick({DType::U8, DType::I8}), r.pick({DType::U8, DType::I8}), 0, 0, r.real(0.3f, 1.5f) / static_cast<float>(pixels)};
    how.input_zero = random_zero(r, how.input);
    how.zero = random_zero(r, how.output);
    const std::vector<uint8_t> x = r.bytes(pixels * channels);
    std::vector<uint8_t> y(static_cast<size_t>(channels));
    int8_global_average(how, x.data(), pixels, channels, y.data());
    for (int64_t c = 0; c < channels; ++c) {
      int64_t sum = 0;
      for (int64_t p = 0; p < pixels; ++p) sum += code_value(x[static_cast<size_t>(p * channels + c)], how.input) - how.input_zero;
      ASSERT_EQ(y[static_cast<size_t>(c)], static_cast<uint8_t>(saturated(static_cast<float>(sum) * how.ratio, how.zero, how.output)))
          << seed;
    }
  }
}

struct PoolCase {
  Int8Window window;
  Int8Extent extent;
  std::vector<uint8_t> src;

  PoolCase(Random& r, int64_t images, bool deep) {
    extent.images = images;
    window.channels = r.pick<int64_t>({1, 5, 16, 24, 33, 48, 64, 70, 112, 130});
    for (size_t i = deep ? 0 : 1; i < 3; ++i) {
      window.kernel[i] = r.in(1, 3);
      window.strides[i] = r.in(1, 3);
      window.dilations[i] = r.in(1, 2);
      window.pads_begin[i] = r.in(0, window.kernel[i] - 1);
      window.pads_end[i] = r.in(0, window.kernel[i] - 1);
      const int64_t reach = (window.kernel[i] - 1) * window.dilations[i] + 1;
      extent.in[i] = reach + r.in(0, 6);
      extent.out[i] = (extent.in[i] + window.pads_begin[i] + window.pads_end[i] - reach) / window.strides[i] + 1;
    }
    src = r.bytes(images * extent.in[0] * extent.in[1] * extent.in[2] * window.channels);
  }
  int64_t lines() const { return extent.images * extent.out[0] * extent.out[1]; }
  /// The bytes of channel c that the window of an output pixel holds.
  std::vector<uint8_t> taken(int64_t pixel, int64_t c) const {
    int64_t at[3];
    for (size_t i = 3; i-- > 0; pixel /= extent.out[i]) at[i] = pixel % extent.out[i] * window.strides[i] - window.pads_begin[i];
    std::vector<uint8_t> bytes;
    for (int64_t k = 0; k < window.kernel[0] * window.kernel[1] * window.kernel[2]; ++k) {
      int64_t place = pixel, rest = k, step[3];
      bool inside = true;
      for (size_t i = 3; i-- > 0; rest /= window.kernel[i]) step[i] = rest % window.kernel[i];
      for (size_t i = 0; i < 3; ++i) {
        const int64_t p = at[i] + step[i] * window.dilations[i];
        inside = inside && p >= 0 && p < extent.in[i];
        place = place * extent.in[i] + p;
      }
      if (inside) bytes.push_back(src[static_cast<size_t>(place * window.channels + c)]);
    }
    return bytes;
  }
};

TEST(Int8Pool, TakesTheGreatestAndTheMean) {
  for (unsigned seed = 0; seed < 80; ++seed) {
    Random r(seed);
    const PoolCase c(r, r.in(1, 2), r.chance(4));
    const DType t = r.pick({DType::U8, DType::I8});
    Int8Mean how{t, r.pick({DType::U8, DType::I8}), 0, 0, r.real(0.5f, 1.5f)};
    how.input_zero = random_zero(r, t);
    how.zero = random_zero(r, how.output);
    const bool include_pad = r.chance(2);
    const int64_t pixels = c.lines() * c.extent.out[2], cut = r.in(0, c.lines());
    std::vector<uint8_t> most(static_cast<size_t>(pixels * c.window.channels)), mean = most;
    for (const auto& [first, last] : {std::pair{int64_t{0}, cut}, std::pair{cut, c.lines()}}) {
      int8_max_pool(c.window, c.extent, t, c.src.data(), most.data(), first, last);
      int8_average_pool(c.window, c.extent, how, include_pad, c.src.data(), mean.data(), first, last);
    }
    const int64_t all = c.window.kernel[0] * c.window.kernel[1] * c.window.kernel[2];
    for (int64_t p = 0; p < pixels; ++p)
      for (int64_t ch = 0; ch < c.window.channels; ++ch) {
        const std::vector<uint8_t> bytes = c.taken(p, ch);
        int32_t best = least_of(t), sum = 0;
        for (const uint8_t b : bytes) best = std::max(best, code_value(b, t)), sum += code_value(b, t) - how.input_zero;
        const float ratio = how.ratio / static_cast<float>(include_pad ? all : std::max<int64_t>(static_cast<int64_t>(bytes.size()), 1));
        const size_t at = static_cast<size_t>(p * c.window.channels + ch);
        ASSERT_EQ(most[at], static_cast<uint8_t>(best)) << "seed " << seed;
        ASSERT_EQ(mean[at], static_cast<uint8_t>(saturated(static_cast<float>(sum) * ratio, how.zero, how.output))) << "seed " << seed;
      }
  }
}

}  // namespace
}  // namespace infopt::cpu

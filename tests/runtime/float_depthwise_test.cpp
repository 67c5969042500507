// Depthwise convolutions of our own against the definition in double, on each instruction set that the processor has.
#include "lib/runtime/cpu/float_depthwise.h"

#include <cmath>
#include <cstring>

#include "lib/base/share.h"
#include "lib/runtime/cpu/dnnl_adapter.h"
#include "lib/runtime/cpu/float_tiles.h"
#include "tests/runtime/float_conv_case.h"

namespace infopt::test {
namespace {

class FloatDepthwise : public testing::TestWithParam<cpu::FloatIsa> {
 protected:
  void SetUp() override {
    if (!cpu::has_float_isa(GetParam())) GTEST_SKIP() << "this processor lacks it";
    cpu::use_float_isa(GetParam());
  }
  void TearDown() override {
    for (const cpu::FloatIsa best : {cpu::FloatIsa::Avx512, cpu::FloatIsa::Avx2, cpu::FloatIsa::Portable})
      if (cpu::has_float_isa(best)) return cpu::use_float_isa(best);
  }
};

/// One convolution down or along one axis, or both; channels last.
struct Case {
  int64_t n, c, out_h, out_w;
  int64_t h, w, kh, kw, sy, sx, top, left, bottom, right;
  bool row, accumulate;
  Tensor x, weights, bias, before;
  cpu::ConvGeometry g;

  explicit Case(Random& r) {
    n = r.in(1, 2), c = r.pick<int64_t>({2, 3, 7, 8, 15, 16, 17, 24, 32, 33, 40, 96});
    row = r.chance(4);
    const bool column = !row && r.chance(6);
    do {
      kh = row ? 1 : r.pick<int64_t>({1, 2, 3, 3, 5, 7, 9, 11}), kw = column ? 1 : r.pick<int64_t>({1, 2, 3, 3, 5, 7, 9, 11, 31});
      h = row ? 1 : r.in(1, 20), w = column ? 1 : r.in(1, row ? 150 : 40);
      sy = row ? 1 : r.in(1, 3), sx = r.in(1, 3);
      top = row ? 0 : r.in(0, kh), bottom = row ? 0 : r.in(0, kh);
      left = column ? 0 : r.in(0, kw), right = column ? 0 : r.in(0, kw);
      out_h = (h + top + bottom - kh) / sy + 1, out_w = (w + left + right - kw) / sx + 1;
    } while (h + top + bottom < kh || w + left + right < kw);
    accumulate = r.chance(3);
    x = random_floats(r, row ? Shape{n, c, w} : Shape{n, c, h, w});
    weights = random_floats(r, row ? Shape{c, 1, kw} : Shape{c, 1, kh, kw});
    if (!r.chance(3)) bias = random_floats(r, {c});
    before = random_floats(r, row ? Shape{n, c, out_w} : Shape{n, c, out_h, out_w});
    g = row ? cpu::ConvGeometry{{sx}, {1}, {left}, {right}, c} : cpu::ConvGeometry{{sy, sx}, {1, 1}, {top, left}, {bottom, right}, c};
    g.post.kind = r.pick({PostActivation::None, PostActivation::Clip, PostActivation::HardSwish, PostActivation::Silu, PostActivation::Gelu});
    if (g.post.kind == PostActivation::Clip) g.post.low = 0, g.post.high = r.chance(2) ? 2.0f : std::numeric_limits<float>::infinity();
  }

  Tensor run(bool packable = true) const {
    Tensor y = before.clone();
    cpu::Convolution(g, accumulate).run(x, weights, packable, bias.defined() ? &bias : nullptr, y);
    return y;
  }

  double end(double v) const {
    switch (g.post.kind) {
      case PostActivation::Clip: return std::min<double>(std::max<double>(v, g.post.low), g.post.high);
      case PostActivation::HardSwish: return v * std::min(std::max(v / 6 + 0.5, 0.0), 1.0);
      case PostActivation::Silu: return v / (1 + std::exp(-v));
      case PostActivation::Gelu: return 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
      default: return v;
    }
  }

  void expect(const Tensor& y) const {
    const float *px = x.data<float>(), *pw = weights.data<float>(), *pb = before.data<float>(), *py = y.data<float>();
    for (int64_t i = 0; i < n; ++i)
      for (int64_t oy = 0; oy < out_h; ++oy)
        for (int64_t ox = 0; ox < out_w; ++ox)
          for (int64_t k = 0; k < c; ++k) {
            const int64_t at = ((i * out_h + oy) * out_w + ox) * c + k;
            double sum = bias.defined() ? bias.data<float>()[k] : 0.0, size = std::fabs(sum);
            if (accumulate) sum += pb[at], size += std::fabs(pb[at]);
            for (int64_t ky = 0; ky < kh; ++ky)
              for (int64_t kx = 0; kx < kw; ++kx) {
                const int64_t iy = oy * sy + ky - top, ix = ox * sx + kx - left;
                if (iy < 0 || iy >= h || ix < 0 || ix >= w) continue;
                const double term = static_cast<double>(px[((i * h + iy) * w + ix) * c + k]) * pw[(k * kh + ky) * kw + kx];
                sum += term, size += std::fabs(term);
              }
            ASSERT_NEAR(py[at], end(sum), 1e-6 * (size + 1)) << "image " << i << " row " << oy << " column " << ox << " channel " << k;
          }
  }
};

TEST_P(FloatDepthwise, EqualsTheDefinition) {
  for (unsigned seed = 0; seed < 250; ++seed) {
    Random r(seed);
    const Case c(r);
    SCOPED_TRACE(testing::Message() << "seed " << seed << ": " << to_string(c.x.shape()) << " by " << to_string(c.weights.shape()) << " steps " << c.sy << "," << c.sx);
    ASSERT_TRUE(cpu::is_plain_depthwise(c.g, c.weights.shape()));
    c.expect(c.run(r.chance(2)));
    if (HasFatalFailure()) return;
  }
}

TEST_P(FloatDepthwise, GivesTheSameBitsForAnyNumberOfThreads) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    Random r(5000 + seed);
    const Case c(r);
    const Tensor want = c.run();
    for (int threads : {2, 3, 5}) {
      const RunThreads with(threads);
      const Tensor got = c.run();
      ASSERT_EQ(std::memcmp(got.raw(), want.raw(), want.bytes()), 0) << threads << " threads";
    }
  }
}

TEST(FloatDepthwiseForms, LeavesDilatedAndMultipliedChannelsToOthers) {
  const cpu::ConvGeometry plain{{1, 1}, {1, 1}, {1, 1}, {1, 1}, 8};
  EXPECT_TRUE(cpu::is_plain_depthwise(plain, {8, 1, 3, 3}));
  EXPECT_FALSE(cpu::is_plain_depthwise(plain, {16, 1, 3, 3}));
  EXPECT_FALSE(cpu::is_plain_depthwise({{1, 1}, {2, 2}, {1, 1}, {1, 1}, 8}, {8, 1, 3, 3}));
  EXPECT_FALSE(cpu::is_plain_depthwise({{1, 1}, {1, 1}, {1, 1}, {1, 1}, 4}, {8, 2, 3, 3}));
}

INSTANTIATE_TEST_SUITE_P(Isa, FloatDepthwise, testing::Values(cpu::FloatIsa::Portable, cpu::FloatIsa::Avx2, cpu::FloatIsa::Avx512),
                         [](const auto& each) { return each.param == cpu::FloatIsa::Portable ? "portable" : each.param == cpu::FloatIsa::Avx2 ? "avx2" : "avx512"; });

}  // namespace
}  // namespace infopt::test

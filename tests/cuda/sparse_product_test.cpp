// Products whose weights' zeros are left out: the same as dense ones, and plans that say what was chosen.
#include <gmock/gmock.h>

#include <cmath>

#include "lib/runtime/cuda/sparse_choice.h"
#include "lib/runtime/cuda/sparse_library.h"
#include "lib/runtime/cuda/sparse_pattern.h"
#include "lib/runtime/cuda/sparse_weights.h"
#include "tests/cuda/kernel_harness.h"
#include "tests/cuda/sparse.h"

namespace infopt::test {
namespace {

using cuda::WeightMatrix;
using testing::HasSubstr;
using testing::Not;

constexpr DType kFloats[] = {DType::F32, DType::F16, DType::BF16};

WeightMatrix matrix_of(const Tensor& w, int64_t n, int64_t k, bool turned) { return {w, n, k, turned ? k : 1, turned ? 1 : n}; }

bool has_cusparselt() { return cuda::sparse_library_missing().empty(); }

TEST(CudaSparsePattern, IsFoundHoweverWeightsLie) {
  Random r(1);
  for (int i = 0; i < 60; ++i) {
    const int64_t n = r.in(1, 70), k = 4 * r.in(4, 40);
    const Zeros zeros = r.pick({Zeros::TwoOfFour, Zeros::Blocks, Zeros::Anywhere, Zeros::None});
    const bool turned = r.chance(2);
    const DType type = r.pick({DType::F32, DType::F16, DType::BF16, DType::I8});
    const auto kept = random_mask(r, n, k, zeros, 40);
    const auto p = cuda::find_pattern(matrix_of(masked(r, type, n, k, kept, turned), n, k, turned));
    if (zeros == Zeros::None) {
      EXPECT_EQ(p.zeros, 0);
      EXPECT_FALSE(p.two_of_four);
      EXPECT_EQ(p.panels, 1);
      continue;
    }
    const double all = static_cast<double>(n * k);
    bool two = true;
    int64_t panels = 0;
    for (int64_t j = 0; j < n; ++j)
      for (int64_t c = 0; c < k; c += 4) two = two && std::count(kept.begin() + j * k + c, kept.begin() + j * k + c + 4, true) <= 2;
    for (int64_t first = 0; first < n; first += 16)
      for (int64_t c = 0; c < k; ++c) {
        bool any = false;
        for (int64_t j = first; j < std::min(n, first + 16); ++j) any = any || kept[static_cast<size_t>(j * k + c)];
        panels += any;
      }
    EXPECT_NEAR(p.zeros, static_cast<double>(std::count(kept.begin(), kept.end(), false)) / all, 1e-9);
    EXPECT_EQ(p.two_of_four, two);
    EXPECT_NEAR(p.panels, static_cast<double>(panels) / static_cast<double>((n + 15) / 16 * k), 1e-9);
  }
}

TEST(CudaSparsePattern, UnsignedCodesHaveAZeroOfTheirOwn) {
  Tensor w(DType::U8, {1, 32});
  for (int64_t i = 0; i < 32; ++i) w.mutable_data<uint8_t>()[i] = i % 4 < 2 ? 128 : 0;
  EXPECT_TRUE(cuda::find_pattern({w, 1, 32, 32, 1, 128}).two_of_four);
  EXPECT_EQ(cuda::find_pattern({w, 1, 32, 32, 1, 128}).zeros, 0.5);
  const Tensor dense = cuda::dense_rows({w, 1, 32, 32, 1, 128});
  ASSERT_EQ(dense.dtype(), DType::I8);
  EXPECT_EQ(dense.data<int8_t>()[0], 0);
  EXPECT_EQ(dense.data<int8_t>()[2], -128);
}

/// finish(x·Wᵀ) in double.
std::vector<double> reference(const Tensor& x, const Tensor& w, bool turned, const Tensor& bias, const Tensor& residual, const PostActivation& post) {
  const auto xs = to_vector<double>(x), ws = to_vector<double>(w), biases = bias.defined() ? to_vector<double>(bias) : std::vector<double>{}, others = residual.defined() ? to_vector<double>(residual) : std::vector<double>{};
  const int64_t m = x.dim(0), k = x.dim(1), n = w.dim(turned ? 0 : 1);
  std::vector<double> y;
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double v = 0;
      for (int64_t q = 0; q < k; ++q) v += xs[static_cast<size_t>(i * k + q)] * ws[static_cast<size_t>(turned ? j * k + q : q * n + j)];
      if (bias.defined()) v += biases[static_cast<size_t>(j)];
      if (residual.defined()) v += others[static_cast<size_t>(i * n + j)];
      if (post.kind == PostActivation::Clip) v = std::clamp(v, static_cast<double>(post.low), static_cast<double>(post.high));
      if (post.kind == PostActivation::Gelu) v = 0.5 * v * std::erfc(-v / std::sqrt(2.0));
      if (post.kind == PostActivation::GeluTanh) v = 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
      y.push_back(v);
    }
  return y;
}

void expect_near(const Tensor& got, const std::vector<double>& want, double relative) {
  double largest = 0;
  for (double v : want) largest = std::max(largest, std::fabs(v));
  const auto values = to_vector<double>(got);
  ASSERT_EQ(values.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(values[i], want[i], relative * std::max(largest, 1e-3)) << i;
}

PostActivation random_post(Random& r) {
  PostActivation post;
  post.kind = r.pick({PostActivation::None, PostActivation::Clip, PostActivation::Clip, PostActivation::Gelu, PostActivation::GeluTanh});
  if (post.kind == PostActivation::Clip) post.low = r.chance(2) ? 0.0f : -0.5f, post.high = post.low == 0 ? std::numeric_limits<float>::infinity() : 0.5f;
  return post;
}

/// SparseWeights with its ways forced, against sums in double; the dense way must not be taken where another must.
void check_weights(Random& r, DType type, int64_t m, int64_t n, int64_t k, const std::vector<bool>& kept, bool must_be_sparse) {
  const bool turned = r.chance(2);
  const Tensor w = masked(r, type, n, k, kept, turned), x = random_reals(r, type, {m, k});
  const Tensor bias = r.chance(2) ? random_reals(r, type, {n}) : Tensor(), residual = r.chance(3) ? random_reals(r, type, {m, n}) : Tensor();
  const PostActivation post = random_post(r);
  SCOPED_TRACE(testing::Message() << name_of(type) << " " << m << "x" << k << "x" << n << (bias.defined() ? " bias" : "") << (residual.defined() ? " residual" : "") << " post " << post.kind);
  const cuda::SparseWeights sparse(matrix_of(w, n, k, turned), SparseUse::Always);
  const auto begun = cuda_device()->begin();
  auto& run = static_cast<cuda::CudaRun&>(*begun);
  const Tensor on_device = run.to_device(x), bias_there = bias.defined() ? run.to_device(bias) : Tensor(), residual_there = residual.defined() ? run.to_device(residual) : Tensor();
  Tensor y = run.make(type, {m, n});
  cuda::Finish finish{.post = post};
  if (bias.defined()) finish.bias = bias_there.raw();
  if (residual.defined()) finish.residual = residual_there.raw();
  bool was_dense = false;
  ASSERT_EQ(sparse.has_choice(), must_be_sparse) << sparse.describe();
  sparse.multiply(run, {.type = type, .m = m, .n = n, .k = k, .lda = k}, on_device.raw(), y.mutable_raw(), finish, [&] { was_dense = true; });
  ASSERT_EQ(was_dense, !must_be_sparse) << sparse.describe();
  if (must_be_sparse) expect_near(run.to_host(y), reference(x, w, turned, bias, residual, post), rounding_of(type));
}

void check_weights(Random& r, DType type, int64_t m, int64_t n, int64_t k, Zeros zeros, int64_t percent, bool must_be_sparse) {
  check_weights(r, type, m, n, k, random_mask(r, n, k, zeros, percent), must_be_sparse);
}

TEST(CudaSparseWeights, BlocksOfAnyShapeAreLeftOut) {
  for (unsigned seed = 0; seed < 60 && !testing::Test::HasFatalFailure(); ++seed) {
    Random r(seed);
    check_weights(r, r.pick({DType::F32, DType::F16, DType::BF16}), r.chance(4) ? 1 : r.in(1, 150), r.in(1, 90), r.in(8, 300), Zeros::Blocks, r.in(0, 60), true);
  }
}

TEST(CudaSparseWeights, PiecesThatNobodyReadsAreSkippedAndOthersAreNot) {
  constexpr int64_t kN = 40, kK = 600;
  for (const DType type : kFloats) {
    Random r(8);
    std::vector<bool> kept(kN * kK);
    for (int64_t j = 0; j < kN; ++j)
      for (int64_t i = 0; i < kK; ++i) kept[static_cast<size_t>(j * kK + i)] = (i >= 140 && i < 150) || i >= 590;
    check_weights(r, type, 70, kN, kK, kept, true);
    check_weights(r, type, 3, kN, kK, kept, true);
  }
}

TEST(CudaSparseWeights, OutputsWithoutAnyWeightAreTheirBias) {
  for (const DType type : kFloats) {
    Random r(4);
    check_weights(r, type, 9, 33, 140, Zeros::Blocks, 0, true);
  }
}

TEST(CudaSparseWeights, TwoOfFourIsLeftOut) {
  if (!has_cusparselt()) GTEST_SKIP() << cuda::sparse_library_missing();
  for (unsigned seed = 0; seed < 60 && !testing::Test::HasFatalFailure(); ++seed) {
    Random r(seed);
    check_weights(r, r.pick({DType::F16, DType::BF16}), 8 * r.in(1, 12), 16 * r.in(1, 6), 16 * r.in(1, 12), Zeros::TwoOfFour, 0, true);
  }
}

TEST(CudaSparseWeights, OtherPatternsAndShapesStayDenseAndSayWhy) {
  Random r(6);
  const auto why = [&](DType type, int64_t n, int64_t k, Zeros zeros, int64_t percent) {
    return cuda::SparseWeights(matrix_of(masked(r, type, n, k, random_mask(r, n, k, zeros, percent), true), n, k, true), SparseUse::Always).describe();
  };
  EXPECT_THAT(why(DType::F16, 64, 64, Zeros::Anywhere, 40), HasSubstr(" zeros, neither 2:4 nor in blocks of 16 outputs: dense"));
  EXPECT_THAT(why(DType::F16, 50, 64, Zeros::TwoOfFour, 0), HasSubstr("2:4, dense: 50 outputs aren't a multiple of 16"));
  EXPECT_THAT(why(DType::BF16, 64, 24, Zeros::TwoOfFour, 0), HasSubstr("2:4, dense: 24 inputs aren't a multiple of 16"));
  EXPECT_THAT(why(DType::F32, 64, 64, Zeros::TwoOfFour, 0), HasSubstr("2:4, dense: float32 would be rounded to TF32"));
  EXPECT_EQ(why(DType::F16, 64, 64, Zeros::None, 0), "");
  EXPECT_EQ(why(DType::F16, 64, 64, Zeros::Anywhere, 90), "");
  check_weights(r, DType::F16, 16, 64, 64, Zeros::Anywhere, 40, false);
}

TEST(CudaSparseChoice, TakesWhatIsClearlyFastest) {
  EXPECT_EQ(cuda::fastest({1.0f, 0.7f}), 1u);
  EXPECT_EQ(cuda::fastest({1.0f, 0.8f, 0.5f}), 2u);
  EXPECT_EQ(cuda::fastest({1.0f, 0.99f}), 0u);
  EXPECT_EQ(cuda::fastest({1.0f, std::numeric_limits<float>::infinity()}), 0u);
  EXPECT_EQ(cuda::fastest({1.0f}), 0u);
}

/// MatMul or Gemm with what may follow.
struct ProductNet {
  Net net;
  Feeds feeds;
  ProductNet(Random& r, DType type, const Shape& x, const Tensor& weights, bool turned, bool bias, const char* activation) {
    const ValueId in = net.input(type, x), w = net.constant(weights);
    const int64_t n = weights.dim(turned ? 0 : 1);
    std::vector<ValueId> inputs{in, w};
    if (bias && turned) inputs.push_back(net.constant(random_reals(r, type, {n})));
    ValueId y = turned ? net.add("Gemm", inputs, {{"transB", int64_t{1}, {}}}) : net.add("MatMul", inputs);
    if (bias && !turned) y = net.add("Add", {y, net.constant(random_reals(r, type, {n}))});
    if (*activation) y = net.add(activation, {y});
    net.output(y);
    feeds[in] = random_reals(r, type, x);
  }
};

TEST(CudaSparseNets, ProductsAreTheDenseOnes) {
  const auto always = sparse_device(SparseUse::Always), never = sparse_device(SparseUse::Never);
  Agreement agreement;
  for (unsigned seed = 0; seed < 40 && !testing::Test::HasFatalFailure(); ++seed) {
    Random r(seed);
    const bool turned = r.chance(2), blocks = r.chance(2) || !has_cusparselt();
    const DType type = blocks ? r.pick({DType::F32, DType::F16}) : r.pick({DType::F16, DType::BF16});
    const int64_t n = 16 * r.in(1, 6), k = 16 * r.in(1, 8);
    const Tensor w = masked(r, type, n, k, random_mask(r, n, k, blocks ? Zeros::Blocks : Zeros::TwoOfFour, 40), turned);
    ProductNet p(r, type, turned ? Shape{8 * r.in(1, 4), k} : Shape{r.in(1, 3), 8 * r.in(1, 3), k}, w, turned, r.chance(2), r.pick({"", "Relu", "Gelu"}));
    SCOPED_TRACE(testing::Message() << seed << " " << name_of(type) << " " << n << "x" << k << (blocks ? " blocks" : " 2:4"));
    std::string said, quiet;
    const auto got = run_on(always, p.net.graph(), p.feeds, &said), want = run_on(never, p.net.graph(), p.feeds, &quiet);
    EXPECT_THAT(said, HasSubstr("sparse, as was asked for"));
    EXPECT_THAT(said, HasSubstr(blocks ? "zeros in blocks: " : "zeros 2:4"));
    EXPECT_THAT(quiet, Not(HasSubstr("zeros")));
    agreement.compare(got[0], want[0], 2 * rounding_of(type));
    expect_as_cpu(p.net.graph(), p.feeds, 2 * rounding_of(type));
  }
}

TEST(CudaSparseNets, RowsThatDoNotFitAreDense) {
  if (!has_cusparselt()) GTEST_SKIP() << cuda::sparse_library_missing();
  Random r(9);
  ProductNet p(r, DType::F16, {13, 64}, masked(r, DType::F16, 32, 64, random_mask(r, 32, 64, Zeros::TwoOfFour), false), false, true, "Relu");
  std::string said;
  const auto got = run_on(sparse_device(SparseUse::Always), p.net.graph(), p.feeds, &said);
  EXPECT_THAT(said, HasSubstr("2:4, dense: 13 rows aren't a multiple of 8"));
  Agreement().compare(got[0], run_on(sparse_device(SparseUse::Never), p.net.graph(), p.feeds)[0], 0);
}

TEST(CudaSparseNets, ConvolutionsAreTheDenseOnes) {
  const auto always = sparse_device(SparseUse::Always), never = sparse_device(SparseUse::Never);
  Agreement agreement;
  for (unsigned seed = 0; seed < 30 && !testing::Test::HasFatalFailure(); ++seed) {
    Random r(seed);
    const bool blocks = r.chance(2) || !has_cusparselt();
    const DType type = blocks ? r.pick({DType::F32, DType::BF16}) : DType::F16;
    const int64_t m = 16 * r.in(1, 4), c = 16 * r.in(1, 3), side = r.pick<int64_t>({1, 3});
    // As [m, c, side, side]: the mask is along the channels of each place.
    const auto kept = random_mask(r, m, side * side * c, blocks ? Zeros::Blocks : Zeros::TwoOfFour, 40);
    const auto flat = to_vector<float>(masked(r, DType::F32, m, side * side * c, kept, true));
    Tensor w(DType::F32, {m, c, side, side});
    for (int64_t j = 0; j < m; ++j)
      for (int64_t q = 0; q < side * side; ++q)
        for (int64_t i = 0; i < c; ++i) w.mutable_data<float>()[(j * c + i) * side * side + q] = flat[static_cast<size_t>((j * side * side + q) * c + i)];
    Net net;
    const Shape xs{r.pick<int64_t>({1, 2}), c, 8, 8};
    const ValueId x = net.input(type, xs);
    ValueId y = net.add("Conv", {x, net.constant(cast(w, type)), net.constant(random_reals(r, type, {m}))}, {{"pads", std::vector<int64_t>(4, side / 2), {}}});
    const bool residual = r.chance(3);
    Feeds feeds{{x, random_reals(r, type, xs)}};
    if (residual) {
      const ValueId other = net.input(type, {xs[0], m, 8, 8});
      feeds[other] = random_reals(r, type, {xs[0], m, 8, 8});
      y = net.add("Add", {y, other});
    }
    if (r.chance(2)) y = net.add("Relu", {y});
    net.output(y);
    SCOPED_TRACE(testing::Message() << seed << " " << name_of(type) << " " << m << "x" << c << "x" << side << (blocks ? " blocks" : " 2:4"));
    std::string said;
    const auto got = run_on(always, net.graph(), feeds, &said), want = run_on(never, net.graph(), feeds);
    EXPECT_THAT(said, HasSubstr("sparse, as was asked for"));
    agreement.compare(got[0], want[0], 2 * rounding_of(type));
  }
}

TEST(CudaSparseNets, IntegerProductsHaveTheDenseBits) {
  if (!has_cusparselt()) GTEST_SKIP() << cuda::sparse_library_missing();
  const auto always = sparse_device(SparseUse::Always), never = sparse_device(SparseUse::Never);
  for (unsigned seed = 0; seed < 40 && !testing::Test::HasFatalFailure(); ++seed) {
    Random r(seed);
    const int64_t n = 32 * r.in(1, 3), k = 32 * r.in(1, 4), side = 4 * r.in(1, 3);
    const bool conv = r.chance(2), dynamic = !conv && r.chance(2);
    Tensor codes = masked(r, DType::I8, n, k, random_mask(r, n, k, Zeros::TwoOfFour), conv);
    if (conv) codes = codes.reshaped({n, k, 1, 1});
    Net net;
    const Shape xs = conv ? Shape{1, k, side, side} : Shape{16 * r.in(1, 4), k};
    Feeds feeds;
    std::vector<float> scales(static_cast<size_t>(n));
    for (float& s : scales) s = r.real(0.001f, 0.01f);
    if (dynamic) {
      const ValueId x = net.input(DType::F32, xs);
      feeds[x] = random_reals(r, DType::F32, xs);
      const NodeId q = net.add_node("DynamicQuantizeLinear", {x}, 3);
      const auto out = net.graph().node(q).outputs;
      const ValueId sums = net.add("MatMulInteger", {out[0], net.constant(codes), out[2]});
      net.output(net.add("Mul", {net.add("Cast", {sums}, {{"to", int64_t{1}, {}}}), net.add("Mul", {out[1], net.constant(Tensor::vector(scales))})}));
    } else {
      const Step in = random_step(r, 0.05f), out = random_step(r, 0.3f);
      const ValueId x = net.input(in.type, xs);
      feeds[x] = random_codes(r, in.type, xs);
      const ValueId w = net.add("DequantizeLinear", {net.constant(codes), net.constant(Tensor::vector(scales))}, {{"axis", int64_t{conv ? 0 : 1}, {}}});
      ValueId y = net.add(conv ? "Conv" : "MatMul", {net.dequantize(x, in), w});
      if (conv && r.chance(2)) {
        const Step other = random_step(r, 0.2f);
        const Shape ys{1, n, side, side};
        const ValueId residual = net.input(other.type, ys);
        feeds[residual] = random_codes(r, other.type, ys);
        const Step first = random_step(r, 0.3f);
        y = net.add("Add", {net.dequantize(net.quantize(y, first), first), net.dequantize(residual, other)});
      }
      net.output(net.quantize(y, out));
    }
    SCOPED_TRACE(testing::Message() << seed << " " << n << "x" << k << (conv ? " conv" : dynamic ? " dynamic" : " product"));
    std::string said;
    const auto got = run_on(always, net.graph(), feeds, &said);
    EXPECT_THAT(said, HasSubstr("zeros 2:4: sparse, as was asked for"));
    EXPECT_THAT(said, Not(HasSubstr("dense")));
    expect_same_bits(got, run_on(never, net.graph(), feeds));
  }
}

TEST(CudaSparseNets, IntegerWindowsStayDense) {
  Random r(2);
  Tensor codes = Tensor::zeros(DType::I8, {32, 32, 3, 3});
  for (int64_t i = 0; i < codes.size(); ++i)
    if (i / 9 % 4 < 2) codes.mutable_data<int8_t>()[i] = static_cast<int8_t>(r.in(1, 100));
  Net net;
  const ValueId x = net.input(DType::U8, {1, 32, 8, 8});
  net.output(net.quantize(net.add("Conv", {net.dequantize(x, {DType::U8, 0.1f, 7}), net.add("DequantizeLinear", {net.constant(codes), net.number(0.01f)})}), {DType::U8, 0.5f, 128}));
  const Feeds feeds{{x, random_codes(r, DType::U8, {1, 32, 8, 8})}};
  std::string said;
  const auto got = run_on(sparse_device(SparseUse::Always), net.graph(), feeds, &said);
  EXPECT_THAT(said, HasSubstr("2:4, dense: a window of more than a pixel"));
  expect_same_bits(got, run_on(sparse_device(SparseUse::Never), net.graph(), feeds));
}

TEST(CudaSparseNets, RecordedRunsReplayWhatWasChosen) {
  Random r(3);
  for (const Zeros zeros : {Zeros::TwoOfFour, Zeros::Blocks}) {
    if (zeros == Zeros::TwoOfFour && !has_cusparselt()) continue;
    ProductNet p(r, DType::F16, {16, 96}, masked(r, DType::F16, 48, 96, random_mask(r, 48, 96, zeros, 40), false), false, true, "Relu");
    SessionOptions options;
    options.device = sparse_device(SparseUse::Always);
    const Session session(p.net.graph(), options);
    const auto first = session.run(p.feeds), second = session.run(p.feeds), third = session.run(p.feeds);
    EXPECT_EQ(session.recorded_runs(), 1);
    expect_same_bits(second, first);
    expect_same_bits(third, first);
  }
}

}  // namespace
}  // namespace infopt::test

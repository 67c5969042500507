// QuantizeLinear, DequantizeLinear and Cast: rounding, saturation, the small types, and scales along axes and in blocks.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "lib/base/error.h"
#include "tests/ops/op_harness.h"

namespace infopt::test {
namespace {

struct Step {
  DType dtype;
  double low, high;
};
const Step kSteps[] = {{DType::U8, 0, 255}, {DType::I8, -128, 127}, {DType::U16, 0, 65535}, {DType::I16, -32768, 32767},
                       {DType::U4, 0, 15},  {DType::I4, -8, 7},     {DType::U2, 0, 3},      {DType::I2, -2, 1}};

TEST(QuantizeLinear, RoundsHalfToEvenAndSaturatesInEveryType) {
  Numbers numbers(21);
  const Tensor x = numbers.floats({3, 101}, -40, 40);
  for (const Step& s : kSteps) {
    const float scale = 0.25f;
    const double zero = s.low + 1;
    const Tensor point = cast(Tensor::scalar(zero), s.dtype);
    const Tensor q = run_op({"QuantizeLinear", {}, 25}, {x, Tensor::scalar(scale), point})[0];
    ASSERT_EQ(q.dtype(), s.dtype);
    const std::vector<double> codes = to_vector<double>(q);
    const std::vector<double> back = to_vector<double>(run_op({"DequantizeLinear", {}, 25}, {q, Tensor::scalar(scale), point})[0]);
    for (size_t i = 0; i < codes.size(); ++i) {
      const double expected = std::fmin(std::fmax(std::nearbyint(x.data<float>()[i] / scale) + zero, s.low), s.high);
      ASSERT_EQ(codes[i], expected) << name_of(s.dtype);
      ASSERT_EQ(back[i], (expected - zero) * scale) << name_of(s.dtype);
    }
  }
}

TEST(QuantizeLinear, TakesInfinityAndNaNWithoutFuss) {
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor x = Tensor::vector<float>({infinity, -infinity, std::nanf(""), 1e30f, -1e30f});
  const Tensor q = run_op({"QuantizeLinear"}, {x, Tensor::scalar(1e-3f), Tensor::scalar<int8_t>(3)})[0];
  EXPECT_EQ(to_vector<int64_t>(q), (std::vector<int64_t>{127, -128, -128, 127, -128}));
}

TEST(QuantizeLinear, ScalesEachPlaceOfAnAxis) {
  Numbers numbers(22);
  const Tensor x = numbers.floats({4, 5, 6});
  for (int64_t axis = 0; axis < 3; ++axis) {
    const int64_t n = x.dim(axis);
    const Tensor scale = numbers.floats({n}, 0.01f, 0.1f);
    Tensor zero(DType::I8, {n});
    for (int64_t i = 0; i < n; ++i) zero.mutable_data<int8_t>()[i] = static_cast<int8_t>(i - 2);
    const std::vector<Attribute> attributes{{"axis", axis, {}}};
    const Tensor q = run_op({"QuantizeLinear", attributes}, {x, scale, zero})[0], y = run_op({"DequantizeLinear", attributes}, {q, scale, zero})[0];
    const int64_t inner = axis == 0 ? 30 : axis == 1 ? 6 : 1;
    for (int64_t i = 0; i < x.size(); ++i) {
      const int64_t c = i / inner % n;
      const float s = scale.data<float>()[c];
      const double expected = std::fmin(std::fmax(std::nearbyint(x.data<float>()[i] / s) + static_cast<double>(c) - 2, -128), 127);
      ASSERT_EQ(q.data<int8_t>()[i], expected);
      ASSERT_EQ(y.data<float>()[i], (static_cast<float>(expected) - static_cast<float>(c - 2)) * s);
    }
  }
}

TEST(QuantizeLinear, KeepsChannelsLastWithOneScaleOrOneAChannel) {
  Numbers numbers(23);
  const Tensor x = numbers.floats({2, 5, 3, 4});
  for (const Tensor& scale : {Tensor::scalar(0.1f), numbers.floats({5}, 0.1f, 0.2f)}) {
    const Tensor zero = cast(Tensor::zeros(DType::F32, scale.shape()), DType::U8);
    const Laid q = run_laid({"QuantizeLinear"}, {channels_last(x), {scale}, {zero}})[0];
    EXPECT_EQ(q.layout, Layout::ChannelsLast);
    EXPECT_EQ(to_vector<double>(plain(q)), to_vector<double>(run_op({"QuantizeLinear"}, {x, scale, zero})[0]));
    const Laid y = run_laid({"DequantizeLinear"}, {q, {scale}, {zero}})[0];
    EXPECT_EQ(y.layout, Layout::ChannelsLast);
    EXPECT_EQ(to_vector<double>(plain(y)), to_vector<double>(run_op({"DequantizeLinear"}, {plain(q), scale, zero})[0]));
  }
}

TEST(QuantizeLinear, SharesAScaleInABlockWithARaggedEnd) {
  const Op op{"QuantizeLinear", {{"axis", int64_t{0}, {}}, {"block_size", int64_t{2}, {}}, {"output_dtype", int64_t{22}, {}}}};
  const Tensor x = Tensor::of<float>({5, 1}, {1, 2, 3, 4, 5}), scale = Tensor::of<float>({3, 1}, {1, 2, 4});
  const Tensor q = run_op(op, {x, scale})[0];
  EXPECT_EQ(q.dtype(), DType::I4);
  EXPECT_EQ(to_vector<int64_t>(q), (std::vector<int64_t>{1, 2, 2, 2, 1}));
}

TEST(QuantizeLinear, RefusesScalesThatDontFit) {
  Numbers numbers(24);
  const Tensor x = numbers.floats({2, 3});
  EXPECT_THROW(run_op({"QuantizeLinear"}, {x, numbers.floats({2}), Tensor::vector<uint8_t>({0, 0})}), Error);
  EXPECT_THROW(run_op({"QuantizeLinear"}, {x, numbers.floats({3}), Tensor::scalar<uint8_t>(0)}), Error);
  EXPECT_THROW(run_op({"QuantizeLinear", {{"axis", int64_t{7}, {}}}}, {x, numbers.floats({3})}), Error);
  EXPECT_THROW(run_op({"QuantizeLinear", {{"block_size", int64_t{-1}, {}}}}, {x, numbers.floats({2, 3})}), Error);
  EXPECT_THROW(run_op({"DequantizeLinear"}, {x, Tensor::scalar(1.0f)}), Error);
  const Op huge{"QuantizeLinear", {{"block_size", std::numeric_limits<int64_t>::max(), {}}}};
  EXPECT_EQ(run_op(huge, {x, numbers.floats({2, 1}, 1, 2)})[0].size(), 6);
}

TEST(DynamicQuantizeLinear, OfAllZerosHasTheScaleOne) {
  const auto y = run_op({"DynamicQuantizeLinear", {}, 11, 3}, {Tensor::zeros(DType::F32, {5})});
  EXPECT_EQ(to_vector<int64_t>(y[0]), (std::vector<int64_t>(5, 0)));
  EXPECT_EQ(to_scalar<double>(y[1]), 1.0);
  EXPECT_EQ(to_scalar<int64_t>(y[2]), 0);
}

Tensor cast_to(const Tensor& x, DType to, bool saturate = true, std::string rounding = "up") {
  return run_op({"Cast", {{"to", static_cast<int64_t>(to), {}}, {"saturate", int64_t{saturate}, {}}, {"round_mode", std::move(rounding), {}}}, 24}, {x})[0];
}

std::vector<int> codes_of(const Tensor& t) {
  std::vector<int> codes;
  for (size_t i = 0; i < t.bytes(); ++i) codes.push_back(static_cast<int>(t.raw()[i]));
  return codes;
}

// The table of ONNX's Cast for float 8, with values halfway past the largest.
TEST(Cast, ToFloat8FollowsTheTableOfSpecialValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor x = Tensor::vector<float>({0.0f, -0.0f, infinity, -infinity, 464.0f, 465.0f, -1e6f});
  EXPECT_EQ(codes_of(cast_to(x, DType::F8E4M3FN)), (std::vector<int>{0, 0x80, 0x7e, 0xfe, 0x7e, 0x7e, 0xfe}));
  EXPECT_EQ(codes_of(cast_to(x, DType::F8E4M3FN, false)), (std::vector<int>{0, 0x80, 0x7f, 0xff, 0x7e, 0x7f, 0xff}));
  EXPECT_EQ(codes_of(cast_to(x, DType::F8E4M3FNUZ, false)), (std::vector<int>{0, 0, 0x80, 0x80, 0x80, 0x80, 0x80}));
  EXPECT_EQ(codes_of(cast_to(x, DType::F8E5M2, false)), (std::vector<int>{0, 0x80, 0x7c, 0xfc, 0x5f, 0x5f, 0xfc}));
  EXPECT_EQ(codes_of(cast_to(x, DType::F8E5M2)), (std::vector<int>{0, 0x80, 0x7b, 0xfb, 0x5f, 0x5f, 0xfb}));
}

TEST(Cast, ToPowersOfTwoRoundsAsAsked) {
  const Tensor x = Tensor::vector<float>({1.0f, 1.4f, 1.5f, 3.0f, 0.0f});
  EXPECT_EQ(codes_of(cast_to(x, DType::F8E8M0, true, "up")), (std::vector<int>{127, 128, 128, 129, 0}));
  EXPECT_EQ(codes_of(cast_to(x, DType::F8E8M0, true, "down")), (std::vector<int>{127, 127, 127, 128, 0}));
  EXPECT_EQ(codes_of(cast_to(x, DType::F8E8M0, true, "nearest")), (std::vector<int>{127, 127, 128, 129, 0}));
}

TEST(Cast, ReadsAndWritesNumbersAsText) {
  Tensor texts(DType::String, {7});
  texts.mutable_strings() = {"3.14", "1e-5", "1E8", "+INF", "-inf", "NaN", " 42 "};
  const std::vector<double> numbers = to_vector<double>(cast_to(texts, DType::F32));
  EXPECT_FLOAT_EQ(static_cast<float>(numbers[0]), 3.14f);
  EXPECT_FLOAT_EQ(static_cast<float>(numbers[1]), 1e-5f);
  EXPECT_EQ(numbers[2], 1e8);
  EXPECT_EQ(numbers[3], std::numeric_limits<double>::infinity());
  EXPECT_EQ(numbers[4], -std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(numbers[5]));
  EXPECT_EQ(numbers[6], 42);
  Tensor whole(DType::String, {2});
  whole.mutable_strings() = {"9007199254740993", "100.5"};
  EXPECT_EQ(to_vector<int64_t>(cast_to(whole, DType::I64)), (std::vector<int64_t>{9007199254740993, 100}));
  EXPECT_EQ(cast_to(Tensor::vector<float>({0.1f, -2.5f, 100.0f}), DType::String).strings(), (std::vector<std::string>{"0.1", "-2.5", "100"}));
  EXPECT_EQ(cast_to(Tensor::vector<int64_t>({-7, 12}), DType::String).strings(), (std::vector<std::string>{"-7", "12"}));
  Tensor wrong(DType::String, {1});
  wrong.mutable_strings() = {"seven"};
  EXPECT_THROW(cast_to(wrong, DType::F32), Error);
}

TEST(Cast, KeepsTheLayoutAndFollowsAnotherInputsType) {
  Numbers numbers(25);
  const Tensor x = numbers.floats({1, 3, 2, 2});
  const Laid y = run_laid({"CastLike"}, {channels_last(x), {Tensor::scalar<int32_t>(0)}})[0];
  EXPECT_EQ(y.layout, Layout::ChannelsLast);
  EXPECT_EQ(to_vector<int64_t>(plain(y)), to_vector<int64_t>(cast(x, DType::I32)));
}

TEST(Dropout, InInferencePassesTheInputOnWithAFullMask) {
  Numbers numbers(26);
  const Tensor x = numbers.floats({3, 4});
  const auto y = run_op({"Dropout", {}, 13, 2}, {x});
  EXPECT_EQ(to_vector<double>(y[0]), to_vector<double>(x));
  EXPECT_EQ(to_vector<int64_t>(y[1]), std::vector<int64_t>(12, 1));
}

}  // namespace
}  // namespace infopt::test

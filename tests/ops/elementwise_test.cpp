// Broadcasting, layouts, in-place results and element types of the element-wise operators, against plain loops in double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "lib/base/error.h"
#include "lib/base/float_math.h"
#include "tests/ops/op_harness.h"

namespace infopt::test {
namespace {

/// The element of a tensor of shape `from` that lands at `index` of the shape `to`.
int64_t broadcast_offset(const Shape& from, const Shape& to, int64_t index) {
  int64_t offset = 0, stride = 1;
  for (size_t d = to.size(), k = from.size(); d-- > 0;) {
    const int64_t at = index % to[d];
    index /= to[d];
    if (k == 0) continue;
    --k;
    if (from[k] != 1) offset += at * stride;
    stride *= from[k];
  }
  return offset;
}

double expected_of(const std::string& op, double a, double b) {
  if (op == "Add") return a + b;
  if (op == "Sub") return a - b;
  if (op == "Mul") return a * b;
  if (op == "Div") return a / b;
  if (op == "PRelu") return a < 0 ? a * b : a;
  if (op == "Max") return std::fmax(a, b);
  if (op == "Min") return std::fmin(a, b);
  return a < b;  // Less
}

Shape broadcast(const Shape& a, const Shape& b) {
  Shape shape(std::max(a.size(), b.size()), 1);
  for (size_t d = 0; d < shape.size(); ++d) {
    if (d < a.size()) shape[shape.size() - 1 - d] = std::max(shape[shape.size() - 1 - d], a[a.size() - 1 - d]);
    if (d < b.size()) shape[shape.size() - 1 - d] = std::max(shape[shape.size() - 1 - d], b[b.size() - 1 - d]);
  }
  return shape;
}

void check_binary(const std::string& op, const Tensor& a, const Tensor& b, const Tensor& y, double slack = 1e-6) {
  const Shape shape = broadcast(a.shape(), b.shape());
  ASSERT_EQ(y.shape(), shape) << op << to_string(a.shape()) << to_string(b.shape());
  const std::vector<double> xs = to_vector<double>(a), zs = to_vector<double>(b), ys = to_vector<double>(y);
  for (int64_t i = 0; i < y.size(); ++i) {
    const double expected = expected_of(op, xs[static_cast<size_t>(broadcast_offset(a.shape(), shape, i))], zs[static_cast<size_t>(broadcast_offset(b.shape(), shape, i))]);
    ASSERT_NEAR(ys[static_cast<size_t>(i)], expected, slack * (1 + std::fabs(expected))) << op << to_string(a.shape()) << to_string(b.shape()) << " at " << i;
  }
}

const char* const kBinary[] = {"Add", "Sub", "Mul", "Div", "PRelu", "Max", "Min", "Less"};

TEST(Broadcasting, MatchesPlainLoopsOverRandomShapes) {
  Numbers numbers(1);
  for (int round = 0; round < 400; ++round) {
    Shape a, b;
    for (int64_t d = numbers.below(6); d > 0; --d) {
      const int64_t size = 1 + numbers.below(5) * (numbers.below(4) == 0 ? 7 : 1);
      const int64_t kind = numbers.below(4);
      a.push_back(kind == 0 ? 1 : size);
      b.push_back(kind == 1 ? 1 : size);
    }
    auto& shorter = numbers.below(2) ? a : b;
    shorter.erase(shorter.begin(), shorter.begin() + numbers.below(static_cast<int64_t>(shorter.size()) + 1));
    const Tensor x = numbers.floats(a), y = numbers.floats(b);
    const std::string op = kBinary[round % 8];
    check_binary(op, x, y, run_op({op}, {x, y})[0]);
  }
}

TEST(Broadcasting, HandlesTheCommonPatternsAtSize) {
  Numbers numbers(2);
  const std::pair<Shape, Shape> patterns[] = {{{2, 24, 9, 9}, {1, 24, 1, 1}}, {{2, 24, 9, 9}, {24, 1, 1}}, {{2, 3, 40}, {40}},   {{700, 5}, {5}},
                                              {{5}, {700, 5}},                {{6, 1, 7}, {1, 50, 7}},     {{4, 1000}, {4, 1}}, {{}, {3, 3}},
                                              {{2, 24, 9, 9}, {2, 24, 1, 1}}, {{1, 1, 9, 9}, {2, 24, 9, 9}}, {{0, 3}, {3}},      {{}, {}}};
  for (const auto& [a, b] : patterns)
    for (const char* op : kBinary) {
      const Tensor x = numbers.floats(a), y = numbers.floats(b);
      if (element_count(a) && element_count(b)) check_binary(op, x, y, run_op({op}, {x, y})[0]);
      else EXPECT_EQ(run_op({op}, {x, y})[0].size(), 0);
    }
}

TEST(Broadcasting, RefusesShapesThatDontFit) {
  Numbers numbers(3);
  EXPECT_THROW(run_op({"Add"}, {numbers.floats({2, 3}), numbers.floats({2})}), Error);
  EXPECT_THROW(run_op({"Add"}, {numbers.floats({2}), Tensor::vector<int32_t>({1, 2})}), Error);
  EXPECT_THROW(run_op({"Not"}, {numbers.floats({2})}), Error);
  EXPECT_THROW(run_op({"And"}, {numbers.floats({2}), numbers.floats({2})}), Error);
}

TEST(Layouts, StayChannelsLastWhereTheOperandsAllowIt) {
  Numbers numbers(4);
  const Tensor x = numbers.floats({2, 5, 3, 4});
  const Shape kept[] = {{2, 5, 3, 4}, {}, {1}, {1, 5, 1, 1}, {5, 1, 1}, {2, 5, 1, 1}, {2, 1, 3, 4}, {1, 1, 1, 1}};
  for (const Shape& shape : kept) {
    const Tensor b = numbers.floats(shape);
    const bool same = shape == x.shape();
    const Laid y = run_laid({"Sub"}, {channels_last(x), same ? channels_last(b) : Laid{b}})[0];
    EXPECT_EQ(y.layout, Layout::ChannelsLast) << to_string(shape);
    check_binary("Sub", x, b, plain(y));
    const Laid z = run_laid({"Sub"}, {same ? channels_last(b) : Laid{b}, channels_last(x)})[0];
    EXPECT_EQ(z.layout, Layout::ChannelsLast) << to_string(shape);
    check_binary("Sub", b, x, plain(z));
  }
  const Shape lost[] = {{4}, {3, 4}, {2, 5, 3, 4}, {2, 2, 5, 3, 4}};
  for (const Shape& shape : lost) {
    const Tensor b = numbers.floats(shape);
    check_binary("Sub", x, b, plain(run_laid({"Sub"}, {channels_last(x), {b}})[0]));
  }
}

TEST(Layouts, AreKeptByFunctionsOfOneElement) {
  Numbers numbers(5);
  const Tensor x = numbers.floats({2, 3, 4, 5});
  for (const char* op : {"Relu", "Exp", "Clip", "HardSwish", "Sigmoid", "Gelu"}) {
    const Laid y = run_laid({op}, {channels_last(x)})[0];
    EXPECT_EQ(y.layout, Layout::ChannelsLast) << op;
    const Tensor expected = run_op({op}, {x})[0], actual = plain(y);
    EXPECT_EQ(std::memcmp(actual.raw(), expected.raw(), expected.bytes()), 0) << op;
  }
}

TEST(InPlace, GivesTheSameBits) {
  Numbers numbers(6);
  const Tensor x = numbers.floats({3, 70, 5}), row = numbers.floats({5}), column = numbers.floats({70, 1});
  for (const char* op : {"Relu", "Exp", "Gelu", "Softplus", "Softmax"})
    for (bool reuse : {false, true})
      EXPECT_EQ(std::memcmp(run_laid({op}, {{x}}, reuse)[0].tensor.raw(), run_op({op}, {x})[0].raw(), x.bytes()), 0) << op;
  for (const char* op : {"Add", "Sub", "Div", "Max"})
    for (const Tensor& b : {x, row, column}) {
      EXPECT_EQ(std::memcmp(run_laid({op}, {{x}, {b}}, true)[0].tensor.raw(), run_op({op}, {x, b})[0].raw(), x.bytes()), 0) << op;
      EXPECT_EQ(std::memcmp(run_laid({op}, {{b}, {x}}, true)[0].tensor.raw(), run_op({op}, {b, x})[0].raw(), x.bytes()), 0) << op;
    }
}

TEST(Bits, OfAnElementAreTheSameInEveryInstructionSet) {
  Numbers numbers(7);
  const Tensor x = numbers.floats({1003}, -12, 12);
  const std::pair<const char*, float (*)(float)> functions[] = {
      {"Exp", [](float v) { return exp_f(v); }},   {"Erf", [](float v) { return erf_f(v); }},           {"Tanh", [](float v) { return tanh_f(v); }},
      {"Gelu", [](float v) { return gelu_f(v); }}, {"Sigmoid", [](float v) { return sigmoid_f(v); }},   {"Mish", [](float v) { return mish_f(v); }},
      {"Log", [](float v) { return log_f(v); }},   {"Softplus", [](float v) { return softplus_f(v); }}, {"Round", [](float v) { return round_even_f(v); }}};
  for (const auto& [op, function] : functions) {
    const Tensor y = run_op({op, {}, 22}, {x})[0];
    for (int64_t i = 0; i < x.size(); ++i) {
      const float expected = function(x.data<float>()[i]), actual = y.data<float>()[i];
      if (std::isnan(expected)) EXPECT_TRUE(std::isnan(actual));
      else EXPECT_EQ(std::bit_cast<uint32_t>(actual), std::bit_cast<uint32_t>(expected)) << op << " of " << x.data<float>()[i];
    }
  }
}

TEST(Types, OfSixteenBitsAreComputedInFloat32AndRounded) {
  Numbers numbers(8);
  const Tensor x = numbers.floats({50}), z = numbers.floats({50}, 0.5f, 2);
  for (DType t : {DType::F16, DType::BF16}) {
    const Tensor a = cast(x, t), b = cast(z, t);
    for (const char* op : kBinary) {
      const Tensor y = run_op({op}, {a, b})[0], expected = run_op({op}, {cast(a, DType::F32), cast(b, DType::F32)})[0];
      EXPECT_EQ(to_vector<float>(y), to_vector<float>(cast(expected, y.dtype()))) << op;
    }
    for (const char* op : {"Relu", "Exp", "Abs", "Softmax", "ReduceMean"}) {
      const Tensor y = run_op({op}, {a})[0];
      EXPECT_EQ(y.dtype(), t);
      EXPECT_EQ(to_vector<float>(y), to_vector<float>(cast(run_op({op}, {cast(a, DType::F32)})[0], t))) << op;
    }
  }
}

TEST(Types, IntegersWrapAndNeverTrap) {
  const int32_t least = std::numeric_limits<int32_t>::min();
  const Tensor a = Tensor::vector<int32_t>({least, 7, least}), b = Tensor::vector<int32_t>({-1, 0, 2});
  EXPECT_EQ(to_vector<int64_t>(run_op({"Div"}, {a, b})[0]), (std::vector<int64_t>{least, 0, least / 2}));
  EXPECT_EQ(to_vector<int64_t>(run_op({"Mod"}, {a, b})[0]), (std::vector<int64_t>{0, 0, 0}));
  EXPECT_EQ(to_vector<int64_t>(run_op({"Mul"}, {a, b})[0]), (std::vector<int64_t>{least, 0, 0}));
  EXPECT_EQ(to_vector<int64_t>(run_op({"Abs"}, {a})[0]), (std::vector<int64_t>{least, 7, least}));
  EXPECT_EQ(to_vector<int64_t>(run_op({"Add"}, {Tensor::vector<uint8_t>({250, 3}), Tensor::vector<uint8_t>({10, 4})})[0]), (std::vector<int64_t>{4, 7}));
  EXPECT_EQ(to_vector<int64_t>(run_op({"Neg"}, {Tensor::vector<int8_t>({-128, 5})})[0]), (std::vector<int64_t>{-128, -5}));
}

TEST(Types, ShiftsBeyondTheWidthLeaveTheSign) {
  const Op right{"BitShift", {{"direction", std::string("RIGHT"), {}}}, 28}, left{"BitShift", {{"direction", std::string("LEFT"), {}}}, 28};
  const Tensor a = Tensor::vector<int8_t>({-100, 100, -100}), b = Tensor::vector<int8_t>({2, 9, -1});
  EXPECT_EQ(to_vector<int64_t>(run_op(right, {a, b})[0]), (std::vector<int64_t>{-25, 0, -1}));
  EXPECT_EQ(to_vector<int64_t>(run_op(left, {a, b})[0]), (std::vector<int64_t>{112, 0, 0}));
}

TEST(Types, NaNGoesThroughActivationsAndExtremes) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor x = Tensor::vector<float>({nan, 1}), one = Tensor::vector<float>({1, 1});
  for (const char* op : {"Relu", "Clip", "LeakyRelu", "HardSigmoid", "HardSwish", "Elu", "Sigmoid", "Tanh", "Gelu", "Softplus", "Abs", "ThresholdedRelu"})
    EXPECT_TRUE(std::isnan(run_op({op}, {x})[0].data<float>()[0])) << op;
  for (const char* op : {"Max", "Min"}) {
    EXPECT_TRUE(std::isnan(run_op({op}, {x, one})[0].data<float>()[0])) << op;
    EXPECT_TRUE(std::isnan(run_op({op}, {one, x})[0].data<float>()[0])) << op;
  }
}

TEST(Where, ChoosesWithAnyBroadcastAndType) {
  Numbers numbers(9);
  const Shape shapes[][3] = {{{2, 3, 40}, {2, 3, 40}, {}}, {{40}, {2, 3, 40}, {1}}, {{2, 1, 40}, {3, 1}, {2, 3, 40}}, {{1}, {5}, {5}}, {{6, 1}, {}, {4}}};
  for (const auto& [c, x, y] : shapes) {
    Tensor condition(DType::Bool, c);
    for (int64_t i = 0; i < condition.size(); ++i) condition.mutable_data<bool>()[i] = numbers.below(2) != 0;
    const Tensor a = numbers.floats(x, -100, 100), b = numbers.floats(y, -100, 100);
    for (DType t : {DType::F32, DType::F64, DType::I64, DType::I8, DType::F16}) {
      const Tensor ta = cast(a, t), tb = cast(b, t);
      const Tensor chosen = run_op({"Where"}, {condition, ta, tb})[0];
      const Shape shape = broadcast(broadcast(c, x), y);
      ASSERT_EQ(chosen.shape(), shape);
      const auto as = to_vector<double>(ta), bs = to_vector<double>(tb), cs = to_vector<double>(condition), out = to_vector<double>(chosen);
      for (int64_t i = 0; i < chosen.size(); ++i) {
        const bool yes = cs[static_cast<size_t>(broadcast_offset(c, shape, i))] != 0;
        EXPECT_EQ(out[static_cast<size_t>(i)], yes ? as[static_cast<size_t>(broadcast_offset(x, shape, i))] : bs[static_cast<size_t>(broadcast_offset(y, shape, i))]);
      }
    }
  }
}

// This file is compiled without optimization, for the oldest instruction set: fma is the C library's.
TEST(Elementwise, FunctionsGiveTheSameBitsOnEveryInstructionSet) {
  const struct {
    const char* op;
    float (*function)(float);
  } cases[] = {{"Exp", [](float x) { return exp_f(x); }},         {"Log", [](float x) { return log_f(x); }},   {"Erf", [](float x) { return erf_f(x); }},
               {"Tanh", [](float x) { return tanh_f(x); }},       {"Gelu", [](float x) { return gelu_f(x); }}, {"Sigmoid", [](float x) { return sigmoid_f(x); }},
               {"Softplus", [](float x) { return softplus_f(x); }}, {"Mish", [](float x) { return mish_f(x); }}};
  Tensor x(DType::F32, {20011});
  for (int64_t i = 0; i < x.size(); ++i) x.mutable_data<float>()[i] = static_cast<float>(i - 10000) * 0.00913f;
  for (const auto& c : cases) {
    const Tensor y = run_op(Op{c.op}, {x})[0];
    for (int64_t i = 0; i < x.size(); ++i) {
      const float expected = c.function(x.data<float>()[i]), got = y.data<float>()[i];
      ASSERT_TRUE(std::memcmp(&expected, &got, sizeof got) == 0 || (std::isnan(expected) && std::isnan(got))) << c.op << " of " << x.data<float>()[i] << ": " << got << " for " << expected;
    }
  }
}

}  // namespace
}  // namespace infopt::test

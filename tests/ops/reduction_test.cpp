// Reductions, softmax and the normalizations over random shapes, against plain loops in double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "lib/base/error.h"
#include "tests/ops/op_harness.h"

namespace infopt::test {
namespace {

using Reduction = std::function<double(const std::vector<double>&)>;

double sum_of(const std::vector<double>& v) {
  double total = 0;
  for (double x : v) total += x;
  return total;
}

const std::pair<const char*, Reduction> kReductions[] = {
    {"ReduceSum", sum_of},
    {"ReduceMean", [](const auto& v) { return sum_of(v) / static_cast<double>(v.size()); }},
    {"ReduceMax", [](const auto& v) { return *std::max_element(v.begin(), v.end()); }},
    {"ReduceMin", [](const auto& v) { return *std::min_element(v.begin(), v.end()); }},
    {"ReduceL2", [](auto v) { for (double& x : v) x *= x; return std::sqrt(sum_of(v)); }},
    {"ReduceL1", [](auto v) { for (double& x : v) x = std::fabs(x); return sum_of(v); }},
    {"ReduceSumSquare", [](auto v) { for (double& x : v) x *= x; return sum_of(v); }},
    {"ReduceLogSumExp", [](auto v) { for (double& x : v) x = std::exp(x); return std::log(sum_of(v)); }},
};

/// The elements that fall together when the axes are reduced, by the position of their result.
std::vector<std::vector<double>> groups_of(const Tensor& t, const std::vector<bool>& reduced) {
  int64_t count = 1;
  for (size_t d = 0; d < reduced.size(); ++d) count *= reduced[d] ? 1 : t.shape()[d];
  std::vector<std::vector<double>> groups(static_cast<size_t>(count));
  const std::vector<double> values = to_vector<double>(t);
  for (int64_t i = 0; i < t.size(); ++i) {
    int64_t rest = i, at = 0, stride = 1;
    for (size_t d = reduced.size(); d-- > 0;) {
      if (!reduced[d]) at += rest % t.shape()[d] * stride, stride *= t.shape()[d];
      rest /= t.shape()[d];
    }
    groups[static_cast<size_t>(at)].push_back(values[static_cast<size_t>(i)]);
  }
  return groups;
}

TEST(Reductions, MatchPlainLoopsOverRandomShapesAndAxes) {
  Numbers numbers(11);
  for (int round = 0; round < 300; ++round) {
    Shape shape;
    std::vector<bool> reduced;
    std::vector<int64_t> axes;
    for (int64_t d = 1 + numbers.below(4); d > 0; --d) shape.push_back(1 + numbers.below(3) * 11 + numbers.below(3));
    for (size_t d = 0; d < shape.size(); ++d) {
      reduced.push_back(numbers.below(2) != 0);
      if (reduced.back()) axes.push_back(numbers.below(2) ? static_cast<int64_t>(d) : static_cast<int64_t>(d) - static_cast<int64_t>(shape.size()));
    }
    if (axes.empty()) continue;
    const Tensor x = numbers.floats(shape);
    const auto groups = groups_of(x, reduced);
    const auto& [name, reduce] = kReductions[round % 8];
    for (bool wide : {false, true}) {
      const Tensor y = run_op({name}, {wide ? cast(x, DType::F64) : x, Tensor::vector(axes)})[0];
      ASSERT_EQ(y.rank(), x.rank());
      const std::vector<double> values = to_vector<double>(y);
      for (size_t i = 0; i < groups.size(); ++i)
        ASSERT_NEAR(values[i], reduce(groups[i]), (wide ? 1e-9 : 2e-5) * (1 + std::fabs(values[i]))) << name << to_string(shape);
    }
  }
}

TEST(Reductions, OverSpaceTakeChannelsLast) {
  Numbers numbers(12);
  const Tensor x = numbers.floats({2, 17, 5, 6});
  const Tensor axes = Tensor::vector<int64_t>({2, 3});
  for (const auto& [name, reduce] : kReductions) {
    const auto expected = to_vector<double>(run_op({name}, {x, axes})[0]), actual = to_vector<double>(plain(run_laid({name}, {channels_last(x), {axes}})[0]));
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 2e-5 * (1 + std::fabs(expected[i]))) << name;
  }
}

TEST(Reductions, OfAnEmptySetGiveTheNeutralElement) {
  const Tensor none = Tensor::zeros(DType::F32, {2, 0}), axes = Tensor::vector<int64_t>({1});
  const double infinity = std::numeric_limits<double>::infinity();
  const std::pair<const char*, double> cases[] = {{"ReduceSum", 0},        {"ReduceProd", 1},        {"ReduceMax", -infinity}, {"ReduceMin", infinity},
                                                  {"ReduceSumSquare", 0},  {"ReduceL1", 0},          {"ReduceL2", 0},          {"ReduceLogSum", -infinity},
                                                  {"ReduceLogSumExp", -infinity}};
  for (const auto& [name, expected] : cases) EXPECT_EQ(to_vector<double>(run_op({name}, {none, axes})[0]), (std::vector<double>{expected, expected})) << name;
}

TEST(Reductions, WithoutAxesReduceAllOrNothing) {
  const Tensor x = Tensor::of<float>({2, 2}, {1, -2, 3, 4});
  EXPECT_EQ(to_vector<double>(run_op({"ReduceSum"}, {x})[0]), (std::vector<double>{6}));
  const Op noop{"ReduceSumSquare", {{"noop_with_empty_axes", int64_t{1}, {}}}};
  EXPECT_EQ(to_vector<double>(run_op(noop, {x})[0]), (std::vector<double>{1, 4, 9, 16}));
  EXPECT_THROW(run_op({"ReduceSum"}, {x, Tensor::vector<int64_t>({2})}), Error);
}

TEST(Softmax, MatchesPlainLoopsOnAnyAxis) {
  Numbers numbers(13);
  for (const Shape& shape : {Shape{3, 70}, Shape{2, 5, 131}, Shape{2, 33, 4, 5}, Shape{7}}) {
    const Tensor x = numbers.floats(shape, -30, 30);
    for (int64_t axis = 0; axis < x.rank(); ++axis) {
      const std::vector<bool> reduced = [&] { std::vector<bool> r(shape.size(), false); r[static_cast<size_t>(axis)] = true; return r; }();
      const auto in = groups_of(x, reduced), out = groups_of(run_op({"Softmax", {{"axis", axis, {}}}, 13}, {x})[0], reduced);
      const auto logs = groups_of(run_op({"LogSoftmax", {{"axis", axis, {}}}, 13}, {x})[0], reduced);
      for (size_t g = 0; g < in.size(); ++g) {
        double total = 0;
        for (double v : in[g]) total += std::exp(v);
        for (size_t i = 0; i < in[g].size(); ++i) {
          ASSERT_NEAR(out[g][i], std::exp(in[g][i]) / total, 4e-6 * std::exp(in[g][i]) / total);
          ASSERT_NEAR(logs[g][i], in[g][i] - std::log(total), 1e-5);
        }
      }
    }
  }
}

TEST(Softmax, TakesChannelsLastAlongTheChannels) {
  Numbers numbers(14);
  const Tensor x = numbers.floats({2, 19, 3, 4});
  const Op op{"Softmax", {{"axis", int64_t{1}, {}}}, 13};
  const Laid y = run_laid(op, {channels_last(x)})[0];
  EXPECT_EQ(y.layout, Layout::ChannelsLast);
  const auto actual = to_vector<double>(plain(y)), expected = to_vector<double>(run_op(op, {x})[0]);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 1e-6);
}

TEST(Softmax, GivesMaskedPlacesZero) {
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor y = run_op({"Softmax", {}, 13}, {Tensor::of<float>({1, 4}, {0, -infinity, 0, -1e4f})})[0];
  EXPECT_EQ(to_vector<double>(y), (std::vector<double>{0.5, 0, 0.5, 0}));
}

TEST(Normalizations, OfRowsDontDependOnTheBatch) {
  Numbers numbers(15);
  const Tensor x = numbers.floats({6, 77}, -5, 9), gain = numbers.floats({77}), bias = numbers.floats({77});
  for (const char* op : {"LayerNormalization", "Softmax"}) {
    const bool layer = std::string(op) == "LayerNormalization";
    const Tensor whole = run_op({op}, layer ? std::vector<Tensor>{x, gain, bias} : std::vector<Tensor>{x})[0];
    for (int64_t r = 0; r < 6; ++r) {
      const Tensor row = x.slice_front(r, 1);
      const Tensor alone = run_op({op}, layer ? std::vector<Tensor>{row, gain, bias} : std::vector<Tensor>{row})[0];
      EXPECT_EQ(std::memcmp(alone.raw(), whole.slice_front(r, 1).raw(), alone.bytes()), 0) << op;
    }
  }
}

TEST(Normalizations, OfRowsHaveMeanZeroAndDeviationOne) {
  Numbers numbers(16);
  const Tensor x = numbers.floats({5, 300}, 90, 110), ones = Tensor::vector(std::vector<float>(300, 1.0f));
  const auto rows = groups_of(run_op({"LayerNormalization"}, {x, ones})[0], {false, true});
  for (const auto& row : rows) {
    double squares = 0;
    for (double v : row) squares += v * v;
    EXPECT_NEAR(sum_of(row) / 300, 0, 1e-5);
    EXPECT_NEAR(squares / 300, 1, 1e-4);
  }
}

TEST(Normalizations, RootMeanSquareIsDividedOut) {
  const Tensor x = Tensor::of<float>({1, 4}, {1, 2, 3, 4}), gain = Tensor::vector<float>({1, 1, 2, 2});
  const std::vector<double> y = to_vector<double>(run_op({"RMSNormalization", {{"epsilon", 0.0f, {}}}, 23}, {x, gain})[0]);
  const double rms = std::sqrt(30.0 / 4);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(y[static_cast<size_t>(i)], (i + 1) * (i < 2 ? 1 : 2) / rms, 1e-6);
}

TEST(BatchNormalization, WorksInAnyLayoutAndType) {
  Numbers numbers(17);
  const Tensor x = numbers.floats({2, 6, 5, 7});
  const std::vector<Tensor> p{numbers.floats({6}), numbers.floats({6}), numbers.floats({6}), numbers.floats({6}, 0.1f, 2)};
  const Tensor y = run_op({"BatchNormalization"}, {x, p[0], p[1], p[2], p[3]})[0];
  for (int64_t i = 0; i < y.size(); ++i) {
    const auto c = static_cast<size_t>(i / 35 % 6);
    const auto at = [&](size_t k) { return static_cast<double>(p[k].data<float>()[c]); };
    const double expected = (x.data<float>()[i] - at(2)) / std::sqrt(at(3) + 1e-5) * at(0) + at(1);
    ASSERT_NEAR(y.data<float>()[i], expected, 3e-6 * (1 + std::fabs(expected)));
  }
  const Laid last = run_laid({"BatchNormalization"}, {channels_last(x), {p[0]}, {p[1]}, {p[2]}, {p[3]}}, true)[0];
  EXPECT_EQ(last.layout, Layout::ChannelsLast);
  EXPECT_EQ(std::memcmp(plain(last).raw(), y.raw(), y.bytes()), 0);
  const Tensor half_y = run_op({"BatchNormalization"}, {cast(x, DType::F16), p[0], p[1], p[2], p[3]})[0];
  EXPECT_EQ(half_y.dtype(), DType::F16);
  EXPECT_THROW(run_op({"BatchNormalization"}, {x, p[0], p[1], p[2], numbers.floats({5})}), Error);
}

}  // namespace
}  // namespace infopt::test

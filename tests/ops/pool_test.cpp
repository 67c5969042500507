// Poolings in either layout.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/ops/op_harness.h"

namespace infopt::test {
namespace {

// As PyTorch and the CUDA kernel have it. ONNX Runtime's answer depends on where in the window the NaN lies, on the channels and on the width.
TEST(MaxPool, NaNIsGreaterThanAnyNumberInEitherLayout) {
  const float nan = std::nanf("");
  const std::vector<int64_t> two{2, 2};
  for (const int64_t channels : {1, 5, 16, 33})
    for (int64_t place = 0; place < 4; ++place) {
      Tensor x = Numbers(7).floats({1, channels, 2, 6});
      for (int64_t c = 0; c < channels; ++c) x.mutable_data<float>()[c * 12 + place / 2 * 6 + place % 2 + 2] = nan;
      for (const char* name : {"MaxPool", "GlobalMaxPool"})
        for (const bool last : {false, true}) {
          SCOPED_TRACE(testing::Message() << name << ", " << channels << " channels, place " << place << (last ? ", channels last" : ""));
          Op op{name};
          if (op.name == "MaxPool") op.attributes = {{"kernel_shape", two, {}}, {"strides", two, {}}};
          const Tensor y = plain(run_laid(op, {last ? channels_last(x) : Laid{x}})[0]);
          const int64_t columns = y.dim(3);
          for (int64_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y.data<float>()[i]), columns == 1 || i % columns == 1) << i;
        }
    }
  const auto places = run_op({.name = "MaxPool", .attributes = {{"kernel_shape", two, {}}}, .outputs = 2}, {Tensor::of<float>({1, 1, 2, 2}, {1, nan, 3, nan})});
  EXPECT_TRUE(std::isnan(places[0].data<float>()[0]));
  EXPECT_EQ(places[1].data<int64_t>()[0], 1);  // the first
}

// The kernel for doubles goes from window to window; those for float32 from tap to tap, in each layout.
TEST(Pool, Float32InEitherLayoutEqualsDoubles) {
  Numbers numbers(11);
  const auto some = [&](int64_t low, int64_t high) { return low + numbers.below(high - low + 1); };
  for (int round = 0; round < 150; ++round) {
    Op op{round % 2 ? "AveragePool" : "MaxPool"};
    const int64_t h = some(1, 12), w = some(1, 40), kh = some(1, std::min<int64_t>(h, 5)), kw = some(1, std::min<int64_t>(w, 7));
    const bool whole = round % 7 == 3;
    if (whole) op.attributes = {{"kernel_shape", std::vector<int64_t>{h, w}, {}}};
    else
      op.attributes = {{"kernel_shape", std::vector<int64_t>{kh, kw}, {}},
                       {"strides", std::vector<int64_t>{some(1, 3), some(1, 3)}, {}},
                       {"pads", std::vector<int64_t>{some(0, kh - 1), some(0, kw - 1), some(0, kh - 1), some(0, kw - 1)}, {}}};
    if (round % 2) op.attributes.push_back({"count_include_pad", some(0, 1), {}});
    const Tensor x = numbers.floats({some(1, 3), some(1, 20), h, w});
    const Tensor expected = run_op(op, {cast(x, DType::F64)})[0];
    for (const bool last : {false, true}) {
      SCOPED_TRACE(testing::Message() << op.name << " round " << round << (last ? ", channels last" : ""));
      const Tensor y = plain(run_laid(op, {last ? channels_last(x) : Laid{x}})[0]);
      ASSERT_EQ(y.shape(), expected.shape());
      for (int64_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y.data<float>()[i], expected.data<double>()[i], 1e-5) << i;
    }
  }
}

}  // namespace
}  // namespace infopt::test

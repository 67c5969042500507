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

}  // namespace
}  // namespace infopt::test

// The nearest Resize of channels that lie together gives what it gives of planes, and keeps the layout.
#include <gtest/gtest.h>

#include <cstring>

#include "lib/base/share.h"
#include "tests/ops/op_harness.h"

namespace infopt::test {
namespace {

TEST(ResizeLayout, PicksRunsOfChannelsAsItPicksElements) {
  const std::vector<std::vector<float>> scales{{1, 1, 2, 2}, {1, 1, 3, 2}, {1, 1, 1, 4}, {1, 1, 2, 1}, {1, 1, 1.5f, 0.5f}, {2, 1, 1, 2}};
  for (const int64_t channels : {2, 3, 15, 16, 17, 24, 100})
    for (const auto& scale : scales)
      for (const DType dtype : {DType::F32, DType::U8, DType::F16}) {
        const Shape shape{2, channels, 5, 7};
        Tensor counted(DType::F32, shape);
        for (int64_t i = 0; i < counted.size(); ++i) counted.mutable_data<float>()[i] = static_cast<float>(i % 251);
        const Tensor x = cast(counted, dtype);
        const Op op{"Resize", {{"mode", std::string("nearest"), {}}, {"coordinate_transformation_mode", std::string("asymmetric"), {}}, {"nearest_mode", std::string("floor"), {}}}};
        const Laid by{Tensor::of<float>({4}, scale)};
        const RunThreads threads(channels % 3 + 1);
        const Laid got = run_laid(op, {channels_last(x), {}, by})[0];
        EXPECT_EQ(got.layout, Layout::ChannelsLast);
        const Tensor y = cast(plain(got), DType::F32);
        const Shape out{static_cast<int64_t>(2 * scale[0]), channels, static_cast<int64_t>(5 * scale[2]), static_cast<int64_t>(7 * scale[3])};
        ASSERT_EQ(y.shape(), out);
        int64_t at = 0;
        for (int64_t n = 0; n < out[0]; ++n)
          for (int64_t c = 0; c < channels; ++c)
            for (int64_t i = 0; i < out[2]; ++i)
              for (int64_t j = 0; j < out[3]; ++j, ++at) {
                const auto from = [&](int64_t place, size_t axis) { return static_cast<int64_t>(static_cast<float>(place) / scale[axis]); };
                ASSERT_EQ(y.data<float>()[at], counted.data<float>()[((from(n, 0) * channels + c) * 5 + from(i, 2)) * 7 + from(j, 3)]) << channels << " channels, place " << at;
              }
      }
}

}  // namespace
}  // namespace infopt::test

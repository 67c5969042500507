// Expected values: NumPy, after np.pad of the shorter tensor.
#include "lib/report/compare.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lib/base/error.h"

namespace infopt::test {
namespace {

TEST(OutputComparison, CountsWhatOneLacksAsZeros) {
  OutputComparison sums;
  sums.add(Tensor::of<float>({1, 2, 2}, {3, 4, 0, 1}), Tensor::of<float>({1, 1, 3}, {3, 2, 2}));  // differences 0 2 -2; 0 1 0
  sums.add(Tensor::of<float>({1, 1, 1}, {2}), Tensor::of<float>({1, 1, 1}, {2}));
  const OutputReport report = sums.result("y");
  EXPECT_NEAR(report.sqnr_db, 10 * std::log10(30.0 / 9.0), 1e-9);
  EXPECT_EQ(report.max_abs_error, 2);
  EXPECT_EQ(sums.differing("y"), "output 'y' has another shape than the original's on 1 of 2 samples: what one of them lacks counts as zeros");
}

TEST(OutputComparison, SaysNothingOfEqualShapesAndRefusesOtherRanks) {
  OutputComparison sums;
  sums.add(Tensor::of<float>({2}, {1, 2}), Tensor::of<float>({2}, {1, 2}));
  EXPECT_EQ(sums.differing("y"), "");
  EXPECT_THROW(sums.add(Tensor::of<float>({2}, {1, 2}), Tensor::of<float>({1, 2}, {1, 2})), Error);
}

}  // namespace
}  // namespace infopt::test

#include "lib/base/finite.h"

#include <gtest/gtest.h>

#include <cmath>

namespace infopt {
namespace {

TEST(FirstNonfinite, FindsTheFirstInEveryFloatType) {
  for (const DType dtype : {DType::F32, DType::F64, DType::F16, DType::BF16, DType::F8E4M3FN, DType::F8E5M2}) {
    for (const int64_t place : {int64_t{0}, int64_t{5}, int64_t{16383}, int64_t{16384}, int64_t{39999}}) {
      std::vector<float> values(40000, 1.5f);
      EXPECT_EQ(first_nonfinite(cast(Tensor::vector(values), dtype)), -1);
      values[static_cast<size_t>(place)] = values[39999] = NAN;
      EXPECT_EQ(first_nonfinite(cast(Tensor::vector(values), dtype)), place) << name_of(dtype);
    }
  }
}

TEST(FirstNonfinite, TakesTheLargestValuesAsFinite) {
  EXPECT_EQ(first_nonfinite(Tensor::of<float>({3}, {3.4028235e38f, -3.4028235e38f, 1e-45f})), -1);
  EXPECT_EQ(first_nonfinite(Tensor::of<float>({2}, {0, -INFINITY})), 1);
  EXPECT_EQ(first_nonfinite(Tensor::of<half>({2}, {half{0x7BFF}, half{0x7C00}})), 1);
}

TEST(FirstNonfinite, IsNeverInIntegers) { EXPECT_EQ(first_nonfinite(Tensor::of<int32_t>({1}, {0x7FC00000})), -1); }

}  // namespace
}  // namespace infopt

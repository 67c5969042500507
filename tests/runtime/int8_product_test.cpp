#include "lib/runtime/cpu/int8_product.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/runtime/int8_reference.h"

namespace infopt::cpu {
namespace {

struct Sizes {
  int64_t m, k, n;
};

/// a × w with everything else drawn by chance, compared byte for byte with sums in int64.
void check(unsigned seed, const Sizes& s) {
  Random r(seed);
  Int8Rows a;
  a.dtype = r.pick({DType::U8, DType::I8});
  a.zero = random_zero(r, a.dtype);
  a.stride = s.k + r.pick<int64_t>({0, 0, 1, 64});
  const std::vector<uint8_t> rows = r.bytes((s.m - 1) * a.stride + s.k), weights = r.bytes(s.k * s.n);
  a.data = rows.data();
  const DType w_dtype = r.pick({DType::U8, DType::I8, DType::I8});
  std::vector<int32_t> zeros(static_cast<size_t>(s.n), w_dtype == DType::U8 ? 128 : 0);
  if (r.chance(3))
    for (int32_t& z : zeros) z = random_zero(r, w_dtype);
  const bool transposed = r.chance(2);
  const int64_t k_stride = transposed ? 1 : s.n, n_stride = transposed ? s.k : 1;
  const PackedInt8 packed(weights.data(), w_dtype, s.k, s.n, k_stride, n_stride, zeros.data());

  const int64_t ldc = s.n + r.pick<int64_t>({0, 0, 5}), elements = (s.m - 1) * ldc + s.n;
  const EpilogueCase epilogue(r, s.n, elements, 4000.0 * std::sqrt(static_cast<double>(s.k)));
  const size_t size = int8_output_bytes(epilogue.e);
  std::vector<uint8_t> expected(static_cast<size_t>(elements) * size, 0xAB);
  for (int64_t m = 0; m < s.m; ++m)
    for (int64_t n = 0; n < s.n; ++n) {
      int64_t sum = 0;
      for (int64_t k = 0; k < s.k; ++k)
        sum += static_cast<int64_t>(code_value(rows[static_cast<size_t>(m * a.stride + k)], a.dtype) - a.zero) *
               (code_value(weights[static_cast<size_t>(k * k_stride + n * n_stride)], w_dtype) - zeros[static_cast<size_t>(n)]);
      epilogue.store(sum, n, m * ldc + n, expected.data() + static_cast<size_t>(m * ldc + n) * size);
    }
  const std::vector<int64_t> cuts = random_cuts(r, s.m);
  const int64_t column_cut = s.n > 64 && r.chance(2) ? 64 * r.in(1, (s.n - 1) / 64) : s.n;
  for (const Int8Isa isa : int8_isas()) {
    use_int8_isa(isa);
    std::vector<uint8_t> got(expected.size(), 0xAB);
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      int8_product(a, packed, epilogue.e, epilogue.residual.data(), got.data(), ldc, cuts[i], cuts[i + 1], 0, column_cut);
      if (column_cut < s.n)
        int8_product(a, packed, epilogue.e, epilogue.residual.data(), got.data(), ldc, cuts[i], cuts[i + 1], column_cut, -1);
    }
    ASSERT_TRUE(got == expected) << "isa " << static_cast<int>(isa) << ", seed " << seed << ": " << s.m << "x" << s.k << "x" << s.n << " "
                                 << name_of(a.dtype) << " × " << name_of(w_dtype) << " to " << epilogue.describe();
  }
}

TEST(Int8Product, EqualsTheSumsInInt64ForRandomShapesTypesZeroPointsAndEpilogues) {
  for (unsigned seed = 0; seed < 400; ++seed) {
    Random r(seed + 1000);
    check(seed, {r.in(1, 20), r.in(1, 90), r.in(1, 150)});
  }
}

TEST(Int8Product, CoversEveryTailOfRowsAndColumns) {
  for (int64_t m = 1; m <= 13; ++m)
    for (int64_t n = 1; n <= 66; n += 3) check(static_cast<unsigned>(m * 100 + n), {m, 1 + (m + n) % 9, n});
}

TEST(Int8Product, BlocksLongMatrices) {
  for (unsigned seed = 0; seed < 4; ++seed) check(seed, {seed % 2 ? 500 : 60, seed % 2 ? 5 : 5000, 3});
}

TEST(Int8Product, ExtremesDontSaturate) {
  const std::vector<uint8_t> a(1024, 255), w(1024, 0x80);
  Int8Epilogue e;
  e.output = DType::I32;
  const PackedInt8 packed(w.data(), DType::I8, 1024, 1, 1, 1024);
  for (const Int8Isa isa : int8_isas()) {
    use_int8_isa(isa);
    int32_t sum = 0;
    int8_product({a.data(), DType::U8, 1024, 0}, packed, e, nullptr, &sum, 1, 0, 1);
    EXPECT_EQ(sum, 1024 * 255 * -128);
  }
}

TEST(Int8Product, AnEpilogueThatDoesNotExistIsRefused) {
  const uint8_t one = 1;
  const PackedInt8 packed(&one, DType::I8, 1, 1, 1, 1);
  Int8Epilogue e;
  e.output = DType::F16;
  float c = 0;
  EXPECT_ANY_THROW(int8_product({&one, DType::U8, 1, 0}, packed, e, nullptr, &c, 1, 0, 1));
}

}  // namespace
}  // namespace infopt::cpu

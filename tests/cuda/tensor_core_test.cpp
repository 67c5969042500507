// The emulated tensor-core instructions against products taken element by element.
#include "lib/runtime/cuda/tensor_core.h"

#include "lib/runtime/cuda/launch.h"
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

/// d[16, 8] = a[16, 32]·b[8, 32]ᵀ by one warp, through shared memory.
template <bool Unsigned> void product_of_codes(const uint8_t* a, const int8_t* b, int* d) {
  using namespace cuda;
  auto* tile = shared_memory<uint8_t>();
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 32; i += 32) {  // 16 rows of two pieces
    copy_async<16>(tile + 16 * i, a + 16 * i);
    if (i < 16) copy_async<16>(tile + 512 + 16 * i, b + 16 * i);
  }
  commit_copies();
  wait_copies<0>();
  __syncwarp();
  uint32_t x[4], y[4];
  load_matrices(x, tile + lane % 16 * 32 + lane / 16 * 16);
  load_matrices(y, tile + 512 + lane % 8 * 32 + lane / 8 % 2 * 16);
  int sums[4] = {};
  mma_codes<Unsigned>(sums, x, y[0], y[1]);
  for (int i = 0; i < 4; ++i) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
}

template <bool Unsigned> void check_codes() {
  Random r(Unsigned);
  auto a = r.bytes(512), b = r.bytes(256);
  alignas(16) uint8_t x[512];
  alignas(16) int8_t y[256];
  std::memcpy(x, a.data(), 512);
  std::memcpy(y, b.data(), 256);
  int d[128] = {};
  cuda::emulation::run_grid({1, 1, 1}, {32, 1, 1}, 1024, [&] { product_of_codes<Unsigned>(x, y, d); }, "product_of_codes");
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n) {
      int sum = 0;
      for (int k = 0; k < 32; ++k) sum += (Unsigned ? x[m * 32 + k] : static_cast<int8_t>(x[m * 32 + k])) * y[n * 32 + k];
      ASSERT_EQ(d[m * 8 + n], sum) << m << ' ' << n;
    }
}

TEST(TensorCore, ProductsOfCodesFollowTheFragments) {
  check_codes<true>();
  check_codes<false>();
}

/// d[16, 8] = a[16, 16]·b[8, 16]ᵀ by one warp.
template <class T> void product_of_floats(const T* a, const T* b, float* d) {
  using namespace cuda;
  auto* tile = shared_memory<T>();
  const unsigned lane = threadIdx.x;
  for (unsigned i = lane; i < 384; i += 32) tile[i] = i < 256 ? a[i] : b[i - 256];
  __syncwarp();
  uint32_t x[4], y[4];
  load_matrices(x, tile + lane % 16 * 16 + lane / 16 * 8);
  load_matrices(y, tile + 256 + lane % 8 * 16 + lane / 8 % 2 * 8);
  float sums[4] = {1, 1, 1, 1};
  mma_floats<T>(sums, x, y[0], y[1]);
  for (unsigned i = 0; i < 4; ++i) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
}

template <class T> void check_floats() {
  Random r(3);
  T a[256], b[128];
  for (T& v : a) cuda::store_float(v, static_cast<float>(r.in(-9, 9)));
  for (T& v : b) cuda::store_float(v, static_cast<float>(r.in(-9, 9)));
  float d[128] = {};
  cuda::emulation::run_grid({1, 1, 1}, {32, 1, 1}, 1024, [&] { product_of_floats<T>(a, b, d); }, "product_of_floats");
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n) {
      float sum = 1;
      for (int k = 0; k < 16; ++k) sum += cuda::load_float(a[m * 16 + k]) * cuda::load_float(b[n * 16 + k]);
      ASSERT_EQ(d[m * 8 + n], sum) << m << ' ' << n;
    }
}

TEST(TensorCore, ProductsOf16BitFloatsFollowTheFragments) {
  check_floats<half>();
  check_floats<bfloat16>();
}

TEST(TensorCore, CopiesAreThereOnlyAfterTheWait) {
  alignas(16) uint8_t from[64];
  for (int i = 0; i < 64; ++i) from[i] = static_cast<uint8_t>(i);
  cuda::emulation::run_grid({1, 1, 1}, {1, 1, 1}, 64, [&] {
    using namespace cuda;
    auto* to = shared_memory<uint8_t>();
    copy_async<16>(to, from);
    commit_copies();
    copy_async<16>(to + 16, from + 16, 5);
    copy_async<4>(to + 32, from + 32, 0);
    commit_copies();
    EXPECT_EQ(to[0], 0xFF);
    wait_copies<1>();
    EXPECT_EQ(to[15], 15);
    EXPECT_EQ(to[16], 0xFF);
    wait_copies<0>();
    EXPECT_EQ(to[20], 20);
    EXPECT_EQ(to[21], 0);
    EXPECT_EQ(to[32], 0);
  }, "copies");
}

TEST(TensorCore, MisalignedCopiesAreFaults) {
  alignas(16) uint8_t from[64] = {};
  EXPECT_THROW(cuda::emulation::run_grid({1, 1, 1}, {1, 1, 1}, 64, [&] { cuda::copy_async<16>(cuda::shared_memory<uint8_t>(), from + 4); }, "copies"), Error);
}

}  // namespace
}  // namespace infopt::test

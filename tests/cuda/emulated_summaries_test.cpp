// What summaries cost, as the emulation counts it.
#include "lib/runtime/cuda/fault.h"
#include "lib/runtime/summary.h"
#include "tests/cuda/elements.h"

namespace infopt::test {
namespace {

TEST(EmulatedSummaries, NothingButTheStatisticsComesBack) {
  Random r(1);
  const auto run = cuda_device()->begin();
  const Tensor x = run->to_device(random_tensor(r, DType::F32, {8, 16, 50}));
  const size_t before = cuda::bytes_to_host();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(run->summarize(x, Layout::Plain, {true, 1}));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(run->summarize(x, Layout::Plain, {false, {}}));
  run->summaries();
  EXPECT_LE(cuda::bytes_to_host() - before, 3u * (4096 * 4 + 16 * 24) + 6u * 256);
}

TEST(EmulatedSummaries, SmallTensorsShareTheirLaunches) {
  Random r(2);
  const auto run = cuda_device()->begin();
  const Tensor x = run->to_device(random_tensor(r, DType::F32, {4, 30}));
  const int64_t before = cuda::launches();
  for (int i = 0; i < 64; ++i) ASSERT_TRUE(run->summarize(x, Layout::Plain, {true, 1}));
  run->summaries();
  EXPECT_EQ(cuda::launches() - before, 8);  // sixteen tensors at a time, a kernel that reads and one that joins
}

TEST(EmulatedSummaries, LeaveNoMemoryBehind) {
  cuda_device();
  const size_t before = cuda::device_bytes_used();
  {
    Random r(3);
    const auto run = cuda_device()->begin();
    const Tensor x = run->to_device(random_tensor(r, DType::F32, {4, 30}));
    ASSERT_TRUE(run->summarize(x, Layout::Plain, {true, 1}));
    run->summaries();
    ASSERT_TRUE(run->summarize(x, Layout::Plain, {true, 1}));  // and nobody reads them
  }
  EXPECT_EQ(cuda::device_bytes_used(), before);
}

}  // namespace
}  // namespace infopt::test

// The emulation keeps CUDA's promises, and tells kernels that break them.
#include "lib/runtime/cuda/emulation.h"

#include <gtest/gtest.h>

#include <vector>

#include "lib/base/error.h"
#include "lib/runtime/cuda/runtime.h"

namespace infopt::cuda {
namespace {

void run(unsigned blocks, unsigned threads, const std::function<void()>& body, size_t shared = 0) {
  emulation::run_grid({blocks, 1, 1}, {threads, 1, 1}, shared, body, "test");
}

TEST(Emulation, RunsEveryThreadOfEveryBlock) {
  std::vector<int> seen(3 * 70, 0);
  run(3, 70, [&] { ++seen[blockIdx.x * blockDim.x + threadIdx.x]; });
  for (int s : seen) EXPECT_EQ(s, 1);
}

TEST(Emulation, BarrierOrdersSharedMemory) {
  std::vector<int> reversed(256);
  run(1, 256, [&] {
    int* shared = reinterpret_cast<int*>(emulation::here().shared);
    shared[threadIdx.x] = static_cast<int>(threadIdx.x);
    __syncthreads();
    reversed[threadIdx.x] = shared[255 - threadIdx.x];
    __syncthreads();
    shared[threadIdx.x] = 0;
  }, 256 * sizeof(int));
  for (int i = 0; i < 256; ++i) EXPECT_EQ(reversed[static_cast<size_t>(i)], 255 - i);
}

TEST(Emulation, ShufflesExchangeWithinAWarp) {
  std::vector<int> sums(96), up(96);
  run(1, 96, [&] {
    int v = static_cast<int>(threadIdx.x);
    for (int by = 16; by > 0; by /= 2) v += __shfl_xor_sync(0xffffffffu, v, by);
    sums[threadIdx.x] = v;
    up[threadIdx.x] = __shfl_up_sync(0xffffffffu, static_cast<int>(threadIdx.x), 1);
  });
  for (int i = 0; i < 96; ++i) {
    EXPECT_EQ(sums[static_cast<size_t>(i)], 32 * (i / 32 * 32) + 31 * 16);
    EXPECT_EQ(up[static_cast<size_t>(i)], i % 32 ? i - 1 : i);
  }
}

TEST(Emulation, BallotSeesRunningLanesAlone) {
  std::vector<uint32_t> bits(40);
  run(1, 40, [&] { bits[threadIdx.x] = __ballot_sync(0xffffffffu, threadIdx.x % 2); });
  EXPECT_EQ(bits[0], 0xaaaaaaaau);
  EXPECT_EQ(bits[39], 0xaau);
}

TEST(Emulation, CountsAcrossTheBlockAgainAndAgain) {
  run(2, 128, [&] {
    for (int i = 0; i < 5; ++i) {
      const int n = __syncthreads_count(threadIdx.x < static_cast<unsigned>(10 * i));
      if (n != 10 * i) throw std::runtime_error("count");
    }
  });
}

TEST(Emulation, ThreadsThatEndEarlyDontHoldABarrierUp) {
  int reached = 0;
  run(1, 64, [&] {
    if (threadIdx.x >= 40) return;
    __syncthreads();
    ++reached;
  });
  EXPECT_EQ(reached, 40);
}

TEST(Emulation, DivergenceAtABarrierIsAnError) {
  const auto diverge = [] {
    run(1, 64, [] {
      if (threadIdx.x == 3) emulation::warp_barrier();
      else __syncthreads();
    });
  };
  EXPECT_THROW(diverge(), Error);
}

TEST(Emulation, SharedMemoryIsPoisonedForEachBlock) {
  run(2, 1, [] {
    float* shared = reinterpret_cast<float*>(emulation::here().shared);
    if (!std::isnan(shared[0])) throw std::runtime_error("not poisoned");
    shared[0] = 1;
  }, 16);
}

TEST(Emulation, GridsThatNoGpuTakesAreRefused) {
  EXPECT_THROW(run(1, 1025, [] {}), Error);
  EXPECT_THROW(emulation::run_grid({1, 70000, 1}, {1, 1, 1}, 0, [] {}, "test"), Error);
  EXPECT_THROW(run(1, 1, [] {}, 300 * 1024), Error);
}

TEST(EmulationDeathTest, ReadingPastABufferEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        const auto* p = static_cast<volatile float*>(device_malloc(64));
        float sum = 0;
        run(1, 1, [&] { sum += p[16]; });
      },
      "");
}

TEST(Emulation, FreshMemoryIsPoisoned) {
  auto* p = static_cast<float*>(device_malloc(12));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(p[i]));
  device_free(p);
}

TEST(Emulation, AStreamRecordsAndReplays) {
  Stream stream;
  int count = 0;
  stream.begin_capture();
  stream.emulate([&] { ++count; });
  EXPECT_EQ(count, 0);
  Recording* recording = stream.end_capture();
  stream.replay(recording);
  stream.replay(recording);
  Stream::destroy(recording);
  EXPECT_EQ(count, 2);
}

}  // namespace
}  // namespace infopt::cuda

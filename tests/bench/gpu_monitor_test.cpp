#include "lib/bench/gpu_monitor.h"

#include <gtest/gtest.h>

namespace infopt {
namespace {

TEST(GpuMonitor, GivesTheMostMemoryTheMeanUtilizationAndTheClocksRange) {
  auto monitor = GpuMonitor::start("0000:3b:00.0", INFOPT_FAKE_NVML);
  ASSERT_TRUE(monitor);
  const GpuFigures f = monitor->stop();  // two samples at least
  EXPECT_EQ(f.name, "NVIDIA Test");
  EXPECT_EQ(f.utilization, 80.0);
  EXPECT_EQ(f.memory_peak, 700);
  EXPECT_EQ(f.memory_total, 1000);
  EXPECT_EQ(f.clock_low, 1200);
  EXPECT_EQ(f.clock_high, 1980);
}

TEST(GpuMonitor, IsNullWithoutTheLibraryOrTheGpu) {
  EXPECT_FALSE(GpuMonitor::start("0000:3b:00.0", "libnvidia-ml-that-is-not-there.so.1"));
  EXPECT_FALSE(GpuMonitor::start("0000:01:00.0", INFOPT_FAKE_NVML));
  EXPECT_FALSE(GpuMonitor::start("", INFOPT_FAKE_NVML));
}

}  // namespace
}  // namespace infopt

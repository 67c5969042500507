// What only the emulated device can be told to do: to be missing, to be full.
#include "lib/runtime/cuda/fault.h"
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

TEST(EmulatedDevice, OutOfMemoryIsALimit) {
  Net net;
  const ValueId x = net.input(DType::F32, {1 << 16});
  net.output(net.add("Reshape", {x, net.integers({-1, 2})}));
  const Feeds feeds{{x, Tensor::zeros(DType::F32, {1 << 16})}};
  cuda_device();
  cuda::faults().memory_limit = cuda::device_bytes_used() + 1000;
  try {
    run_cuda(net.graph(), feeds);
    ADD_FAILURE() << "it ran";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Limit);
    EXPECT_NE(std::string(e.what()).find("memory"), std::string::npos);
  }
  cuda::faults().memory_limit = SIZE_MAX;
  expect_as_cpu(net.graph(), feeds);
}

TEST(EmulatedDevice, LeavesNoMemoryBehind) {
  cuda_device();
  const size_t before = cuda::device_bytes_used();
  Net net;
  const ValueId x = net.input(DType::F32, {5, 3, 7, 2});
  net.output(net.add("Reshape", {x, net.integers({5, -1})}));
  run_cuda(net.graph(), {{x, Tensor::zeros(DType::F32, {5, 3, 7, 2})}});
  EXPECT_EQ(cuda::device_bytes_used(), before);
}

TEST(EmulatedDevice, SaysWhatIsMissing) {
  install_cuda();
  cuda::faults().no_device = true;
  try {
    open_cuda();
    ADD_FAILURE() << "it opened";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Unsupported);
    EXPECT_NE(std::string(e.what()).find("driver"), std::string::npos);
  }
  cuda::faults().no_device = false;
}

}  // namespace
}  // namespace infopt::test

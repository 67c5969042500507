// Graphs run on the CUDA device (test_cuda: the emulated one; test_gpu: a GPU), with no step on the CPU, beside the CPU's session.
#pragma once
#include "lib/runtime/cuda/backend.h"
#include "tests/runtime/fusion_harness.h"

namespace infopt::test {

inline std::shared_ptr<const Device> cuda_device() {
  install_cuda();
  static const std::shared_ptr<const Device> device = open_cuda();
  return device;
}

/// Throws Error(Unsupported) where a node has no CUDA kernel.
inline std::vector<Tensor> run_cuda(const Graph& graph, const Feeds& feeds, SessionOptions options = {}) {
  options.device = cuda_device();
  options.fallback = false;
  return Session(graph, std::move(options)).run(feeds);
}

/// The CUDA session gives what the CPU's gives: integers and bools equal (8-bit codes within one step), floats within `relative` of the largest
/// magnitude, NaN and infinities in the same places.
inline void expect_as_cpu(const Graph& graph, const Feeds& feeds, double relative = 1e-5, SessionOptions options = {}) {
  const std::vector<Tensor> want = Session(graph, options).run(feeds), got = run_cuda(graph, feeds, options);
  ASSERT_EQ(got.size(), want.size());
  Agreement agreement;
  for (size_t i = 0; i < got.size(); ++i) agreement.compare(got[i], want[i], relative);
}

}  // namespace infopt::test

// Moves of elements, as only the emulation can look at them.
#include "lib/runtime/cuda/emulation.h"
#include "lib/runtime/cuda/fault.h"
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

TEST(EmulatedMoves, SlicesOfTheFrontShareTheMemory) {
  Net net;
  const ValueId x = net.input(DType::F32, {8, 16});
  net.output(net.add("Slice", {x, net.integers({2}), net.integers({5}), net.integers({0})}));
  const Feeds feeds{{x, Tensor::zeros(DType::F32, {8, 16})}};
  const Graph& graph = net.graph();
  cuda_device();
  const int64_t before = cuda::launches();
  run_cuda(graph, feeds);
  EXPECT_EQ(cuda::launches(), before);
}

TEST(EmulatedMoves, OrderOfBlocksDoesntMatter) {
  Random r(26);
  Net net;
  const ValueId x = net.input(DType::U8, {3, 40, 50}), i = net.input(DType::I64, {3, 40, 50}), u = net.input(DType::U8, {3, 40, 50});
  net.output(net.add("Transpose", {x}));
  net.output(net.add("ScatterElements", {x, i, u}, {{"axis", int64_t{1}}}));
  Tensor places(DType::I64, {3, 40, 50});
  for (int64_t k = 0; k < places.size(); ++k) places.mutable_data<int64_t>()[k] = r.in(-40, 39);
  const Feeds feeds{{x, random_codes(r, DType::U8, {3, 40, 50})}, {i, places}, {u, random_codes(r, DType::U8, {3, 40, 50})}};
  cuda::emulation::reverse_block_order(true);
  expect_as_cpu(net.graph(), feeds, 0);
  cuda::emulation::reverse_block_order(false);
}

}  // namespace
}  // namespace infopt::test

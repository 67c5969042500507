// Reductions on the device give what the CPU's give, over any axes and types, in one pass or by parts.
#include "lib/runtime/cuda/emulation.h"
#include "tests/cuda/elements.h"

namespace infopt::test {
namespace {

const char* const kReductions[] = {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"};

void expect_reduction(Random& r, const std::string& op, DType dtype, const Shape& shape, std::vector<int64_t> axes, bool odd = false) {
  Net net;
  const bool positive = op == "ReduceLogSum" || op == "ReduceProd";
  const ValueId x = net.input(dtype, shape);
  net.output(net.add(op, {x, axes.empty() ? kNone : net.integers(axes)}, {{"keepdims", r.in(0, 1)}}));
  SCOPED_TRACE(op + " " + std::string(name_of(dtype)) + to_string(shape) + " over " + to_string(axes));
  const Tensor values = op == "ReduceProd" && is_float(dtype) ? random_tensor(r, dtype, shape, 0.9f, 1.1f) : random_tensor(r, dtype, shape, positive ? 0.5f : -3, 3, odd);
  expect_close(net.graph(), {{x, values}}, 4);
}

TEST(CudaReduce, AnyAxesAndTypes) {
  Random r(41);
  for (const char* op : kReductions)
    for (DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F64, DType::I32, DType::I64, DType::U8, DType::I8, DType::U64})
      for (int i = 0; i < 3; ++i) {
        const Shape shape = random_shape(r, 1, 5, 7);
        std::vector<int64_t> axes;
        const auto rank = static_cast<int64_t>(shape.size());
        for (int64_t d = 0; d < rank; ++d)
          if (r.chance(2)) axes.push_back(r.chance(2) ? d : d - rank);
        expect_reduction(r, op, dtype, shape, axes);
      }
}

TEST(CudaReduce, LongRowsAndColumns) {
  Random r(42);
  for (const char* op : kReductions) {
    const DType dtype = r.pick({DType::F32, DType::F16, DType::F64, DType::I64});
    for (int64_t n : {1, 31, 33, 128, 1023, 1024, 1025, 2052}) {
      expect_reduction(r, op, dtype, {r.in(1, 9), n}, {1});
      expect_reduction(r, op, dtype, {2, n, r.pick<int64_t>({1, 3, 32, 33, 128, 132})}, {1});
    }
  }
}

TEST(CudaReduce, ManyElementsOfFewResultsGoByParts) {
  Random r(43);
  for (const char* op : {"ReduceSum", "ReduceMax", "ReduceL2", "ReduceLogSumExp"})
    for (DType dtype : {DType::F32, DType::I32}) {
      expect_reduction(r, op, dtype, {40001}, {0});
      expect_reduction(r, op, dtype, {3, 20000}, {1});
      expect_reduction(r, op, dtype, {700, 12}, {0});
      expect_reduction(r, op, dtype, {2, 513, 7}, {1});
    }
}

TEST(CudaReduce, OddNumbersAndNothing) {
  Random r(44);
  for (const char* op : {"ReduceMax", "ReduceMin", "ReduceLogSumExp", "ReduceL1"})
    for (int64_t inner : {1, 5}) expect_reduction(r, op, DType::F32, {30, 4, inner}, {1}, true);
  for (const char* op : kReductions)
    for (DType dtype : {DType::F32, DType::I32, DType::U64}) {
      expect_reduction(r, op, dtype, {3, 0, 2}, {1});
      expect_reduction(r, op, dtype, {0, 3, 2}, {1});
    }
  for (const char* op : {"ReduceMax", "ReduceMin"}) {
    Net net;
    const ValueId x = net.input(DType::Bool, {6, 5});
    net.output(net.add(op, {x, net.integers({1})}));
    expect_close(net.graph(), {{x, random_tensor(r, DType::Bool, {6, 5}, 0, 1)}});
  }
}

TEST(CudaReduce, NoAxesMayMeanNone) {
  Random r(45);
  expect_node("ReduceSum", {random_tensor(r, DType::F32, {3, 4})}, {{"noop_with_empty_axes", int64_t{1}}});
  expect_node("ReduceL2", {random_tensor(r, DType::F32, {3, 4})}, {{"noop_with_empty_axes", int64_t{1}}});
  expect_node("ReduceMean", {random_tensor(r, DType::F32, {3, 4})}, {{"axes", std::vector<int64_t>{1}}}, 13);
}

TEST(CudaReduce, TheOrderIsTheShapesAlone) {
  Random r(46);
  Net net;
  const ValueId x = net.input(DType::F32, {5, 3001});
  net.output(net.add("ReduceSum", {x, net.integers({0, 1})}));
  const Feeds feeds{{x, random_tensor(r, DType::F32, {5, 3001})}};
  const auto first = run_cuda(net.graph(), feeds);
  cuda::emulation::reverse_block_order(true);
  const auto second = run_cuda(net.graph(), feeds);
  cuda::emulation::reverse_block_order(false);
  expect_same_bits(second, first);
}

}  // namespace
}  // namespace infopt::test

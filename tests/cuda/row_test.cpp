// Softmax and the normalizations of rows on the device give what the CPU's give: short rows, long ones, and those that shared memory doesn't hold.
#include "tests/cuda/elements.h"

namespace infopt::test {
namespace {

constexpr DType kFloats[] = {DType::F32, DType::F16, DType::BF16, DType::F64};

TEST(CudaSoftmax, AnyAxisAndType) {
  Random r(51);
  for (const char* op : {"Softmax", "LogSoftmax", "Hardmax"})
    for (DType dtype : kFloats) {
      for (int i = 0; i < 6; ++i) {
        const Shape shape = random_shape(r, 1, 4, 9);
        const auto rank = static_cast<int64_t>(shape.size());
        const int64_t axis = r.in(-rank, rank - 1);
        expect_node(op, {random_tensor(r, dtype, shape)}, {{"axis", axis}}, 13, 4);
        expect_node(op, {random_tensor(r, dtype, shape)}, {{"axis", axis}}, 11, 4);
      }
      expect_node(op, {random_tensor(r, dtype, {2, 37, 70})}, {{"axis", int64_t{1}}}, 13, 4);
    }
}

TEST(CudaSoftmax, RowsOfAnyLength) {
  Random r(52);
  for (const char* op : {"Softmax", "LogSoftmax"})
    for (int64_t n : {1, 2, 4, 31, 33, 64, 127, 132, 1024, 1025, 4100}) expect_node(op, {random_tensor(r, r.pick({DType::F32, DType::F16}), {r.in(1, 6), n})}, {}, 13, 8);
  expect_node("Softmax", {random_tensor(r, DType::F32, {2, 25000})}, {}, 13, 8);
  expect_node("LogSoftmax", {random_tensor(r, DType::F32, {1, 25001})}, {}, 13, 8);
}

TEST(CudaSoftmax, OddNumbersSpoilTheirRowAlone) {
  Random r(53);
  for (const char* op : {"Softmax", "LogSoftmax"})
    for (int64_t inner : {1, 3}) expect_node(op, {random_tensor(r, DType::F32, {40, 6, inner}, -4, 4, true)}, {{"axis", int64_t{1}}}, 13, 4);
  expect_node("Softmax", {Tensor(DType::F32, {0, 4})}, {}, 13);
}

TEST(CudaLayerNormalization, RowsGainsAndAllOutputs) {
  Random r(54);
  for (DType dtype : kFloats)
    for (int i = 0; i < 12; ++i) {
      Shape shape = random_shape(r, 1, 4, 6);
      if (r.chance(2)) shape.back() = r.pick<int64_t>({8, 64, 100, 1024, 1028, 1500});
      const auto rank = static_cast<int64_t>(shape.size());
      const int64_t axis = r.in(0, rank - 1);
      const Shape row(shape.begin() + axis, shape.end());
      Shape odd = r.chance(2) ? row : shape;
      for (int64_t& d : odd)
        if (r.chance(2)) d = 1;
      const std::vector<Tensor> inputs{random_tensor(r, dtype, shape, -3, 5), random_tensor(r, dtype, r.chance(2) ? row : odd), r.chance(3) ? Tensor() : random_tensor(r, dtype, row)};
      expect_node("LayerNormalization", inputs, {{"axis", axis - (r.chance(2) ? rank : 0)}, {"epsilon", 1e-3f}}, 21, 8, 3);
      expect_node("RMSNormalization", {inputs[0], inputs[1]}, {{"axis", axis}}, 23, 8);
    }
  expect_node("LayerNormalization", {random_tensor(r, DType::F32, {2, 30000}, -3, 5), random_tensor(r, DType::F32, {30000}), random_tensor(r, DType::F32, {30000})}, {}, 21, 8, 3);
}

TEST(CudaLayerNormalization, FarFromZeroItKeepsItsPrecision) {
  Random r(55);
  expect_node("LayerNormalization", {random_tensor(r, DType::F32, {3, 768}, 999, 1001), random_tensor(r, DType::F32, {768}), random_tensor(r, DType::F32, {768})}, {}, 21, 50);
}

/// Root mean square normalization, or layer normalization, from its pieces.
void expect_pieces(bool centered, const Shape& shape, int64_t n) {
  Random r(56);
  Net net;
  const ValueId x = net.input(DType::F32, shape);
  const ValueId d = centered ? net.add("Sub", {x, net.add("ReduceMean", {x, net.integers({-1})})}) : x;
  const ValueId mean = net.add("ReduceMean", {net.add("Mul", {d, d}), net.integers({-1})});
  const ValueId root = net.add("Sqrt", {net.add("Add", {mean, net.number(1e-5f)})});
  ValueId y = net.add("Mul", {net.add("Div", {d, root}), net.constant(random_tensor(r, DType::F32, {n}))});
  if (centered) y = net.add("Add", {y, net.constant(random_tensor(r, DType::F32, {n}))});
  net.output(y);
  SessionOptions options;
  options.device = cuda_device();
  const std::string steps = steps_of(net.graph(), options);
  EXPECT_EQ(steps.find(' '), std::string::npos) << steps;
  expect_close(net.graph(), {{x, random_tensor(r, DType::F32, shape)}}, 8);
}

TEST(CudaRowNorm, ThePiecesAreOneStep) {
  for (bool centered : {false, true}) {
    expect_pieces(centered, {3, 5, 96}, 96);
    expect_pieces(centered, {7, 130}, 130);
    expect_pieces(centered, {4, 1}, 33);
  }
}

}  // namespace
}  // namespace infopt::test

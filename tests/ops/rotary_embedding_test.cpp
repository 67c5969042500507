// RotaryEmbedding. Expected values: ONNX Runtime 1.32's RotaryEmbedding (opset 23, CPU) on the same inputs.
#include "tests/ops/data_harness.h"

namespace infopt::test {
namespace {

Tensor from_minus_five(Shape shape) {
  Tensor t = counted(std::move(shape));
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] -= 5;
  return t;
}
const std::vector<float> kCosines{1, 0.5F, 0.25F, -1, 0, 2}, kSines{0, 0.5F, 1, -0.25F, -1, 3};
Tensor cosines() { return floats({3, 2}, kCosines); }
Tensor sines() { return floats({3, 2}, kSines); }

TEST(RotaryEmbedding, TurnsHalvesOrNeighboursByTheirPositionsAngles) {
  const Tensor x = from_minus_five({1, 2, 2, 4}), ids = longs({1, 2}, {2, 1});
  expect_tensor(run_op("RotaryEmbedding", 23, {x, cosines(), sines(), ids})[0], {1, 2, 2, 4}, {-3, -2, 5, -16, -1.25, 0.5, -0.75, -2, 5, -10, -3, 24, -7.25, -5.5, 9.25, -12});
  expect_tensor(run_op("RotaryEmbedding", 23, {x, cosines(), sines(), ids}, {attribute("interleaved", int64_t{1})})[0], {1, 2, 2, 4},
                {-4, 5, 0, -13, -0.25, -1, -0.5, -2.25, 4, -3, -8, 27, -6.25, 9, -6.5, -12.25});
  expect_tensor(run_op("RotaryEmbedding", 23, {x, floats({3, 1}, {1, 0.25F, 0}), floats({3, 1}, {0, 1, -1}), ids}, {attribute("rotary_embedding_dim", int64_t{2})})[0], {1, 2, 2, 4},
                {-4, 5, -3, -2, -0.25, -1, 1, 2, 4, -3, 5, 6, -6.25, 9, 9, 10});
}

TEST(RotaryEmbedding, TakesThreeAxesAndAnglesByPlace) {
  const Tensor x = from_minus_five({1, 2, 8}), c = floats({1, 2, 2}, {1, 0.5F, 0.25F, -1}), s = floats({1, 2, 2}, {0, 0.5F, 1, -0.25F});
  const std::vector<double> expected{-5, -1, -3, -3, -1, -1, 1, 1, -4.25, -2.5, 4.25, -7, -7.25, -5.5, 9.25, -12};
  expect_tensor(run_op("RotaryEmbedding", 23, {x, c, s}, {attribute("num_heads", int64_t{2})})[0], {1, 2, 8}, expected);
  const auto halves = [](const Tensor& t) { return cast(t, DType::F16); };  // all of these are exact in 16 bits
  const Tensor y = run_op("RotaryEmbedding", 23, {halves(x), halves(c), halves(s)}, {attribute("num_heads", int64_t{2})})[0];
  EXPECT_EQ(y.dtype(), DType::F16);
  expect_tensor(y, {1, 2, 8}, expected);
}

TEST(RotaryEmbedding, TurnsEveryRowByItsOwnAngles) {
  Tensor x = from_minus_five({2, 3, 300, 32});
  const Tensor ids = cast(counted({2, 300}), DType::I64), c = from_minus_five({600, 16}), s = counted({600, 16});
  const std::vector<float> y = to_vector<float>(run_op("RotaryEmbedding", 23, {x, c, s, ids})[0]);
  for (const int64_t row : {0, 299, 1799}) {
    const int64_t id = row / 900 * 300 + row % 300;
    for (int64_t i = 0; i < 16; ++i) {
      const float *from = x.data<float>() + row * 32, *cos = c.data<float>() + id * 16, *sin = s.data<float>() + id * 16;
      EXPECT_EQ(y[static_cast<size_t>(row * 32 + i)], from[i] * cos[i] - from[16 + i] * sin[i]) << row;
      EXPECT_EQ(y[static_cast<size_t>(row * 32 + 16 + i)], from[16 + i] * cos[i] + from[i] * sin[i]) << row;
    }
  }
}

TEST(RotaryEmbedding, RefusesWhatDoesntFit) {
  const auto kind = [](const std::vector<Tensor>& in, const Attributes& a = {}) { return kind_of_error([&] { run_op("RotaryEmbedding", 23, in, a); }); };
  const Tensor x = from_minus_five({1, 2, 2, 4});
  EXPECT_EQ(kind({x, cosines(), sines(), longs({1, 2}, {0, 3})}), ErrorKind::Malformed);
  EXPECT_EQ(kind({x, cosines(), sines(), longs({1, 3}, {0, 1, 2})}), ErrorKind::Malformed);
  EXPECT_EQ(kind({x, cosines(), sines()}), ErrorKind::Malformed);
  EXPECT_EQ(kind({x, floats({3, 1}, {1, 2, 3}), sines(), longs({1, 2}, {0, 1})}), ErrorKind::Malformed);
  EXPECT_EQ(kind({from_minus_five({1, 2, 8}), cosines(), sines(), longs({1, 2}, {0, 1})}), ErrorKind::Malformed);
  EXPECT_EQ(kind({from_minus_five({1, 2, 2, 3}), cosines(), sines(), longs({1, 2}, {0, 1})}), ErrorKind::Malformed);
  EXPECT_EQ(kind({x, cosines(), sines(), longs({1, 2}, {0, 1})}, {attribute("rotary_embedding_dim", int64_t{6})}), ErrorKind::Malformed);
}

}  // namespace
}  // namespace infopt::test

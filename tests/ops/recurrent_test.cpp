// RNN, GRU and LSTM. Expected values: ONNX Runtime 1.32 on the same inputs, which are eighths.
#include "tests/ops/data_harness.h"

namespace infopt::test {
namespace {

Tensor eighths(Shape shape, std::vector<float> values) {
  for (float& v : values) v /= 8;
  return floats(std::move(shape), std::move(values));
}

const Tensor kX = eighths({3, 2, 2}, {-3, 3, 4, 0, 1, 3, -3, 7, -8, 8, -7, 4});
const Tensor kLengths = cast(longs({2}, {3, 2}), DType::I32);

TEST(Lstm, RunsBothDirectionsWithEverythingGiven) {
  const Tensor w =
      eighths({2, 8, 2}, {-1, 5, -2, -3, 3, 2, 6, -4, 1, -8, 5, 1, 1, -1, -7, -8, 0, 5, 7, 2, 0, -1, -5, -2, -5, -4, 3, 4, 8, 5, 1, 7});
  const Tensor r = eighths(
      {2, 8, 2}, {-8, -4, 7, -6, -1, 0, 1, -5, -1, -4, -3, -2, 0, -8, -6, 2, 7, 7, -1, 2, 6, -8, -7, 5, -5, -8, 5, -2, -2, -6, 4, 3});
  const Tensor b =
      eighths({2, 16}, {-1, 5, 0, 3, 4, 3, -4, -1, -1, 5, -4, 8, -8, 5, 2, -1, 2, -8, 4, -7, 1, -7, -6, 4, -1, -6, 2, -8, 1, -2, -6, -1});
  const Tensor p = eighths({2, 6}, {-1, 8, 7, -3, 2, 8, -3, 5, -7, 2, -8, -1});
  const Tensor h0 = eighths({2, 2, 2}, {-8, 6, 5, 3, -2, 5, 7, 1}), c0 = eighths({2, 2, 2}, {-6, -1, -3, -4, -3, 0, 5, 7});
  const auto y = run_op("LSTM", 14, {kX, w, r, b, kLengths, h0, c0, p},
                        {text("direction", "bidirectional"), attribute("hidden_size", int64_t{2}), attribute("clip", 0.9F)}, 3);
  expect_tensor(y[0], {3, 2, 2, 2}, {-0.175294, 0.080799,  -0.090126, -0.478878, -0.56262,  0.049681, -0.369326, 0.074767,
                                     -0.125709, -0.187737, -0.010894, -0.501515, -0.520132, 0.058505, -0.225554, 0.145455,
                                     -0.090225, -0.214955, 0,         0,         -0.377097, 0.061603, 0,         0},
                2e-6);
  expect_tensor(y[1], {2, 2, 2}, {-0.090225, -0.214955, -0.010894, -0.501515, -0.56262, 0.049681, -0.369326, 0.074767}, 2e-6);
  expect_tensor(y[2], {2, 2, 2}, {-0.32038, -0.380924, -0.027729, -0.877999, -1.075072, 0.173599, -0.575631, 0.264677}, 2e-6);
}

TEST(Gru, RunsInReverseWithEitherResetOrder) {
  const Tensor w = eighths({1, 6, 2}, {5, 0, 6, 5, 8, 2, 5, -5, -6, 6, 6, -8}),
               r = eighths({1, 6, 2}, {3, -5, -7, -6, 8, -8, 2, 0, 5, -5, -8, 0});
  const Tensor b = eighths({1, 12}, {5, 7, 1, -8, 4, 2, 4, 7, 6, 3, -1, -5});
  const std::vector<double> before{0.512145, -0.351785, 0.236519, -0.119581, 0.4167, -0.236864,
                                   0.251671, -0.107066, 0.360191, -0.159889, 0,      0};
  const std::vector<double> after{0.526707, -0.256356, 0.24523, -0.051058, 0.425486, -0.177101,
                                  0.25457,  -0.090955, 0.36207, -0.151205, 0,        0};
  for (const int64_t linear : {0, 1}) {
    const auto y = run_op("GRU", 14, {kX, w, r, b, kLengths}, {text("direction", "reverse"), attribute("linear_before_reset", linear)}, 2);
    const std::vector<double>& expected = linear ? after : before;
    expect_tensor(y[0], {3, 1, 2, 2}, expected, 2e-6);
    expect_tensor(y[1], {1, 2, 2}, {expected.begin(), expected.begin() + 4}, 2e-6);
  }
}

TEST(Rnn, TakesActivationsWithParameters) {
  const Tensor w = eighths({1, 2, 2}, {7, 6, -6, -4}), r = eighths({1, 2, 2}, {-4, -8, -5, -3});
  const auto y = run_op("RNN", 14, {kX, w, r},
                        {attribute("activations", std::vector<std::string>{"HardSigmoid"}),
                         attribute("activation_alpha", std::vector<float>{0.25F}), attribute("activation_beta", std::vector<float>{0.5F})},
                        2);
  expect_tensor(y[0], {3, 1, 2, 2},
                {0.488281, 0.523438, 0.609375, 0.40625, 0.405762, 0.304321, 0.404297, 0.327637, 0.341949, 0.47057, 0.269897, 0.507675},
                2e-6);
}

TEST(Rnn, RefusesShapesThatDontFit) {
  const Tensor w = eighths({1, 2, 2}, {7, 6, -6, -4}), r = eighths({1, 2, 2}, {-4, -8, -5, -3});
  EXPECT_EQ(kind_of_error([&] { run_op("RNN", 14, {kX, r.reshaped({1, 4, 1}), r}, {}, 2); }), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([&] { run_op("LSTM", 14, {kX, w, r}, {}, 3); }), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([&] { run_op("RNN", 14, {kX, w, r, {}, longs({2}, {4, 1})}, {}, 2); }), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([&] {
              run_op("RNN", 14, {kX, w, r}, {attribute("activations", std::vector<std::string>{"Sine"})}, 2);
            }),
            ErrorKind::Unsupported);
}

}  // namespace
}  // namespace infopt::test

// What RNN, GRU and LSTM nodes say. https://onnx.ai/onnx/operators/onnx__LSTM.html
#pragma once
#include <vector>

#include "lib/ir/graph.h"

namespace infopt {

struct RecurrentActivation {
  enum Kind { Relu, Tanh, Sigmoid, Affine, LeakyRelu, ThresholdedRelu, ScaledTanh, HardSigmoid, Elu, Softsign, Softplus } kind = Tanh;
  float alpha = 0, beta = 0;
};

enum class Cell { Rnn, Gru, Lstm };

struct RecurrentOptions {
  struct Direction {
    std::vector<RecurrentActivation> f;  ///< RNN 1, GRU 2, LSTM 3
    bool reverse = false;
  };

  Cell cell = Cell::Rnn;
  int64_t gates = 1;
  int64_t hidden = 0;  ///< 0: not said
  float clip = 0;      ///< 0: none
  bool batch_first = false, couple = false, linear_before_reset = false;
  std::vector<Direction> directions;

  /// Throws Error(Malformed), or Error(Unsupported) for an unknown activation.
  static RecurrentOptions of(const Node& node, Cell cell);
  /// GRU's reset comes before the last gate's product.
  bool resets_before() const { return cell == Cell::Gru && !linear_before_reset; }
};

}  // namespace infopt

#include "passes/support/write_weights.h"

#include <algorithm>

#include "lib/base/error.h"

namespace infopt {
namespace {

/// [out][blocks] as the stored axes have them.
Tensor parameters(const Layer& layer, const WeightGrid& grid, const Shape& stored, const std::vector<float>& values) {
  if (values.size() == 1) return Tensor::scalar(values[0]);
  if (grid.blocks == 1) return Tensor::vector(values);
  if (layer.convolution) return Tensor::of<float>({grid.out, grid.blocks, 1, 1}, values).reshaped([&] {
    Shape shape(stored.size(), 1);
    shape[0] = grid.out, shape[1] = grid.blocks;
    return shape;
  }());
  if (layer.out_axis == 0) return Tensor::of<float>({grid.out, grid.blocks}, values);
  std::vector<float> turned(values.size());
  for (int64_t o = 0; o < grid.out; ++o)
    for (int64_t b = 0; b < grid.blocks; ++b) turned[static_cast<size_t>(b * grid.out + o)] = values[static_cast<size_t>(o * grid.blocks + b)];
  return Tensor::of<float>({grid.blocks, grid.out}, turned);
}

bool has_zeros(const WeightGrid& grid) {
  return std::any_of(grid.zeros.begin(), grid.zeros.end(), [](int32_t z) { return z != 0; });
}

}  // namespace

void WeightsWriter::write_dequantized(const Layer& layer, const CodedWeights& codes) {
  const Tensor& old = *edit_.graph().constant(layer.weights);
  const WeightGrid& grid = codes.grid;
  const Shape stored = old.shape();
  const DType type = old.dtype();
  const std::vector<float> values(codes.codes.begin(), codes.codes.end());
  std::vector<ValueId> inputs{edit_.add_constant(cast(write_weights(layer, stored, values), grid.format.dtype)),
                              edit_.add_constant(cast(parameters(layer, grid, stored, grid.scales), type))};
  if (has_zeros(grid)) {
    const std::vector<float> zeros(grid.zeros.begin(), grid.zeros.end());
    inputs.push_back(edit_.add_constant(cast(parameters(layer, grid, stored, zeros), grid.format.dtype)));
  }
  GraphEdit::NewNode node{.op = "DequantizeLinear"};
  if (grid.blocks > 1) {
    const int64_t axis = layer.convolution ? 1 : 1 - layer.out_axis;
    node.attributes = {{"axis", axis, {}}, {"block_size", grid.block, {}}};
  } else if (grid.scales.size() > 1) {
    node.attributes = {{"axis", layer.out_axis, {}}};
  }
  edit_.set_input(layer.node, 1, edit_.add(std::move(node), std::move(inputs)));
}

void WeightsWriter::write_nbits(const Layer& layer, const CodedWeights& codes) {
  const WeightGrid& grid = codes.grid;
  const DType type = edit_.graph().constant(layer.weights)->dtype();
  const int64_t bits = static_cast<int64_t>(bits_of(grid.format.dtype)), per_byte = 8 / bits, block = grid.format.block;
  // Codes are unsigned, and the middle one is zero where no zero points are given.
  const int shift = grid.low < 0 ? 1 << (bits - 1) : 0, middle = 1 << (bits - 1);
  const int64_t bytes = block / per_byte;
  Tensor packed = Tensor::zeros(DType::U8, {grid.out, grid.blocks, bytes});
  auto* p = packed.mutable_data<uint8_t>();
  for (int64_t o = 0; o < grid.out; ++o)
    for (int64_t i = 0; i < grid.blocks * block; ++i) {
      const int code = i < grid.k ? codes.codes[static_cast<size_t>(o * grid.k + i)] + shift : grid.zeros[grid.group(o, grid.k - 1)] + shift;
      p[o * grid.blocks * bytes + i / per_byte] |= static_cast<uint8_t>(code << (i % per_byte * bits));
    }
  std::vector<ValueId> inputs{edit_.graph().node(layer.node).input(0), edit_.add_constant(std::move(packed)),
                              edit_.add_constant(cast(Tensor::of<float>({grid.out, grid.blocks}, grid.scales), type))};
  if (std::any_of(grid.zeros.begin(), grid.zeros.end(), [&](int32_t z) { return z + shift != middle; })) {
    const int64_t row = (grid.blocks + per_byte - 1) / per_byte;
    Tensor zeros = Tensor::zeros(DType::U8, {grid.out, row});
    for (int64_t o = 0; o < grid.out; ++o)
      for (int64_t b = 0; b < grid.blocks; ++b)
        zeros.mutable_data<uint8_t>()[o * row + b / per_byte] |= static_cast<uint8_t>((grid.zeros[static_cast<size_t>(o * grid.blocks + b)] + shift) << (b % per_byte * bits));
    inputs.push_back(edit_.add_constant(std::move(zeros)));
  }
  const Node n = edit_.graph().node(layer.node);
  GraphEdit::NewNode node{.op = "MatMulNBits", .domain = "com.microsoft", .name = n.name};
  node.attributes = {{"K", grid.k, {}}, {"N", grid.out, {}}, {"bits", bits, {}}, {"block_size", block, {}}};
  ValueId y = edit_.add(std::move(node), std::move(inputs));
  if (n.is("Gemm") && n.input(2) != kNone) {
    ValueId bias = n.input(2);
    if (const float beta = n.f("beta", 1); beta != 1) bias = edit_.add({.op = "Mul"}, {bias, edit_.add_constant(cast(Tensor::scalar(beta), type))});
    y = edit_.add({.op = "Add"}, {y, bias});
  }
  edit_.replace_uses(n.outputs[0], y);
  edit_.remove_node(layer.node);
  if (edit_.graph().opset("com.microsoft") == 0) edit_->opsets["com.microsoft"] = 1;
}

}  // namespace infopt

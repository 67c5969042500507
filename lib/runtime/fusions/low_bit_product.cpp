// MatMul or Gemm with weights that a DequantizeLinear makes of constant 4- or 8-bit codes, and com.microsoft's MatMulNBits: the weights stay
// packed. The CPU decodes them once instead, as constants.
#include "lib/base/error.h"
#include "lib/runtime/fusions/rules.h"
#include "lib/runtime/fusions/value_facts.h"

namespace infopt {
namespace {

bool is_number(DType t) { return t == DType::F32 || t == DType::F16 || t == DType::BF16; }

/// [rows, columns] as [columns, rows].
Tensor transposed(const Tensor& t) {
  const int64_t rows = t.dim(0), columns = t.dim(1);
  const size_t size = bits_of(t.dtype()) / 8;
  Tensor out(t.dtype(), {columns, rows});
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) std::copy_n(t.raw() + static_cast<size_t>(r * columns + c) * size, size, out.mutable_raw() + static_cast<size_t>(c * rows + r) * size);
  return out;
}

/// Codes as U8, signed ones plus half of their range.
Tensor shifted(const Tensor& codes) {
  const DType t = codes.dtype();
  // Codes may lie in the mapped file.
  Tensor out = t == DType::U8 || t == DType::I8 ? codes.clone() : cast(codes, t == DType::I4 ? DType::I8 : DType::U8);
  if (t == DType::U8) return out;
  auto* bytes = reinterpret_cast<uint8_t*>(out.mutable_raw());
  const uint8_t half = t == DType::I8 ? 128 : t == DType::I4 ? 8 : 0;
  if (half)
    for (int64_t i = 0; i < out.size(); ++i) bytes[i] = static_cast<uint8_t>(bytes[i] + half);
  return Tensor(DType::U8, out.shape(), std::make_shared<Tensor>(out), out.raw());
}

/// The codes and scales of weights [k, n], or [n, k] where `turned`.
bool read_weights(PlanView& view, const Node* node, bool turned, LowBitProduct& p) {
  if (node && node->is("Transpose") && node->inputs.size() == 1 && (node->ints("perm").empty() || node->ints("perm") == std::vector<int64_t>{1, 0})) {
    node = view.producer(node->input(0));
    turned = !turned;
  }
  if (!node || !node->is("DequantizeLinear")) return false;
  const Tensor *codes = view.constant(node->input(0)), *scales = view.constant(node->input(1)), *zeros = view.constant(node->input(2));
  if (!codes || !scales || (node->input(2) != kNone && !zeros) || codes->rank() != 2 || codes->size() == 0 || !is_number(scales->dtype())) return false;
  const DType t = codes->dtype();
  if (t != DType::I4 && t != DType::U4 && t != DType::I8 && t != DType::U8) return false;
  const int64_t to = node->i("output_dtype", 0), axis = node->i("axis", 1) < 0 ? node->i("axis", 1) + 2 : node->i("axis", 1), block = node->i("block_size", 0);
  if (to != 0 && static_cast<DType>(to) != scales->dtype()) return false;
  if (zeros && (zeros->shape() != scales->shape() || zeros->dtype() != t)) return false;
  p.type = scales->dtype();
  p.bits = t == DType::I4 || t == DType::U4 ? 4 : 8;
  p.k = codes->dim(turned ? 1 : 0), p.n = codes->dim(turned ? 0 : 1);
  const auto lay = [&](const Tensor& parameter) -> Tensor {  // as [n, blocks]
    if (block > 0) return turned ? parameter : transposed(parameter);
    if (parameter.size() == p.n && p.n > 1) return parameter.reshaped({p.n, 1});
    Tensor all(parameter.dtype(), {p.n, 1});
    const size_t size = bits_of(parameter.dtype()) / 8;
    for (int64_t n = 0; n < p.n; ++n) std::copy_n(parameter.raw(), size, all.mutable_raw() + static_cast<size_t>(n) * size);
    return all;
  };
  if (block > 0) {
    const int64_t blocks = (p.k + block - 1) / block;
    if (axis != (turned ? 1 : 0) || scales->shape() != (turned ? Shape{p.n, blocks} : Shape{blocks, p.n})) return false;
    p.block = block;
  } else {
    if (scales->size() != 1 && (axis != (turned ? 0 : 1) || scales->shape() != Shape{p.n})) return false;
    p.block = p.k;
  }
  p.codes = turned ? shifted(*codes) : transposed(shifted(*codes));
  p.scales = lay(*scales);
  if (zeros) p.zeros = lay(shifted(*zeros));
  else if (t == DType::U8 || t == DType::U4) p.zeros = Tensor::zeros(DType::U8, p.scales.shape());
  codes->release_pages();
  return true;
}

/// com.microsoft's MatMulNBits: codes [n, blocks, bytes], scales and zero points by column and block.
bool read_nbits(PlanView& view, const Node& node, LowBitProduct& p) {
  const Tensor *codes = view.constant(node.input(1)), *scales = view.constant(node.input(2)), *zeros = view.constant(node.input(3));
  if (!codes || !scales || (node.input(3) != kNone && !zeros) || node.input(4) != kNone || codes->dtype() != DType::U8 || !is_number(scales->dtype())) return false;
  p.k = node.i("K", 0), p.n = node.i("N", 0), p.block = node.i("block_size", 0), p.bits = static_cast<int>(node.i("bits", 4));
  if (p.k < 1 || p.n < 1 || p.block < 16 || (p.bits != 4 && p.bits != 8)) return false;
  p.type = scales->dtype();
  const int64_t blocks = (p.k + p.block - 1) / p.block, bytes = p.block * p.bits / 8;
  if (codes->size() != p.n * blocks * bytes || scales->size() != p.n * blocks) return false;
  const auto code = [&](const uint8_t* row, int64_t i) { return p.bits == 8 ? row[i] : static_cast<uint8_t>(row[i / 2] >> i % 2 * 4 & 15); };
  p.codes = Tensor(DType::U8, {p.n, p.k});
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t k = 0; k < p.k; ++k) p.codes.mutable_data<uint8_t>()[n * p.k + k] = code(codes->data<uint8_t>() + n * blocks * bytes, k);
  p.scales = scales->reshaped({p.n, blocks});
  if (zeros) {
    const int64_t stride = p.bits == 8 ? blocks : (blocks + 1) / 2;
    if (zeros->dtype() != DType::U8 || zeros->size() != p.n * stride) return false;
    p.zeros = Tensor(DType::U8, {p.n, blocks});
    for (int64_t n = 0; n < p.n; ++n)
      for (int64_t b = 0; b < blocks; ++b) p.zeros.mutable_data<uint8_t>()[n * blocks + b] = code(zeros->data<uint8_t>() + n * stride, b);
  }
  codes->release_pages();
  return true;
}

bool is_nbits(const Node& node) { return node.op == "MatMulNBits" && node.domain == "com.microsoft"; }

/// A constant row of the product's type.
bool read_bias(PlanView& view, ValueId value, LowBitProduct& p) {
  if (value == kNone) return true;
  const Tensor* t = view.constant(value);
  if (!t || t->dtype() != p.type || t->size() != p.n || t->rank() != 1) return false;
  p.bias = *t;
  return true;
}

}  // namespace

std::optional<FusedStep> fuse_low_bit_product(PlanView& view, const Node& node) {
  const Device* device = view.device();
  if (!device) return std::nullopt;
  FusedStep step;
  const Node* at = &node;
  ValueId added = kNone;
  if (is_binary(at, "Add")) {
    for (size_t i : {0u, 1u}) {
      const Node* maker = view.only_for_one(node.input(i));
      if (maker && view.constant(node.input(1 - i)) && (maker->is("MatMul") || is_nbits(*maker))) at = maker, added = node.input(1 - i);
    }
    if (at == &node) return std::nullopt;
    step.covers.push_back(at->id);
  }
  LowBitProduct p;
  ValueId own = kNone;
  if (is_nbits(*at)) {
    if (!read_nbits(view, *at, p)) return std::nullopt;
    own = at->input(5);
  } else if (at->is("MatMul") || at->is("Gemm")) {
    p.matrix = at->is("Gemm");
    if (p.matrix && (at->i("transA", 0) != 0 || at->f("alpha", 1) != 1 || at->f("beta", 1) != 1)) return std::nullopt;
    if (view.constant(at->input(0)) || !read_weights(view, view.producer(at->input(1)), p.matrix && at->i("transB", 0) != 0, p)) return std::nullopt;
    own = p.matrix ? at->input(2) : kNone;
  } else {
    return std::nullopt;
  }
  if ((own != kNone && added != kNone) || !read_bias(view, own == kNone ? added : own, p)) return std::nullopt;
  step.inputs = {at->input(0)};
  step.named = at->id;
  step.kernel = device->low_bit_product(std::move(p));
  return step;
}

}  // namespace infopt

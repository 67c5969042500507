// com.microsoft's MatMulNBits, ONNX Runtime's product with packed weights: codes [N][blocks][bytes] along K, lowest bits first, a scale and perhaps
// a zero point for each block. Constant weights are decoded once; the product is oneDNN's.
#include "lib/base/error.h"
#include "lib/ops/op.h"
#include "lib/runtime/cpu/dnnl_adapter.h"

namespace infopt {
namespace {

constexpr int64_t kMost = int64_t{1} << 40;  // elements

struct Packing {
  int64_t n, k, block, bits;
  int64_t blocks() const { return (k + block - 1) / block; }
  int64_t bytes() const { return block * bits / 8; }
  int64_t zero_bytes() const { return (blocks() * bits + 7) / 8; }
};

Packing packing_of(const Node& node) {
  const Packing p{node.i("N", 0), node.i("K", 0), node.i("block_size", 0), node.i("bits", 4)};
  if (p.n < 1 || p.k < 1 || p.block < 1 || p.k > kMost || p.block > kMost || p.n > kMost / (p.blocks() * p.block)) throw Error(ErrorKind::Malformed, "MatMulNBits of N " + std::to_string(p.n) + ", K " + std::to_string(p.k) + " and blocks of " + std::to_string(p.block));
  if ((p.bits != 2 && p.bits != 4 && p.bits != 8) || p.block * p.bits % 8 != 0) throw Error(ErrorKind::Unsupported, "MatMulNBits with " + std::to_string(p.bits) + " bits");
  return p;
}

float code_at(const uint8_t* row, int64_t i, int64_t bits) {
  const int64_t each = 8 / bits;
  return static_cast<float>(row[i / each] >> (i % each * bits) & ((1 << bits) - 1));
}

/// [N, blocks] as float, whether packed or not; the middle code where there are none.
std::vector<float> zero_points(const Packing& p, const Tensor* zeros) {
  std::vector<float> out(static_cast<size_t>(p.n * p.blocks()), static_cast<float>(1 << (p.bits - 1)));
  if (!zeros) return out;
  if (zeros->dtype() != DType::U8) {
    if (zeros->size() != p.n * p.blocks()) throw Error(ErrorKind::Malformed, "zero points of shape " + to_string(zeros->shape()));
    return to_vector<float>(*zeros);
  }
  if (zeros->size() != p.n * p.zero_bytes()) throw Error(ErrorKind::Malformed, "zero points of shape " + to_string(zeros->shape()));
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t b = 0; b < p.blocks(); ++b) out[static_cast<size_t>(n * p.blocks() + b)] = code_at(zeros->data<uint8_t>() + n * p.zero_bytes(), b, p.bits);
  return out;
}

/// [N, K].
Tensor decode_weights(const Packing& p, const Tensor& codes, const Tensor& scales, const Tensor* zeros) {
  if (codes.dtype() != DType::U8 || codes.size() != p.n * p.blocks() * p.bytes() || scales.size() != p.n * p.blocks())
    throw Error(ErrorKind::Malformed, "weights of shape " + to_string(codes.shape()) + " with scales of " + to_string(scales.shape()) + " for MatMulNBits of N " + std::to_string(p.n) + " and K " + std::to_string(p.k));
  const std::vector<float> scale = to_vector<float>(scales), zero = zero_points(p, zeros);
  Tensor out(DType::F32, {p.n, p.k});
  float* to = out.mutable_data<float>();
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t k = 0; k < p.k; ++k) {
      const auto block = static_cast<size_t>(n * p.blocks() + k / p.block);
      *to++ = (code_at(codes.data<uint8_t>() + n * p.blocks() * p.bytes(), k, p.bits) - zero[block]) * scale[block];
    }
  return out;
}

class MatMulNBitsKernel : public Kernel {
 public:
  explicit MatMulNBitsKernel(const KernelSpec& spec) : packing_(packing_of(spec.node)) {
    if (spec.node.input(4) != kNone) throw Error(ErrorKind::Unsupported, "MatMulNBits with an order of K (g_idx)");
    const Tensor *codes = spec.constant(1), *scales = spec.constant(2), *zeros = spec.constant(3);
    if (!codes || !scales || (spec.node.input(3) != kNone && !zeros)) return;
    weights_ = decode_weights(packing_, *codes, *scales, zeros);
    codes->release_pages();
  }

  void run(KernelContext& context) const override {
    const Tensor& given = context.in(0);
    if (given.rank() < 1 || given.dim(-1) != packing_.k) throw Error(ErrorKind::Malformed, "an input of shape " + to_string(given.shape()) + " for MatMulNBits of K " + std::to_string(packing_.k));
    const Tensor x = cast(given, DType::F32);
    const Tensor weights = weights_.defined() ? weights_ : decode_weights(packing_, context.in(1), context.in(2), context.has(3) ? &context.in(3) : nullptr);
    Tensor bias;
    if (context.has(5)) {
      if (context.in(5).size() != packing_.n) throw Error(ErrorKind::Malformed, "a bias of shape " + to_string(context.in(5).shape()));
      bias = cast(context.in(5), DType::F32).reshaped({1, packing_.n});
    }
    Shape shape = given.shape();
    shape.back() = packing_.n;
    Tensor y(DType::F32, shape);
    if (x.size() > 0) {
      Tensor flat = y.reshaped({x.size() / packing_.k, packing_.n});
      product_.run(x.reshaped({x.size() / packing_.k, packing_.k}), false, weights, true, weights_.defined(), bias.defined() ? &bias : nullptr, flat);
    }
    context.set(0, cast(y, given.dtype()));
  }

  std::string describe() const override { return weights_.defined() ? "float product, oneDNN, weights decoded and packed" : "float product, oneDNN"; }

 private:
  Packing packing_;
  Tensor weights_;  ///< undefined where they aren't the same in every run
  cpu::Product product_;
};

}  // namespace

std::vector<OpDef> op_matmul_nbits() {
  return {{.name = "MatMulNBits", .domain = "com.microsoft", .cpu = [](const KernelSpec& s) -> std::unique_ptr<Kernel> { return std::make_unique<MatMulNBitsKernel>(s); }}};
}

}  // namespace infopt

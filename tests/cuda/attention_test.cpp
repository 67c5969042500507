// Attention on the device, as the fusion rules find it, against the CPU's.
#include <limits>

#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

Tensor random_tensor(Random& r, DType type, const Shape& shape, float reach = 1) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(-reach, reach);
  return cast(t, type);
}

/// softmax(scale·Q·Kᵀ, masked)·V of random shapes, masks and layouts.
struct AttentionCase {
  DType type;
  int64_t batch, heads, queries, keys, depth, value_depth;
  bool heads_last, out_transposed, float_scores;
  std::string mask;  ///< none, add, where, where_else, add_where, where_add
  std::string kind;  ///< of the mask: random, causal, padding, rows
  Shape mask_shape;

  AttentionCase(Random& r, DType t) : type(t) {
    batch = r.in(1, 2), heads = r.in(1, 3);
    queries = r.pick<int64_t>({1, 2, 7, 16, 17, 33, 64, 70}), keys = r.pick<int64_t>({1, 2, 15, 16, 33, 64, 65, 130});
    depth = r.pick<int64_t>({1, 3, 8, 16, 17, 32, 64, 72}), value_depth = r.pick<int64_t>({1, 5, 8, 16, 32, 64, 80, 136});
    if (r.chance(2)) depth = value_depth = r.pick<int64_t>({16, 32, 64, 128});
    heads_last = r.chance(2), out_transposed = r.chance(2);
    float_scores = t != DType::F32 && r.chance(3);
    mask = r.pick<std::string>({"none", "none", "add", "add", "where", "where_else", "add_where", "where_add"});
    kind = r.pick<std::string>({"random", "causal", "padding", "rows"});
    mask_shape = {r.pick<int64_t>({1, batch}), r.pick<int64_t>({1, heads}), r.pick<int64_t>({1, queries}), r.pick<int64_t>({keys, keys, keys, 1})};
    mask_shape.erase(mask_shape.begin(), mask_shape.begin() + r.in(0, 3));
  }

  bool adds() const { return mask.find("add") != std::string::npos; }
  bool chooses() const { return mask.find("where") != std::string::npos; }
  DType score_type() const { return float_scores ? DType::F32 : type; }

  Tensor mask_tensor(Random& r) const {
    Tensor t(DType::F32, mask_shape);
    const int64_t columns = mask_shape.back(), rows = mask_shape.size() < 2 ? 1 : mask_shape[mask_shape.size() - 2];
    for (int64_t i = 0; i < t.size(); ++i) {
      const int64_t row = i / columns % rows, column = i % columns;
      float& v = t.mutable_data<float>()[i];
      v = r.real(-1, 1);
      if (kind == "causal" && column > row) v = -kInfinity;
      if (kind == "padding" && column > columns / 2) v = -10000;
      if (kind == "rows" && row % 3 == 1) v = -kInfinity;
    }
    return cast(t, score_type());
  }

  /// The graph's output, and what it is fed with.
  ValueId build(Net& net, Random& r, Feeds& feeds) const {
    const auto operand = [&](int64_t rows, int64_t columns) {
      const Shape shape = heads_last ? Shape{batch, rows, heads, columns} : Shape{batch, heads, rows, columns};
      const ValueId v = net.input(type, shape);
      feeds[v] = random_tensor(r, type, shape, 1.5f);
      return v;
    };
    const auto transposed = [&](ValueId v, std::vector<int64_t> perm) { return net.add("Transpose", {v}, {{"perm", std::move(perm)}}); };
    ValueId q = operand(queries, depth), k = operand(keys, depth), v = operand(keys, value_depth);
    if (heads_last) q = transposed(q, {0, 2, 1, 3}), v = transposed(v, {0, 2, 1, 3});
    k = transposed(k, heads_last ? std::vector<int64_t>{0, 2, 3, 1} : std::vector<int64_t>{0, 1, 3, 2});
    ValueId s = net.add("MatMul", {q, k});
    s = net.add("Mul", {s, net.constant(cast(Tensor::scalar(0.25f), type))});
    if (float_scores) s = net.add("Cast", {s}, {{"to", static_cast<int64_t>(DType::F32)}});
    const auto add = [&] {
      const ValueId m = net.input(score_type(), mask_shape);
      feeds[m] = mask_tensor(r);
      s = net.add("Add", {s, m});
    };
    const auto choose = [&] {
      const ValueId keep = net.input(DType::Bool, mask_shape);
      Tensor t(DType::Bool, mask_shape);
      for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<bool>()[i] = !r.chance(4);
      feeds[keep] = t;
      const ValueId low = net.constant(cast(Tensor::scalar(-1000.0f), score_type()));
      s = mask == "where_else" ? net.add("Where", {keep, low, s}) : net.add("Where", {keep, s, low});
    };
    if (mask.starts_with("where")) choose();
    if (adds()) add();
    if (mask == "add_where") choose();
    s = net.add("Softmax", {s}, {{"axis", int64_t{-1}}});
    if (float_scores) s = net.add("Cast", {s}, {{"to", static_cast<int64_t>(type)}});
    s = net.add("MatMul", {s, v});
    return out_transposed ? transposed(s, {0, 2, 1, 3}) : s;
  }
};

void expect_attention(Random& r, DType type) {
  const AttentionCase c(r, type);
  SCOPED_TRACE(testing::Message() << name_of(type) << " b" << c.batch << " h" << c.heads << " q" << c.queries << " k" << c.keys << " d" << c.depth << " v" << c.value_depth << " " << c.mask << to_string(c.mask_shape)
                                  << " " << c.kind << (c.heads_last ? " heads last" : ""));
  Net net;
  Feeds feeds;
  net.output(c.build(net, r, feeds));
  SessionOptions on_device;
  on_device.device = cuda_device();
  EXPECT_EQ(Session(net.graph(), on_device).plan().size(), 1u);
  expect_as_cpu(net.graph(), feeds, type == DType::F32 ? 1e-5 : type == DType::F16 ? 4e-3 : 3e-2);
}

TEST(CudaAttention, GivesWhatTheCpuGives) {
  Random r(31);
  for (int i = 0; i < 60 && !testing::Test::HasFatalFailure(); ++i) expect_attention(r, DType::F32);
}

TEST(CudaAttention, OfSixteenBitFloatsGivesWhatTheCpuGives) {
  Random r(32);
  for (int i = 0; i < 80 && !testing::Test::HasFatalFailure(); ++i) expect_attention(r, r.pick({DType::F16, DType::BF16}));
}

TEST(CudaAttention, WithoutKeysIsZero) {
  Net net;
  const ValueId q = net.input(DType::F32, {5, 3}), k = net.input(DType::F32, {3, 0}), v = net.input(DType::F32, {0, 2});
  net.output(net.add("MatMul", {net.add("Softmax", {net.add("MatMul", {q, k})}, {{"axis", int64_t{1}}}), v}));
  expect_as_cpu(net.graph(), {{q, Tensor::zeros(DType::F32, {5, 3})}, {k, Tensor::zeros(DType::F32, {3, 0})}, {v, Tensor::zeros(DType::F32, {0, 2})}});
}

TEST(CudaAttention, KeysAndQueriesBroadcastOverHeads) {
  Random r(33);
  Net net;
  const ValueId q = net.input(DType::F32, {2, 3, 1, 5, 8}), k = net.input(DType::F32, {3, 4, 8, 9}), v = net.input(DType::F32, {2, 1, 4, 9, 6});
  net.output(net.add("MatMul", {net.add("Softmax", {net.add("MatMul", {q, k})}), v}));
  expect_as_cpu(net.graph(), {{q, random_tensor(r, DType::F32, {2, 3, 1, 5, 8})}, {k, random_tensor(r, DType::F32, {3, 4, 8, 9})}, {v, random_tensor(r, DType::F32, {2, 1, 4, 9, 6})}});
}

}  // namespace
}  // namespace infopt::test

// Attention whose keys and values are codes of 8 bits: the same bits as attention of what DequantizeLinear makes of them.
#include "tests/cuda/elements.h"
#include "tests/runtime/attention_cases.h"

namespace infopt::test {
namespace {

SessionOptions on_device() {
  SessionOptions options;
  options.device = cuda_device();
  options.fallback = false;
  return options;
}

bool reads_codes(const Graph& graph) {
  const auto plan = Session(graph, on_device()).plan();
  return plan.size() == 1 && plan[0].kernel.find(", of coded keys or values") != std::string::npos;
}

/// Codes with one scale, or one for each place along an axis; the scales may be known to the run alone.
struct Coded {
  Tensor codes, scale, zero;
  int64_t axis = 0;
  bool given = false;

  Coded(Random& r, DType values, const Shape& shape) {
    const DType type = r.pick({DType::U8, DType::I8, DType::F8E4M3FN, DType::F8E5M2});
    codes = is_float(type) ? random_tensor(r, type, shape, -20, 20) : random_codes(r, type, shape);
    axis = r.in(-static_cast<int64_t>(shape.size()), static_cast<int64_t>(shape.size()) - 1);
    const Shape scales = r.chance(3) ? Shape{} : Shape{shape[static_cast<size_t>(axis < 0 ? axis + static_cast<int64_t>(shape.size()) : axis)]};
    const float step = is_float(type) ? 0.05f : 0.01f;
    scale = random_tensor(r, values, scales, step, 2 * step);
    if (r.chance(2) && !is_float(type)) zero = random_codes(r, type, scales);
    else if (type != DType::U8) zero = Tensor::zeros(type, scales);
    given = r.chance(3);
  }
  ValueId dequantized(Net& net, Feeds& feeds, ValueId codes_value) const {
    ValueId s = kNone;
    if (given) feeds[s = net.input(scale.dtype(), scale.shape())] = scale;
    else s = net.constant(scale);
    std::vector<ValueId> inputs{codes_value, s};
    if (zero.defined()) inputs.push_back(net.constant(zero));
    return net.add("DequantizeLinear", inputs, {{"axis", axis, {}}});
  }
  ValueId add(Net& net, Feeds& feeds) const {
    const ValueId in = net.input(codes.dtype(), codes.shape());
    feeds[in] = codes;
    return dequantized(net, feeds, in);
  }
  /// What they mean, as the device has it.
  Tensor meaning() const {
    Net net(21);
    Feeds feeds;
    net.output(add(net, feeds));
    return run_cuda(net.graph(), feeds).at(0);
  }
};

/// What a Transpose by `perm` makes t of.
Tensor turned_back(const Tensor& t, const std::vector<int64_t>& perm) {
  std::vector<int64_t> back(perm.size());
  for (size_t a = 0; a < perm.size(); ++a) back[static_cast<size_t>(perm[a])] = static_cast<int64_t>(a);
  Net net;
  const ValueId in = net.input(t.dtype(), t.shape());
  net.output(net.add("Transpose", {in}, {{"perm", back, {}}}));
  return Session(net.graph()).run({{in, t}}).at(0);
}

TEST(CudaCodedAttention, IsAttentionOfWhatTheCodesMean) {
  Random r(91);
  for (int i = 0; i < 80 && !HasFailure(); ++i) {
    const DType type = r.pick({DType::F32, DType::F16, DType::BF16});
    const int64_t batch = r.in(1, 2), heads = r.in(1, 3), queries = r.pick<int64_t>({1, 7, 16, 33, 70}), keys = r.pick<int64_t>({1, 2, 15, 33, 64, 65, 130});
    int64_t depth = r.pick<int64_t>({1, 3, 8, 17, 32, 72}), value_depth = r.pick<int64_t>({1, 5, 8, 24, 80, 136});
    if (r.chance(2)) depth = value_depth = r.pick<int64_t>({16, 24, 32, 64, 128});
    const bool heads_last = r.chance(2), out_transposed = r.chance(2), early = r.chance(2), masked = r.chance(2), causal = r.chance(2), k_alone = type == DType::F32 && r.chance(4);
    SCOPED_TRACE(testing::Message() << i << " " << name_of(type) << " b" << batch << " h" << heads << " q" << queries << " k" << keys << " d" << depth << " v" << value_depth << (heads_last ? " heads last" : "")
                                    << (early ? " codes transposed" : "") << (masked ? " masked" : "") << (k_alone ? " keys alone" : ""));
    const auto shape = [&](int64_t rows, int64_t columns) { return heads_last ? Shape{batch, rows, heads, columns} : Shape{batch, heads, rows, columns}; };
    const std::vector<int64_t> k_perm = heads_last ? std::vector<int64_t>{0, 2, 3, 1} : std::vector<int64_t>{0, 1, 3, 2}, v_perm = heads_last ? std::vector<int64_t>{0, 2, 1, 3} : std::vector<int64_t>{0, 1, 2, 3};
    const auto permuted = [](const Shape& s, const std::vector<int64_t>& perm) {
      Shape out;
      for (int64_t p : perm) out.push_back(s[static_cast<size_t>(p)]);
      return out;
    };
    const Tensor q = random_tensor(r, type, {batch, heads, queries, depth}, -1, 1);
    // Transposed while they are codes, their scales are along the axes that they then have.
    const Coded k(r, type, early ? permuted(shape(keys, depth), k_perm) : shape(keys, depth)), v(r, type, early ? permuted(shape(keys, value_depth), v_perm) : shape(keys, value_depth));
    Tensor mask(DType::F32, {queries, keys});
    for (int64_t n = 0; n < mask.size(); ++n) mask.mutable_data<float>()[n] = causal && n % keys > n / keys ? -std::numeric_limits<float>::infinity() : r.real(-1, 1);
    const auto build = [&](Net& net, Feeds& feeds, bool coded) {
      const auto operand = [&](const Coded& c, const std::vector<int64_t>& perm, bool codes) {
        // Both lie as they do before the Transpose, wherever that stands.
        const auto transposed = [&](const Tensor& t) {
          const Tensor lying = early ? turned_back(t, perm) : t;
          const ValueId in = net.input(lying.dtype(), lying.shape());
          feeds[in] = lying;
          return net.add("Transpose", {in}, {{"perm", perm, {}}});
        };
        if (!codes) return transposed(c.meaning());
        return early ? c.dequantized(net, feeds, transposed(c.codes)) : net.add("Transpose", {c.add(net, feeds)}, {{"perm", perm, {}}});
      };
      const ValueId qv = net.input(type, q.shape());
      feeds[qv] = q;
      ValueId s = net.add("Mul", {net.add("MatMul", {qv, operand(k, k_perm, coded)}), net.constant(cast(Tensor::scalar(0.25f), type))});
      if (masked) {
        const ValueId m = net.input(type, mask.shape());
        feeds[m] = cast(mask, type);
        s = net.add("Add", {s, m});
      }
      s = net.add("MatMul", {net.add("Softmax", {s}), operand(v, v_perm, coded && !k_alone)});
      net.output(out_transposed ? net.add("Transpose", {s}, {{"perm", std::vector<int64_t>{0, 2, 1, 3}, {}}}) : s);
    };
    Net net(21), plain(21);
    Feeds feeds, plain_feeds;
    build(net, feeds, true);
    build(plain, plain_feeds, false);
    EXPECT_TRUE(reads_codes(net.graph()));
    expect_same_bits(run_cuda(net.graph(), feeds), run_cuda(plain.graph(), plain_feeds));
    expect_as_cpu(net.graph(), feeds, type == DType::F32 ? 1e-5 : type == DType::F16 ? 4e-3 : 3e-2);
  }
}

TEST(CudaCodedAttention, OfTheOperatorIsTheSame) {
  Random r(92);
  int seen = 0;
  while (seen < 60 && !HasFailure()) {
    AttentionCase c = random_attention(r);
    if (c.with_past || c.present) continue;
    if (r.chance(3)) c.depth = c.value_depth = r.pick<int64_t>({16, 64, 128});
    ++seen;
    SCOPED_TRACE(c.describe());
    AttentionInputs g = inputs_of(c, r);
    const Coded k(r, c.type, g.k.shape()), v(r, c.type, g.v.shape());
    g.k = k.meaning(), g.v = v.meaning();
    AttentionNet plain(c.opset), net(c.opset);
    build(plain, c, g);
    // The same graph, but for what K and V are.
    Attributes attributes = plain.net.graph().node(plain.net.graph().order()[0]).attributes;
    std::vector<ValueId> in;
    const auto feed = [&](const Tensor& t) {
      in.push_back(t.defined() ? net.net.input(t.dtype(), t.shape()) : kNone);
      if (t.defined()) net.feeds[in.back()] = t;
    };
    feed(g.q);
    in.push_back(k.add(net.net, net.feeds));
    in.push_back(v.add(net.net, net.feeds));
    feed(g.mask), feed({}), feed({}), feed(g.lengths);
    while (in.back() == kNone) in.pop_back();
    net.net.output(net.net.add("Attention", in, attributes));
    EXPECT_TRUE(reads_codes(net.net.graph()));
    expect_same_bits(run_cuda(net.net.graph(), net.feeds), run_cuda(plain.net.graph(), plain.feeds));
  }
}

TEST(CudaCodedAttention, APastOrAPresentIsOfFloats) {
  Random r(93);
  for (const bool present : {false, true}) {
    Net net(24);
    Feeds feeds;
    const Coded k(r, DType::F32, {1, 2, 5, 8}), v(r, DType::F32, {1, 2, 5, 8});
    const Tensor q = random_tensor(r, DType::F32, {1, 4, 3, 8}), past = random_tensor(r, DType::F32, {1, 2, 2, 8});
    const ValueId in = net.input(DType::F32, q.shape()), before = net.input(DType::F32, past.shape());
    feeds[in] = q, feeds[before] = past;
    std::vector<ValueId> inputs{in, k.add(net, feeds), v.add(net, feeds)};
    if (!present) inputs.insert(inputs.end(), {kNone, before, before});
    const NodeId node = net.add_node("Attention", inputs, present ? 3 : 1);
    for (ValueId y : net.graph().node(node).outputs) net.output(y);
    EXPECT_EQ(Session(net.graph(), on_device()).plan().size(), 3u);
    expect_as_cpu(net.graph(), feeds, 1e-5);
  }
}

TEST(CudaCodedAttention, ScalesThatDontFitAreErrors) {
  Random r(94);
  Net net(23);
  const ValueId q = net.input(DType::F32, {1, 1, 3, 8}), k = net.input(DType::I8, {1, 1, 5, 8}), s = net.open_input(DType::F32);
  const ValueId keys = net.add("DequantizeLinear", {k, s}, {{"axis", int64_t{3}, {}}});
  net.output(net.add("Attention", {q, keys, keys}));
  const Feeds feeds{{q, random_tensor(r, DType::F32, {1, 1, 3, 8})}, {k, random_codes(r, DType::I8, {1, 1, 5, 8})}};
  const auto run = [&](const Tensor& scale) {
    Feeds all = feeds;
    all[s] = scale;
    return run_cuda(net.graph(), all);
  };
  run(random_tensor(r, DType::F32, {8}));
  run(random_tensor(r, DType::F32, {}));
  EXPECT_THROW(run(random_tensor(r, DType::F32, {7})), Error);
  EXPECT_THROW(run(random_tensor(r, DType::F32, {5, 8})), Error);
}

}  // namespace
}  // namespace infopt::test

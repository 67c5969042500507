// Products of two tensors of codes, ConvInteger and convolutions with dynamic activations on the device: the CPU's bits.
#include <gmock/gmock.h>

#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

Tensor reals(Random& r, const Shape& shape, float low = -1, float high = 1) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(low, high);
  return t;
}

/// What the device's kernels say of themselves.
std::string kernels_of(const Graph& graph) {
  SessionOptions options;
  options.device = cuda_device();
  std::string all;
  for (const auto& t : Session(graph, options).profile()) all += t.kernel + "; ";
  return all;
}

void expect_bits(const Graph& graph, const Feeds& feeds) { expect_same_bits(run_cuda(graph, feeds), Session(graph, {}).run(feeds)); }

/// Shapes for a product, leading axes broadcast.
struct Factors {
  Shape a, b;
  explicit Factors(Random& r) {
    const int64_t m = r.pick<int64_t>({1, 3, 17, 40}), k = r.pick<int64_t>({1, 5, 16, 33, 64}), n = r.pick<int64_t>({1, 4, 16, 30, 35});
    for (int64_t i = r.in(0, 3); i > 0; --i) {
      const int64_t size = r.in(1, 4);
      a.push_back(r.chance(4) ? 1 : size), b.push_back(r.chance(4) ? 1 : size);
    }
    if (r.chance(3)) b.erase(b.begin(), b.begin() + r.in(0, static_cast<int64_t>(b.size())));
    a.insert(a.end(), {m, k}), b.insert(b.end(), {k, n});
  }
};

TEST(CudaCodeProduct, TwoActivationsGiveTheCpusBits) {
  Random r(121);
  for (int i = 0; i < 60 && !testing::Test::HasFatalFailure(); ++i) {
    const Factors f(r);
    const Step sa = random_step(r, 0.01f), sb = random_step(r, 0.02f), sy = random_step(r, 0.05f);
    Net net;
    const ValueId a = net.input(sa.type, f.a), b = net.input(sb.type, f.b);
    ValueId y = net.add("MatMul", {net.dequantize(a, sa), net.dequantize(b, sb)});
    if (!r.chance(3)) y = net.quantize(y, sy);
    net.output(y);
    SCOPED_TRACE(testing::Message() << to_string(f.a) << " by " << to_string(f.b));
    EXPECT_THAT(kernels_of(net.graph()), testing::HasSubstr("int8 product of two activations"));
    expect_bits(net.graph(), {{a, random_codes(r, sa.type, f.a)}, {b, random_codes(r, sb.type, f.b)}});
  }
}

TEST(CudaCodeProduct, TwoDynamicActivationsGiveTheCpusBits) {
  Random r(122);
  for (int i = 0; i < 30 && !testing::Test::HasFatalFailure(); ++i) {
    const Factors f(r);
    Net net;
    const ValueId a = net.input(DType::F32, f.a), b = net.input(DType::F32, f.b);
    const auto qa = net.graph().node(net.add_node("DynamicQuantizeLinear", {a}, 3)).outputs, qb = net.graph().node(net.add_node("DynamicQuantizeLinear", {b}, 3)).outputs;
    const ValueId sums = net.add("Cast", {net.add("MatMulInteger", {qa[0], qb[0], qa[2], qb[2]})}, {{"to", int64_t{1}}});
    net.output(net.add("Relu", {net.add("Mul", {sums, net.add("Mul", {qa[1], qb[1]})})}));
    SCOPED_TRACE(testing::Message() << to_string(f.a) << " by " << to_string(f.b));
    EXPECT_THAT(kernels_of(net.graph()), testing::HasSubstr("int8 product of two activations"));
    expect_bits(net.graph(), {{a, reals(r, f.a, -1, 2)}, {b, reals(r, f.b, -3, 1)}});
  }
}

TEST(CudaCodeProduct, MatMulIntegerWithZeroPointsOfAnyShape) {
  Random r(123);
  for (int i = 0; i < 60 && !testing::Test::HasFatalFailure(); ++i) {
    const Factors f(r);
    const DType ta = r.pick({DType::U8, DType::I8}), tb = r.pick({DType::U8, DType::I8});
    Net net;
    std::vector<ValueId> in{net.input(ta, f.a), net.input(tb, f.b), kNone, kNone};
    if (r.chance(2)) in[2] = net.constant(random_codes(r, ta, {}));
    if (r.chance(2)) in[3] = net.constant(random_codes(r, tb, r.chance(2) ? Shape{} : Shape{f.b.back()}));
    net.output(net.add("MatMulInteger", in));
    SCOPED_TRACE(testing::Message() << to_string(f.a) << " by " << to_string(f.b));
    expect_bits(net.graph(), {{in[0], random_codes(r, ta, f.a)}, {in[1], random_codes(r, tb, f.b)}});
  }
}

/// A random ConvInteger's shapes and attributes.
struct Convolution {
  Shape x, w;
  Attributes attributes;
  explicit Convolution(Random& r) {
    const int64_t spatial = r.pick<int64_t>({1, 2, 2, 3}), groups = r.pick<int64_t>({1, 1, 1, 3, 8}), channels = r.pick<int64_t>({1, 3, 4, 16, 20}), columns = groups == 3 ? 32 : r.pick<int64_t>({1, 5, 33});
    x = {r.in(1, 2), groups * channels}, w = {groups * columns, channels};
    std::vector<int64_t> pads, strides, dilations;
    for (int64_t i = 0; i < spatial; ++i) {
      const int64_t kernel = r.in(1, 3);
      w.push_back(kernel);
      strides.push_back(r.in(1, 2)), dilations.push_back(r.in(1, 2));
      x.push_back(r.pick<int64_t>({1, 6, 9}));
    }
    for (int64_t i = 0; i < 2 * spatial; ++i) pads.push_back(x[static_cast<size_t>(2 + i % spatial)] == 1 ? 4 : r.in(0, 2));
    attributes = {{"group", groups}, {"pads", pads}, {"strides", strides}, {"dilations", dilations}};
  }
};

TEST(CudaConvInteger, GivesTheCpusSums) {
  Random r(124);
  for (int i = 0; i < 60 && !testing::Test::HasFatalFailure(); ++i) {
    const Convolution c(r);
    const DType tx = r.pick({DType::U8, DType::I8}), tw = r.pick({DType::U8, DType::I8});
    Net net;
    std::vector<ValueId> in{net.input(tx, c.x), net.constant(random_codes(r, tw, c.w)), kNone, kNone};
    Feeds feeds{{in[0], random_codes(r, tx, c.x)}};
    if (!r.chance(3)) feeds[in[2] = net.input(tx, {})] = random_codes(r, tx, {});
    if (r.chance(2)) in[3] = net.constant(random_codes(r, tw, r.chance(2) ? Shape{} : Shape{c.w[0]}));
    net.output(net.add("ConvInteger", in, c.attributes));
    SCOPED_TRACE(testing::Message() << to_string(c.x) << " by " << to_string(c.w));
    expect_bits(net.graph(), feeds);
  }
}

TEST(CudaConvInteger, WithDynamicActivationsToFloatIsOneStep) {
  Random r(125);
  for (int i = 0; i < 40 && !testing::Test::HasFatalFailure(); ++i) {
    const Convolution c(r);
    const DType tw = r.pick({DType::U8, DType::I8});
    const Shape each(c.w.size() - 1, 1);
    Shape column = each;
    column[0] = c.w[0];
    Net net;
    const ValueId x = net.input(DType::F32, c.x);
    const auto q = net.graph().node(net.add_node("DynamicQuantizeLinear", {x}, 3)).outputs;
    std::vector<ValueId> in{q[0], net.constant(random_codes(r, tw, c.w)), q[2]};
    if (r.chance(2)) in.push_back(net.constant(random_codes(r, tw, {})));
    const ValueId sums = net.add("Cast", {net.add("ConvInteger", in, c.attributes)}, {{"to", int64_t{1}}});
    ValueId y = net.add("Mul", {sums, net.add("Mul", {q[1], net.constant(reals(r, column, 0.001f, 0.01f))})});
    if (r.chance(2)) y = net.add("Add", {y, net.constant(reals(r, column))});
    if (r.chance(2)) y = net.add("Relu", {y});
    net.output(y);
    SCOPED_TRACE(testing::Message() << to_string(c.x) << " by " << to_string(c.w));
    EXPECT_THAT(kernels_of(net.graph()), testing::HasSubstr("with dynamic activations"));
    expect_bits(net.graph(), {{x, reals(r, c.x, -1, 2)}});
  }
}

}  // namespace
}  // namespace infopt::test

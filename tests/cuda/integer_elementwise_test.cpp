// Tables, sums, products and poolings of codes on the CUDA device: the CPU's bits, in either layout.
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

/// With its zero point, which says what type the codes behind a Transpose are.
Step typed_step(Random& r, float scale) {
  Step s = random_step(r, scale);
  s.has_zero = true;
  return s;
}

/// Codes as an input of the graph, plain or channels-last.
ValueId codes_input(Random& r, Net& net, Feeds& feeds, DType type, const Shape& shape) {
  const auto rank = static_cast<int64_t>(shape.size());
  const bool last = rank >= 3 && r.chance(2);
  Shape given = shape;
  std::vector<int64_t> perm{0, rank - 1};
  if (last) given.erase(given.begin() + 1), given.push_back(shape[1]);
  for (int64_t d = 1; d + 1 < rank; ++d) perm.push_back(d);
  const ValueId x = net.input(type, given);
  feeds[x] = random_codes(r, type, given);
  return last ? net.add("Transpose", {x}, {{"perm", perm}}) : x;
}

/// The same bits, from a step that says `kernel` of itself.
void expect_bits_of_cpu(Net& net, const Feeds& feeds, const std::string& kernel) {
  const Graph& graph = net.graph();
  SessionOptions options;
  options.device = cuda_device();
  options.fallback = false;
  const Session session(graph, options);
  std::string steps;
  for (const auto& line : session.plan()) steps += line.kernel + "; ";
  EXPECT_NE(steps.find(kernel), std::string::npos) << steps;
  expect_same_bits(session.run(feeds), Session(graph).run(feeds));
}

Shape random_codes_shape(Random& r) {
  Shape s{r.in(1, 2), r.pick<int64_t>({1, 3, 4, 16, 20, 32})};
  while (s.size() < 4 && r.chance(2)) s.push_back(r.in(1, 9));
  return s;
}

TEST(CudaIntegerElementwise, TablesAsTheCpu) {
  Random r(41);
  for (int i = 0; i < 40 && !testing::Test::HasFatalFailure(); ++i) {
    Net net;
    Feeds feeds;
    const Step from = typed_step(r, 0.05f), to = typed_step(r, 0.01f);
    const ValueId x = codes_input(r, net, feeds, from.type, random_codes_shape(r));
    net.output(net.quantize(net.add(r.pick<std::string>({"Sigmoid", "Relu", "Tanh"}), {net.dequantize(x, from)}), to));
    expect_bits_of_cpu(net, feeds, "table of 256 codes");
  }
}

TEST(CudaIntegerElementwise, SumsAndProductsAsTheCpu) {
  Random r(42);
  for (int i = 0; i < 120 && !testing::Test::HasFatalFailure(); ++i) {
    Net net;
    Feeds feeds;
    const Step a = typed_step(r, r.real(0.01f, 0.1f)), b = typed_step(r, r.real(0.01f, 0.1f)), y = typed_step(r, r.real(0.02f, 0.2f));
    const Shape shape = random_codes_shape(r);
    Shape other = shape;
    if (r.chance(2))
      for (int64_t& n : other) n = r.pick<int64_t>({1, n});
    if (r.chance(4)) other.erase(other.begin(), other.begin() + r.in(1, static_cast<int64_t>(other.size()) - 1));
    const ValueId left = codes_input(r, net, feeds, a.type, shape), right = codes_input(r, net, feeds, b.type, other);
    const bool product = r.chance(2);
    std::vector<ValueId> operands{net.dequantize(left, a), net.dequantize(right, b)};
    if (r.chance(2)) std::swap(operands[0], operands[1]);
    ValueId v = net.add(product ? "Mul" : "Add", operands);
    if (r.chance(3)) v = net.add("Relu", {v});
    net.output(net.quantize(v, y));
    expect_bits_of_cpu(net, feeds, product ? "int8 product by element" : "int8 sum");
  }
}

TEST(CudaIntegerElementwise, PoolingsAsTheCpu) {
  Random r(43);
  for (int i = 0; i < 80 && !testing::Test::HasFatalFailure(); ++i) {
    Net net;
    Feeds feeds;
    const std::string op = r.pick<std::string>({"MaxPool", "AveragePool", "GlobalAveragePool"});
    const Step from = typed_step(r, 0.05f), to = op == "MaxPool" ? from : typed_step(r, 0.04f);
    const int64_t spatial = r.in(1, 3);
    Shape shape{r.in(1, 2), r.pick<int64_t>({1, 3, 8, 16, 40})};
    std::vector<int64_t> kernel, strides, pads;
    for (int64_t d = 0; d < spatial; ++d) shape.push_back(r.in(3, 9)), kernel.push_back(r.in(1, 3)), strides.push_back(r.in(1, 2));
    for (int64_t d = 0; d < 2 * spatial; ++d) pads.push_back(r.in(0, kernel[static_cast<size_t>(d % spatial)] - 1));
    Attributes attributes;
    if (op != "GlobalAveragePool") attributes = {{"kernel_shape", kernel}, {"strides", strides}, {"pads", pads}, {"ceil_mode", r.in(0, 1)}};
    if (op == "AveragePool") attributes.push_back({"count_include_pad", r.in(0, 1)});
    net.output(net.quantize(net.add(op, {net.dequantize(codes_input(r, net, feeds, from.type, shape), from)}, attributes), to));
    expect_bits_of_cpu(net, feeds, op == "MaxPool" ? "int8 maximum" : "int8 average");
  }
}

}  // namespace
}  // namespace infopt::test

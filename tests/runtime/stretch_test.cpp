// Batches that run in parts: each item comes out as it does by itself, bit for bit, whatever the threads.
#include <algorithm>
#include <cstring>

#include "lib/base/memory.h"
#include "tests/runtime/fusion_harness.h"

namespace infopt::test {
namespace {

Tensor random_floats(Random& r, const Shape& shape) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = static_cast<float>(r.in(-1000, 1000)) / 1000.0f;
  return t;
}

Attributes window(int64_t kernel, int64_t pad, int64_t stride = 1, int64_t group = 1) {
  return {{"kernel_shape", std::vector<int64_t>{kernel, kernel}, {}}, {"pads", std::vector<int64_t>{pad, pad, pad, pad}, {}}, {"strides", std::vector<int64_t>{stride, stride}, {}}, {"group", group, {}}};
}
Attributes pool_window() { return {{"kernel_shape", std::vector<int64_t>{2, 2}, {}}, {"strides", std::vector<int64_t>{2, 2}, {}}}; }

bool same_bits(const Tensor& a, const Tensor& b) { return a.dtype() == b.dtype() && a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0; }

/// How often the session's first step ran.
int64_t calls_of_first(const Session& session) { return session.profile().at(0).calls; }

/// Convolutions, a residual, a chain, poolings and a squeeze-and-excitation, of images of 3 × side × side.
struct Images {
  Net net;
  ValueId x, middle, y;

  explicit Images(Random& r) {
    x = net.open_input(DType::F32);
    const ValueId stem = net.add("Relu", {net.add("Conv", {x, net.constant(random_floats(r, {32, 3, 3, 3}))}, window(3, 1))});
    const ValueId deep = net.add("Relu", {net.add("Conv", {stem, net.constant(random_floats(r, {32, 1, 3, 3}))}, window(3, 1, 1, 32))});
    middle = net.add("Conv", {deep, net.constant(random_floats(r, {32, 32, 1, 1}))}, window(1, 0));
    const ValueId sum = net.add("Add", {middle, stem});
    const ValueId shifted = net.add("Sigmoid", {net.add("Add", {net.add("Mul", {sum, net.constant(random_floats(r, {1, 32, 1, 1}))}), net.constant(random_floats(r, {32, 1, 1}))})});
    const ValueId pooled = net.add("MaxPool", {shifted}, pool_window());
    const ValueId gate = net.add("Sigmoid", {net.add("Conv", {net.add("GlobalAveragePool", {pooled}), net.constant(random_floats(r, {32, 32, 1, 1}))})});
    const ValueId gated = net.add("Mul", {pooled, gate});
    y = net.add("Reshape", {net.add("GlobalAveragePool", {gated}), net.integers({0, 32})});
    net.output(y);
  }
};

std::vector<Tensor> run_items(const Session& session, ValueId in, const Tensor& x) {
  std::vector<Tensor> all;
  for (int64_t i = 0; i < x.dim(0); ++i) {
    const auto out = session.run(Feeds{{in, x.slice_front(i, 1).clone()}});
    all.insert(all.end(), out.begin(), out.end());
  }
  return all;
}

TEST(Stretch, EachItemIsAsByItself) {
  Random r(1);
  Images m(r);
  const Graph& g = m.net.graph();
  const Tensor x = random_floats(r, {5, 3, 110, 110});  // a step reads and writes 4.6 MB an item: parts of one
  const auto want = run_items(Session(g, {.fetches = {m.middle, m.y}}), m.x, x);
  for (const int threads : {1, 2, 3, 5, 8}) {
    SCOPED_TRACE(threads);
    SessionOptions options{.fetches = {m.middle, m.y}};
    options.threads = threads;
    options.profile = true;
    const Session session(g, options);
    for (const int64_t calls : {1 + 5, 1 + 5 + 5}) {  // the first to learn of their size
      const auto got = session.run(Feeds{{m.x, x}});
      ASSERT_EQ(calls_of_first(session), calls);
      for (int64_t i = 0; i < 5; ++i) {
        EXPECT_TRUE(same_bits(got[0].slice_front(i, 1), want[static_cast<size_t>(2 * i)])) << i;
        EXPECT_TRUE(same_bits(got[1].slice_front(i, 1), want[static_cast<size_t>(2 * i + 1)])) << i;
      }
    }
  }
}

TEST(Stretch, SmallItemsGoTogether) {
  Random r(2);
  Images m(r);
  const Tensor x = random_floats(r, {16, 3, 40, 40});  // 0.6 MB an item: 6, 6 and 4
  SessionOptions options;
  options.profile = true;
  for (const int threads : {1, 3}) {
    options.threads = threads;
    const Session session(m.net.graph(), options);
    const Tensor first = session.run(Feeds{{m.x, x}})[0];
    EXPECT_EQ(calls_of_first(session), 1 + 3);
    const Tensor again = session.run(Feeds{{m.x, x}})[0];
    EXPECT_EQ(calls_of_first(session), 1 + 3 + 3);
    EXPECT_TRUE(same_bits(first, again));
    const auto want = run_items(session, m.x, x);
    for (int64_t i = 0; i < 16; ++i) Agreement().compare(first.slice_front(i, 1), want[static_cast<size_t>(i)]);
  }
  const Session session(m.net.graph(), options);
  session.run(Feeds{{m.x, x.slice_front(0, 2).clone()}});
  EXPECT_EQ(calls_of_first(session), 1 + 1);
}

TEST(Stretch, TapsSeeWholeBatchesInOrder) {
  Random r(3);
  Images m(r);
  SessionOptions options;
  options.taps = {m.x, m.middle, m.y};
  options.threads = 2;
  const Graph& g = m.net.graph();
  const Session session(g, options);
  const Tensor x = random_floats(r, {4, 3, 110, 110});
  std::vector<ValueId> order;
  session.run(Feeds{{m.x, x}}, [&](ValueId v, const Tensor& t, Layout) {
    order.push_back(v);
    EXPECT_EQ(t.dim(0), 4);
  });
  EXPECT_EQ(order, options.taps);
}

/// A convolution and one more operator, of a batch of 6.
void compare_items(Net& net, ValueId x, ValueId y, const Tensor& images, const std::vector<Feeds>& of_items, const Feeds& of_all) {
  net.output(y);
  const Graph& g = net.graph();
  Feeds all = of_all;
  all[x] = images;
  const Tensor got = Session(g).run(all)[0];
  for (int64_t i = 0; i < images.dim(0); ++i) {
    Feeds one = of_items.empty() ? of_all : of_items[static_cast<size_t>(i)];
    one[x] = images.slice_front(i, 1).clone();
    Agreement().compare(got.slice_front(i, 1), Session(g).run(one)[0]);
  }
}

TEST(Stretch, OperandsThatOnlyLookLikeItemsArent) {
  Random r(4);
  const Tensor x = random_floats(r, {6, 6, 200, 200});
  const auto convolve = [&](Net& net, ValueId in, ValueId weights) { return net.add("Sigmoid", {net.add("Conv", {in, weights}, window(3, 1))}); };
  {  // a row of six for an axis of six, given in each run
    Net net;
    const ValueId in = net.open_input(DType::F32), row = net.open_input(DType::F32);
    compare_items(net, in, net.add("Mul", {convolve(net, in, net.constant(random_floats(r, {6, 6, 3, 3}))), row}), x, {}, {{row, random_floats(r, {6, 1, 1})}});
  }
  {  // six weights, given in each run
    Net net;
    const ValueId in = net.open_input(DType::F32), weights = net.open_input(DType::F32);
    const ValueId first = net.add("Sigmoid", {in});
    compare_items(net, in, convolve(net, first, weights), x, {}, {{weights, random_floats(r, {6, 6, 3, 3})}});
  }
  {  // one image for all
    Net net;
    const ValueId in = net.open_input(DType::F32), other = net.open_input(DType::F32);
    compare_items(net, in, net.add("Add", {convolve(net, in, net.constant(random_floats(r, {6, 6, 3, 3}))), other}), x, {}, {{other, random_floats(r, {1, 6, 200, 200})}});
  }
}

TEST(Stretch, AConstantForEachItemIsTheItemsOwn) {
  Random r(5);
  Net net;
  const ValueId in = net.open_input(DType::F32);
  const ValueId product = net.add("Conv", {net.add("Sigmoid", {in}), net.constant(random_floats(r, {6, 6, 3, 3}))}, window(3, 1));
  const Tensor each = Tensor::of<float>({6, 1, 1, 1}, {1, 2, 3, 4, 5, 6});
  const ValueId y = net.add("Mul", {net.add("Tanh", {product}), net.constant(each)});
  net.output(y);
  const Tensor x = random_floats(r, {6, 6, 200, 200});
  const Graph& g = net.graph();
  const auto got = Session(g, {.fetches = {product, y}}).run(Feeds{{in, x}});
  for (int64_t i = 0; i < got[1].size(); i += 997) ASSERT_NEAR(got[1].data<float>()[i], std::tanh(got[0].data<float>()[i]) * each.data<float>()[i / (6 * 200 * 200)], 1e-5f);
}

TEST(Stretch, AMaximumsPlaceCountsItsItem) {
  Random r(6);
  Net net;
  const ValueId in = net.open_input(DType::F32);
  const NodeId pool = net.add_node("MaxPool", {net.add("Sigmoid", {net.add("Conv", {in, net.constant(random_floats(r, {6, 6, 3, 3}))}, window(3, 1))})}, 2, pool_window());
  const ValueId places = net.edit().graph().node(pool).outputs[1];
  net.output(places);
  const Tensor x = random_floats(r, {3, 6, 300, 300});
  const Tensor got = Session(net.graph()).run(Feeds{{in, x}})[0];
  for (int64_t i = 0; i < got.size(); ++i) ASSERT_EQ(got.data<int64_t>()[i] / (6 * 300 * 300), i / (6 * 150 * 150));
}

TEST(Stretch, CodesToo) {
  Random r(7);
  Net net;
  const ValueId in = net.open_input(DType::F32);
  const Step a{DType::U8, 0.01f, 100, true}, b{DType::U8, 0.05f, 120, true};
  const auto weights = [&](Shape shape) { return net.add("DequantizeLinear", {net.constant(random_codes(r, DType::I8, shape)), net.number(0.01f)}); };
  ValueId h = net.dequantize(net.quantize(in, a), a);
  h = net.dequantize(net.quantize(net.add("Conv", {h, weights({64, 6, 1, 1})}, window(1, 0)), b), b);
  h = net.dequantize(net.quantize(net.add("Conv", {h, weights({64, 1, 3, 3})}, window(3, 1, 1, 64)), b), b);
  h = net.dequantize(net.quantize(net.add("MaxPool", {h}, pool_window()), b), b);
  net.output(net.add("Conv", {h, weights({5, 64, 1, 1})}, window(1, 0)));
  const Graph& g = net.graph();
  const Tensor x = random_floats(r, {4, 6, 130, 130});
  const auto want = run_items(Session(g), in, x);
  for (const int threads : {1, 2}) {
    SessionOptions options;
    options.threads = threads;
    options.profile = true;
    const Session session(g, options);
    const Tensor got = session.run(Feeds{{in, x}})[0];
    EXPECT_EQ(calls_of_first(session), 4);
    for (int64_t i = 0; i < 4; ++i) EXPECT_TRUE(same_bits(got.slice_front(i, 1), want[static_cast<size_t>(i)])) << i;
  }
}

TEST(Stretch, ErrorsNameTheStepAndTheNextRunIsWell) {
  Random r(8);
  Net net;
  const ValueId in = net.open_input(DType::F32), other = net.open_input(DType::F32);
  const ValueId h = net.add("Relu", {net.add("Conv", {in, net.constant(random_floats(r, {6, 6, 3, 3}))}, window(3, 1))});
  net.output(net.add("Add", {net.add("Conv", {h, net.constant(random_floats(r, {6, 6, 1, 1}))}, window(1, 0)), other}));
  const Graph& g = net.graph();
  SessionOptions options;
  options.threads = 2;
  const Session session(g, options);
  const Tensor x = random_floats(r, {4, 6, 300, 300});
  try {
    session.run(Feeds{{in, x}, {other, random_floats(r, {4, 6, 299, 300})}});
    FAIL() << "shapes that don't broadcast";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Malformed);
    EXPECT_NE(std::string(e.where()), "");
  }
  EXPECT_EQ(session.run(Feeds{{in, x}, {other, x}})[0].shape(), x.shape());
}

TEST(Stretch, TheSteadyStateAsksTheSystemForNoMemory) {
  Random r(9);
  Images m(r);
  SessionOptions options;
  options.threads = 2;
  const Session session(m.net.graph(), options);
  const Tensor x = random_floats(r, {6, 3, 110, 110});
  // Threads whose needs never met before may meet at a higher peak: it takes some runs until that has happened, not a number that can be told.
  uint64_t grown = 1;
  for (int round = 0; round < 30 && grown > 0; ++round) {
    const uint64_t before = blocks_from_system();
    for (int i = 0; i < 10; ++i) session.run(Feeds{{m.x, x}});
    grown = blocks_from_system() - before;
  }
  EXPECT_EQ(grown, 0u);
}

}  // namespace
}  // namespace infopt::test

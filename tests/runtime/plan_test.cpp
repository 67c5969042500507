// What a plan promises: taps cost nothing elsewhere, and a session that has warmed up asks the system for no memory.
#include <algorithm>

#include "lib/base/memory.h"
#include "tests/runtime/fusion_harness.h"

namespace infopt::test {
namespace {

struct TwoBlocks {
  Net net;
  ValueId x = kNone, first = kNone, y = kNone;
};

Tensor random_floats(Random& r, const Shape& shape) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = static_cast<float>(r.in(-1000, 1000)) / 500.0f;
  return t;
}

/// Conv → Relu, twice, and a Gelu of pieces behind.
void build(TwoBlocks& b, Random& r) {
  b.x = b.net.input(DType::F32, {1, 3, 12, 12});
  b.first = b.net.add("Conv", {b.x, b.net.constant(random_floats(r, {8, 3, 3, 3}))});
  const ValueId second = b.net.add("Conv", {b.net.add("Relu", {b.first}), b.net.constant(random_floats(r, {8, 8, 3, 3}))});
  const ValueId h = b.net.add("Relu", {second});
  const ValueId erf = b.net.add("Erf", {b.net.add("Div", {h, b.net.number(1.41421356f)})});
  b.y = b.net.add("Mul", {b.net.add("Mul", {h, b.net.add("Add", {erf, b.net.number(1)})}), b.net.number(0.5f)});
  b.net.output(b.y);
}

std::vector<std::string> operators(const Graph& g, const Session& session) {
  std::vector<std::string> out;
  for (const auto& line : session.plan()) out.push_back(g.node(line.node).op + "+" + std::to_string(line.covers.size()));
  return out;
}

TEST(Plan, ATapLeavesTheFusionsElsewhereAlone) {
  Random r(1);
  TwoBlocks b;
  build(b, r);
  const Graph& g = b.net.graph();
  EXPECT_EQ(operators(g, Session(g)), (std::vector<std::string>{"Conv+1", "Conv+1", "Mul+4"}));
  SessionOptions options;
  options.taps = {b.first};
  const Session tapped(g, options);
  EXPECT_EQ(operators(g, tapped), (std::vector<std::string>{"Conv+0", "Relu+0", "Conv+1", "Mul+4"}));
  const Tensor x = random_floats(r, {1, 3, 12, 12});
  int seen = 0;
  const auto with = tapped.run(Feeds{{b.x, x}}, [&](ValueId v, const Tensor& t, Layout) {
    EXPECT_EQ(v, b.first);
    EXPECT_EQ(t.shape(), (Shape{1, 8, 10, 10}));
    ++seen;
  });
  EXPECT_EQ(seen, 1);
  const auto without = Session(g).run(Feeds{{b.x, x}});
  for (int64_t i = 0; i < with[0].size(); ++i) EXPECT_NEAR(with[0].data<float>()[i], without[0].data<float>()[i], 1e-4f * (1 + std::fabs(without[0].data<float>()[i])));
}

TEST(Plan, TheSteadyStateAsksTheSystemForNoMemory) {
  Random r(2);
  TwoBlocks b;
  build(b, r);
  const Session session(b.net.graph());
  const Tensor x = random_floats(r, {1, 3, 12, 12});
  for (int i = 0; i < 3; ++i) session.run(Feeds{{b.x, x}});
  const uint64_t before = blocks_from_system();
  for (int i = 0; i < 10; ++i) session.run(Feeds{{b.x, x}});
  EXPECT_EQ(blocks_from_system(), before);
}

TEST(Plan, WhatIsTheSameInEveryRunIsNoStep) {
  Random r(3);
  Net net;
  const ValueId x = net.input(DType::F32, {2, 4});
  // Weights in storage form: codes → Cast → Mul.
  const ValueId codes = net.constant(random_codes(r, DType::I8, {4, 5}));
  const ValueId weights = net.add("Mul", {net.add("Cast", {codes}, {{"to", int64_t{1}, {}}}), net.number(0.02f)});
  net.output(net.add("MatMul", {x, weights}));
  const Graph& g = net.graph();
  EXPECT_EQ(operators(g, Session(g)), std::vector<std::string>{"MatMul+0"});
}

}  // namespace
}  // namespace infopt::test

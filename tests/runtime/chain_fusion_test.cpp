// Chains of elementwise nodes in one pass give the bits that the nodes give by themselves.
#include <functional>
#include <limits>

#include "tests/runtime/fusion_harness.h"

namespace infopt::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Numbers around zero, a few of them special.
Tensor some_floats(Random& r, const Shape& shape, bool special = true) {
  Tensor t(DType::F32, shape);
  float* x = t.mutable_data<float>();
  for (int64_t i = 0; i < t.size(); ++i) x[i] = r.real(-4, 4);
  for (int64_t i = 0; special && i < t.size() / 16; ++i) x[r.in(0, t.size() - 1)] = r.pick({0.0f, -0.0f, kInfinity, -kInfinity, static_cast<float>(NAN), 1e38f, -1e-42f, 90.0f});
  return t;
}

/// The same bits as without fusions, for any number of threads; `steps`: the operators that are left, empty for any.
std::vector<Tensor> expect_chain(Net& net, const Feeds& feeds, const std::string& steps, bool threads = true) {
  const Graph& graph = net.graph();
  const auto want = run_plain(graph, feeds);
  const Session session(graph);
  const auto got = session.run(feeds);
  if (!steps.empty()) {
    EXPECT_EQ(steps_of(graph), steps);
  }
  expect_same_bits(got, want);
  expect_same_bits(session.run(feeds), want);
  expect_same_bits(Session(graph, {.fetches = {}, .taps = {}, .fuse = true, .fold = false}).run(feeds), want);
  if (threads) expect_any_threads(graph, feeds, want);
  return got;
}

/// A value of rank 3 or more in channels-last layout: the same elements, through a convolution by one.
ValueId channels_last(Net& net, ValueId v, const Shape& shape) {
  Shape unit(shape.size(), 1);
  unit[0] = shape[1];
  const Tensor ones = Tensor::of<float>(unit, std::vector<float>(static_cast<size_t>(shape[1]), 1.0f));
  return net.add("Conv", {v, net.constant(ones)}, {{"group", shape[1], {}}});
}

ValueId random_unary(Net& net, Random& r, ValueId v) {
  const float a = r.real(0.1f, 2), b = r.real(-1, 1);
  switch (r.in(0, 9)) {
    case 0: return net.add("LeakyRelu", {v}, {{"alpha", a, {}}});
    case 1: return net.add("Elu", {v}, {{"alpha", a, {}}});
    case 2: return net.add("HardSigmoid", {v}, {{"alpha", a, {}}, {"beta", b, {}}});
    case 3: return net.add("Clip", {v, r.chance(3) ? kNone : net.number(b), r.chance(3) ? kNone : net.number(b + r.real(-0.5f, 2))});
    case 4: return net.add("Gelu", {v}, {{"approximate", std::string(r.pick({"none", "tanh"})), {}}});
    case 5: return net.add("Celu", {v}, {{"alpha", a, {}}});
    default:
      return net.add(r.pick({"Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign",
                             "Sin", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu"}),
                     {v});
  }
}
const char* random_binary(Random& r) { return r.pick({"Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "PRelu"}); }

/// A shape that broadcasts to `full`.
Shape random_operand(Random& r, Shape full) {
  if (r.chance(3)) return full;
  const size_t fewer = r.chance(2) ? static_cast<size_t>(r.in(0, static_cast<int64_t>(full.size()))) : 0;
  full.erase(full.begin(), full.begin() + static_cast<int64_t>(fewer));
  for (int64_t& d : full) d = r.chance(3) ? 1 : d;
  return full;
}

/// A random graph that ends in one value; every value in between is read there alone. The shapes of operands broadcast to `full`.
struct RandomChain {
  Net net;
  Feeds feeds;
  std::string steps;
  explicit RandomChain(Random& r, const Shape& full, int64_t members, bool layouts) : net(21) {
    std::vector<ValueId> values;
    int64_t made = 0;
    for (int64_t i = r.in(1, 4); i > 0; --i) {
      const Shape shape = i == 1 ? full : random_operand(r, full);
      const Tensor t = some_floats(r, shape, !layouts);
      if (!layouts && i > 1 && r.chance(4)) {
        values.push_back(net.constant(t));
        continue;
      }
      const ValueId x = net.input(DType::F32, shape);
      feeds.emplace(x, t);
      values.push_back(x);
      if (!layouts || shape.size() != full.size() || shape[1] != full[1] || r.chance(3)) continue;
      // A member between, which no convolution takes.
      values.back() = net.add("Neg", {channels_last(net, x, shape)});
      steps += "Conv ";
      ++made;
    }
    const ValueId whole = values.back();
    std::vector<bool> read(values.size(), true);
    auto push = [&](ValueId v) { values.push_back(v), read.push_back(false), ++made; };
    auto any = [&] {
      const size_t i = static_cast<size_t>(r.in(0, static_cast<int64_t>(values.size()) - 1));
      read[i] = true;
      return values[i];
    };
    push(net.add("Tanh", {whole}));  // the result's shape is `full` and nothing is constant
    while (made < members) {
      if (r.chance(2)) push(random_unary(net, r, any()));
      else push(net.add(random_binary(r), {any(), any()}));
    }
    ValueId y = values.back();
    for (size_t i = 0; i + 1 < read.size(); ++i)
      if (!read[i]) y = net.add("Add", {y, values[i]});
    net.output(y);
  }
};

size_t count_of(const std::string& steps, const std::string& op) {
  size_t n = 0;
  for (size_t at = steps.find(op); at != std::string::npos; at = steps.find(op, at + 1)) ++n;
  return n;
}
size_t words_of(const std::string& steps) { return steps.empty() ? 0 : count_of(steps, " ") + 1; }

TEST(ChainFusion, GivesTheBitsOfItsNodes) {
  size_t before = 0, after = 0;
  for (unsigned seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    Shape full;
    for (int64_t i = r.in(0, 5); i > 0; --i) full.push_back(r.pick<int64_t>({1, 2, 3, 5, r.in(1, element_count(full) < 1000 ? 40 : 3)}));
    if (r.chance(20) && !full.empty()) full[0] = 0;
    RandomChain chain(r, full, r.in(2, 12), false);
    (void)expect_chain(chain.net, chain.feeds, "", seed % 10 == 0);
    before += words_of(steps_of(chain.net.graph(), {.fetches = {}, .taps = {}, .fuse = false}));
    after += words_of(steps_of(chain.net.graph()));
    if (HasFatalFailure()) return;
  }
  EXPECT_LT(2 * after, before);
}

TEST(ChainFusion, TakesOperandsInEitherLayout) {
  for (unsigned seed = 0; seed < 150; ++seed) {
    SCOPED_TRACE(seed);
    Random r(1000 + seed);
    Shape full{r.in(1, 3), r.in(2, 20)};
    for (int64_t i = r.in(1, 3); i > 0; --i) full.push_back(r.in(1, 9));
    RandomChain chain(r, full, r.in(2, 10), true);
    (void)expect_chain(chain.net, chain.feeds, "", seed % 10 == 0);
    if (HasFatalFailure()) return;
  }
}

/// Rows shorter and longer than a tile, and enough of them for several threads.
TEST(ChainFusion, CutsLargeTensorsIntoTiles) {
  const Shape shapes[]{{1024}, {1025}, {40000}, {100001}, {3, 1025}, {33, 31}, {7, 300}, {2, 5, 700}, {1023, 3}, {513, 2, 65}, {5, 4097}, {2, 3, 129, 130}, {70000, 1}, {1, 1, 90000}};
  for (const Shape& shape : shapes)
    for (unsigned seed = 0; seed < 3; ++seed) {
      SCOPED_TRACE(testing::Message() << to_string(shape) << ", " << seed);
      Random r(2000 + seed);
      RandomChain chain(r, shape, 6, false);
      (void)expect_chain(chain.net, chain.feeds, "");
      if (HasFatalFailure()) return;
    }
}

TEST(ChainFusion, EndsWhereItGetsTooLong) {
  for (int64_t members : {23, 24, 25, 40, 100}) {
    SCOPED_TRACE(members);
    Random r(static_cast<unsigned>(members));
    Net net;
    const ValueId x = net.input(DType::F32, {3, 50});
    ValueId y = x;
    for (int64_t i = 0; i < members; ++i) y = i % 3 == 0 ? net.add("Add", {y, x}) : net.add(i % 3 == 1 ? "Tanh" : "Sin", {y});
    net.output(y);
    (void)expect_chain(net, {{x, some_floats(r, {3, 50})}}, "");
    EXPECT_EQ(static_cast<int64_t>(words_of(steps_of(net.graph()))), (members + 23) / 24);
  }
}

struct Pattern {
  const char* name;
  std::function<ValueId(Net&, ValueId)> build;
  const char* steps;
};

TEST(ChainFusion, TakesActivationsInPieces) {
  const Pattern patterns[]{
      {"Gelu by Erf",
       [](Net& n, ValueId x) {
         const ValueId e = n.add("Erf", {n.add("Div", {x, n.number(1.4142135f)})});
         return n.add("Mul", {n.add("Mul", {x, n.add("Add", {e, n.number(1)})}), n.number(0.5f)});
       },
       "Mul"},
      {"Gelu by Tanh",
       [](Net& n, ValueId x) {
         const ValueId cube = n.add("Mul", {n.add("Mul", {x, x}), x});
         const ValueId t = n.add("Tanh", {n.add("Mul", {n.add("Add", {x, n.add("Mul", {cube, n.number(0.044715f)})}), n.number(0.79788456f)})});
         return n.add("Mul", {n.add("Mul", {n.number(0.5f), x}), n.add("Add", {n.number(1), t})});
       },
       "Mul"},
      {"HardSwish",
       [](Net& n, ValueId x) {
         const ValueId c = n.add("Clip", {n.add("Add", {x, n.number(3)}), n.number(0), n.number(6)});
         return n.add("Div", {n.add("Mul", {x, c}), n.number(6)});
       },
       "Div"},
      {"SiLU", [](Net& n, ValueId x) { return n.add("Mul", {n.add("Sigmoid", {x}), x}); }, "Mul"},
      {"SiLU of a member",
       [](Net& n, ValueId x) {
         const ValueId y = n.add("Add", {x, n.number(0.5f)});
         return n.add("Mul", {y, n.add("Sigmoid", {y})});
       },
       "Mul"},
      {"Mish", [](Net& n, ValueId x) { return n.add("Mul", {x, n.add("Tanh", {n.add("Softplus", {x})})}); }, "Mul"},
      {"root mean square",
       [](Net& n, ValueId x) {
         const ValueId mean = n.add("ReduceMean", {n.add("Mul", {x, x}), n.integers({-1})});
         const ValueId rms = n.add("Sqrt", {n.add("Add", {mean, n.number(1e-6f)})});
         return n.add("Mul", {n.add("Div", {x, rms}), n.number(0.75f)});
       },
       "Mul ReduceMean Mul"},
      {"layer normalization",
       [](Net& n, ValueId x) {
         const ValueId centred = n.add("Sub", {x, n.add("ReduceMean", {x, n.integers({-1})})});
         const ValueId variance = n.add("ReduceMean", {n.add("Mul", {centred, centred}), n.integers({-1})});
         const ValueId y = n.add("Div", {centred, n.add("Sqrt", {n.add("Add", {variance, n.number(1e-5f)})})});
         return n.add("Add", {n.add("Mul", {y, n.number(2)}), n.number(-1)});
       },
       ""},
  };
  const Shape shapes[]{{}, {5}, {3, 17}, {2, 4, 33}, {1, 3, 8, 9}, {0, 4}, {3, 1500}, {200, 200}};
  for (const Pattern& p : patterns)
    for (const Shape& shape : shapes) {
      SCOPED_TRACE(testing::Message() << p.name << " of " << to_string(shape));
      if (shape.empty() && std::string(p.steps) != "Mul" && std::string(p.steps) != "Div") continue;
      Random r(3000);
      Net net;
      const ValueId x = net.input(DType::F32, shape);
      net.output(p.build(net, x));
      (void)expect_chain(net, {{x, some_floats(r, shape)}}, p.steps);
      if (HasFatalFailure()) return;
    }
}

/// Channels in both layouts, through the operands that frameworks write.
TEST(ChainFusion, TakesOperandsByChannel) {
  const Shape full{2, 6, 5, 7};
  const Shape operands[]{{1, 6, 1, 1}, {6, 1, 1}, {1}, {}, {7}, {5, 7}, {5, 1}, {2, 1, 1, 1}, {2, 6, 1, 1}, {1, 1, 5, 7}, {6, 5, 7}};
  for (const Shape& a : operands)
    for (const Shape& b : operands)
      for (bool last : {false, true}) {
        SCOPED_TRACE(testing::Message() << to_string(a) << " and " << to_string(b) << (last ? ", channels last" : ""));
        Random r(4000);
        Net net;
        const ValueId x = net.input(DType::F32, full), other = net.input(DType::F32, a);
        const ValueId y = net.add("Neg", {last ? channels_last(net, x, full) : x});
        // sigmoid(a) · y + tanh(a − b): members of a's and of both shapes, and of the whole.
        const ValueId small = net.add("Tanh", {net.add("Sub", {other, net.constant(some_floats(r, b, false))})});
        net.output(net.add("Add", {net.add("Mul", {net.add("Sigmoid", {other}), y}), small}));
        (void)expect_chain(net, {{x, some_floats(r, full, false)}, {other, some_floats(r, a, false)}}, last ? "Conv Add" : "Add", false);
        if (HasFatalFailure()) return;
      }
}

/// The chain may write over an operand only where nobody reads it later.
TEST(ChainFusion, LeavesOperandsThatOthersRead) {
  for (const char* maker : {"Softmax", "Transpose", "Identity"})
    for (int later = 0; later < 3; ++later) {
      SCOPED_TRACE(testing::Message() << maker << ", read " << later);
      Random r(5000);
      Net net;
      const ValueId x = net.input(DType::F32, {30, 30}), z = net.input(DType::F32, {30, 30});
      const ValueId a = net.add(maker, {x}), view = net.add("Reshape", {a, net.integers({900})});
      const ValueId b = net.add("Transpose", {z});
      net.output(net.add("Mul", {net.add("Tanh", {net.add("Add", {a, b})}), a}));
      if (later == 1) net.output(net.add("Transpose", {a})), net.output(net.add("Transpose", {b}));
      if (later == 2) net.output(view), net.output(net.add("CumSum", {b, net.constant(Tensor::scalar<int64_t>(0))}));
      const Tensor given = some_floats(r, {30, 30}), copy = given.clone();
      (void)expect_chain(net, {{x, given}, {z, some_floats(r, {30, 30})}}, "");
      expect_same_bits(given, copy);
    }
}

TEST(ChainFusion, HidesNothingThatIsSeen) {
  for (int place = 0; place < 3; ++place)
    for (int how = 0; how < 4; ++how) {
      SCOPED_TRACE(testing::Message() << place << " seen " << how);
      Random r(6000);
      Net net;
      const ValueId x = net.input(DType::F32, {4, 9}), choice = net.input(DType::Bool, {});
      std::vector<ValueId> at{net.add("Add", {x, net.number(1)})};
      at.push_back(net.add("Tanh", {at[0]}));
      at.push_back(net.add("Mul", {at[1], x}));
      net.output(net.add("Exp", {at[2]}));
      const ValueId seen = at[static_cast<size_t>(place)];
      SessionOptions options;
      if (how == 0) net.output(seen);
      if (how == 1) options.taps = {seen};
      if (how == 2) net.output(net.add("Transpose", {seen}));
      if (how == 3) {
        std::vector<Attribute> branches;
        for (const char* name : {"then_branch", "else_branch"}) {
          auto body = std::make_shared<Graph>();
          GraphEdit inside(*body);
          inside.add_output(inside.add({.op = name[0] == 't' ? "Neg" : "Abs"}, {inside.add_outer(seen, "seen")}));
          branches.push_back({name, body, {}});
        }
        const ValueId y = net.edit().add_value();
        const NodeId branch = net.edit().add_node({.op = "If", .attributes = branches}, {choice}, {y});
        net.edit().set_captures(branch, {seen});
        net.output(y);
      }
      const Graph& graph = net.graph();
      const Feeds feeds{{x, some_floats(r, {4, 9})}, {choice, Tensor::scalar(true)}};
      const auto want = run_plain(graph, feeds);
      std::vector<Tensor> taps;
      expect_same_bits(Session(graph, options).run(feeds, [&](ValueId, const Tensor& t, Layout) { taps.push_back(t.clone()); }), want);
      ASSERT_EQ(taps.size(), how == 1 ? 1u : 0u);
      if (how == 1) expect_same_bits(taps[0], run_plain(graph, feeds, {.fetches = {seen}, .taps = {}})[0]);
      // The four nodes become two, before and behind what is seen.
      const std::string steps = steps_of(graph, options);
      EXPECT_EQ(words_of(steps), 2u + (how >= 2)) << steps;
    }
}

/// Elements of other types, known only when it runs.
TEST(ChainFusion, ComputesOtherTypes) {
  for (const DType type : {DType::I32, DType::I64, DType::U8, DType::F64, DType::F16, DType::BF16})
    for (unsigned seed = 0; seed < 20; ++seed) {
      SCOPED_TRACE(testing::Message() << name_of(type) << ", " << seed);
      Random r(7000 + seed);
      const Shape full{r.in(1, 4), r.in(1, 40)};
      Net net;
      Feeds feeds;
      std::vector<ValueId> values;
      for (int64_t i = r.in(1, 3); i > 0; --i) {
        const Shape shape = i == 1 ? full : random_operand(r, full);
        values.push_back(net.open_input(type));
        Tensor t(DType::F32, shape);
        for (int64_t k = 0; k < t.size(); ++k) t.mutable_data<float>()[k] = type == DType::U8 ? r.real(1, 200) : r.real(-4, 4) * (is_float(type) ? 1.0f : 100.0f);
        feeds.emplace(values.back(), cast(t, type));
      }
      ValueId y = values.back();
      for (int64_t i = r.in(2, 8); i > 0; --i) {
        const ValueId other = values[static_cast<size_t>(r.in(0, static_cast<int64_t>(values.size()) - 1))];
        if (r.chance(2)) y = net.add(r.pick({"Add", "Sub", "Mul", "Max", "Min"}), {y, other});
        else if (is_float(type)) y = net.add(r.pick({"Abs", "Relu", "Tanh", "Sigmoid", "Neg", "Erf", "HardSwish"}), {y});
        else y = net.add(type == DType::U8 ? r.pick({"Relu", "Abs"}) : r.pick({"Abs", "Relu", "Neg", "Sign"}), {y});
      }
      net.output(y);
      (void)expect_chain(net, feeds, "", false);
      EXPECT_EQ(words_of(steps_of(net.graph())), 1u);
      if (HasFatalFailure()) return;
    }
}

/// How a run ends: the kind of its error, or none.
std::string ending(const Graph& graph, const Feeds& feeds, bool fuse) {
  SessionOptions options;
  options.fuse = fuse;
  try {
    (void)Session(graph, options).run(feeds);
    return "runs";
  } catch (const Error& e) {
    return "kind " + std::to_string(static_cast<int>(e.kind()));
  }
}

TEST(ChainFusion, RefusesWhatItsNodesRefuse) {
  const struct {
    const char* what;
    Tensor a, b;
  } cases[]{{"shapes", Tensor::zeros(DType::F32, {3, 4}), Tensor::zeros(DType::F32, {3, 5})},
            {"types", Tensor::zeros(DType::F32, {3, 4}), Tensor::zeros(DType::I32, {3, 4})},
            {"integers", Tensor::zeros(DType::I32, {3, 4}), Tensor::zeros(DType::I32, {3, 4})},
            {"bounds of another type", Tensor::zeros(DType::F64, {3, 4}), Tensor::zeros(DType::F64, {3, 4})}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    Net net;
    const ValueId a = net.open_input(c.a.dtype()), b = net.open_input(c.b.dtype());
    net.output(net.add("Clip", {net.add("Tanh", {net.add("Add", {a, b})}), net.number(0), net.number(1)}));
    const Feeds feeds{{a, c.a}, {b, c.b}};
    EXPECT_NE(ending(net.graph(), feeds, false), "runs");
    EXPECT_EQ(ending(net.graph(), feeds, true), ending(net.graph(), feeds, false));
  }
}

/// One session sees one shape after the other.
TEST(ChainFusion, FollowsShapesThatChange) {
  Net net;
  const ValueId x = net.open_input(DType::F32), z = net.open_input(DType::F32);
  net.output(net.add("Mul", {net.add("Exp", {net.add("Neg", {z})}), net.add("Sigmoid", {x})}));
  const Graph& graph = net.graph();
  const Session fused(graph), plain(graph, {.fetches = {}, .taps = {}, .fuse = false});
  for (unsigned seed = 0; seed < 60; ++seed) {
    Random r(8000 + seed);
    Shape full;
    for (int64_t i = r.in(0, 4); i > 0; --i) full.push_back(r.pick<int64_t>({0, 1, 1, 2, 3, 30}));
    Feeds feeds{{x, some_floats(r, random_operand(r, full))}, {z, some_floats(r, random_operand(r, full))}};
    expect_same_bits(fused.run(feeds), plain.run(feeds));
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace infopt::test

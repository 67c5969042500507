#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/bench/closed_loop.h"
#include "lib/bench/profile.h"
#include "lib/bench/trace.h"
#include "lib/ir/edit.h"

namespace infopt {
namespace {

/// x → "say \"hi\"" (Relu) → "\xff" (Neg) → output
struct Chain {
  Graph graph;
  NodeId relu, neg;
  Chain() {
    GraphEdit edit(graph);
    const ValueId x = edit.add_input("x", Type::tensor(DType::F32, {2, 3}));
    const ValueId a = edit.add_value("a"), b = edit.add_value("b");
    relu = edit.add_node({.op = "Relu", .name = "say \"hi\""}, {x}, {a});
    neg = edit.add_node({.op = "Neg", .name = "\xff"}, {a}, {b});
    edit.add_output(b);
    edit.finish();
    graph.opsets[""] = 17;
  }
};

TEST(Trace, IsJsonWithOneCompleteEventForEachRunOfANode) {
  const Chain c;
  const auto trace = nlohmann::json::parse(chrome_trace(c.graph, {{c.relu, 1, 1.5, 0, {2, 3}}, {c.neg, 1.5, 2.25, 1, {}}}));
  std::vector<nlohmann::json> complete, threads;
  for (const auto& e : trace["traceEvents"]) {
    for (const char* key : {"name", "ph", "pid", "tid"}) EXPECT_TRUE(e.contains(key)) << e;
    if (e["ph"] == "X") complete.push_back(e);
    if (e["name"] == "thread_name") threads.push_back(e["tid"]);
  }
  ASSERT_EQ(complete.size(), 2u);
  EXPECT_EQ(complete[0]["name"], "say \"hi\"");
  EXPECT_EQ(complete[0]["cat"], "Relu");
  EXPECT_EQ(complete[0]["ts"], 1000);
  EXPECT_EQ(complete[0]["dur"], 500);
  EXPECT_EQ(complete[0]["args"]["shape"], "[2,3]");
  EXPECT_EQ(complete[1]["name"], "\uFFFD");
  EXPECT_EQ(complete[1]["tid"], 1);
  EXPECT_EQ(threads, (std::vector<nlohmann::json>{0, 1}));
}

TEST(Trace, OfNothingIsJsonToo) { EXPECT_TRUE(nlohmann::json::parse(chrome_trace(Graph(), {}))["traceEvents"].is_array()); }

TEST(Session, KeepsEachRunOfEachNodeInOrderWhereAskedTo) {
  const Chain c;
  SessionOptions options;
  options.trace = true;
  const Session session(c.graph, options);
  for (int i = 0; i < 2; ++i) session.run(std::map<std::string, Tensor>{{"x", Tensor::zeros(DType::F32, {2, 3})}});
  const auto events = session.events();
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(events.size() % 2, 0u);
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_LE(events[i].start_ms, events[i].end_ms);
    EXPECT_EQ(events[i].thread, 0);
    EXPECT_EQ(events[i].shape, (Shape{2, 3}));
    EXPECT_EQ(events[i].node, events[i % (events.size() / 2)].node);
    if (i > 0) {
      EXPECT_LE(events[i - 1].end_ms, events[i].start_ms);
    }
  }
  EXPECT_TRUE(Session(c.graph).events().empty());
}

TEST(Profile, SumsByOperatorAndRanksByTime) {
  const Chain c;
  const RunProfile p = make_profile(c.graph, {{c.relu, 2, 4}, {c.neg, 6, 4}}, 4, 0.010);
  EXPECT_DOUBLE_EQ(p.run_ms, 2.5);
  EXPECT_DOUBLE_EQ(p.nodes_ms, 2);
  ASSERT_EQ(p.operators.size(), 2u);
  EXPECT_EQ(p.operators[0].op, "Neg");
  EXPECT_DOUBLE_EQ(p.operators[0].share, 0.75);
  EXPECT_DOUBLE_EQ(p.operators[1].ms, 0.5);
  EXPECT_DOUBLE_EQ(p.operators[1].calls, 1);
  EXPECT_EQ(p.nodes[1].name, "say \"hi\"");
}

TEST(Profile, NamesKernelsAndWhatTheyComputeBesides) {
  const Chain c;
  EXPECT_EQ(make_profile(c.graph, {{c.relu, 1, 1, {c.neg}, "quick"}}, 1, 1).nodes[0].kernel, "quick; with Neg");
  EXPECT_EQ(make_profile(c.graph, {{c.relu, 1, 1, {c.neg, c.neg}, ""}}, 1, 1).nodes[0].kernel, "with 2 Neg");
  EXPECT_EQ(make_profile(c.graph, {{c.relu, 1, 1, {}, "quick"}}, 1, 1).nodes[0].kernel, "quick");
}

TEST(Profile, LeavesOutNodesThatNeverRan) {
  const Chain c;
  EXPECT_EQ(make_profile(c.graph, {{c.relu, 0, 0}, {c.neg, 1, 1}}, 1, 1).nodes.size(), 1u);
}

TEST(ClosedLoop, RunsOnceThenWarmsUpThenCounts) {
  std::atomic<int> calls = 0;
  const auto r = measure_closed_loop({.warmup = 2, .runs = 5, .streams = 3}, [&](int stream) {
    EXPECT_LT(stream, 3);
    ++calls;
  });
  EXPECT_EQ(calls, 1 + 3 * (2 + 5));
  EXPECT_EQ(r.latency.count, 15);
  calls = 0;
  EXPECT_EQ(measure_closed_loop({.warmup = 0, .runs = 0, .seconds = 1e-9, .min_runs = 7}, [&](int) { ++calls; }).latency.count, 7);
  EXPECT_EQ(calls, 8);
}

TEST(ClosedLoop, EndsWithTheErrorOfARun) {
  int calls = 0;
  const auto fail_at_4 = [&](int) {
    if (++calls == 4) throw Error(ErrorKind::Malformed, "no");
  };
  EXPECT_THROW(measure_closed_loop({.warmup = 1, .runs = 5}, fail_at_4), Error);
}

}  // namespace
}  // namespace infopt

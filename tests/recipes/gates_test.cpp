#include "recipes/gates.h"

#include <gmock/gmock.h>

#include <cmath>

#include "lib/base/error.h"
#include "tests/support/full_report.h"

namespace infopt {
namespace {

using test::full_report;
using testing::HasSubstr;

struct Case {
  std::string gate;
  double met, broken, value;  ///< limits that the full report meets and breaks, and the figure by hand
  std::string message;        ///< what the broken one's message says
  void (*unmeasure)(Report&);
  std::string advice;
};

// Figures: size 1.2/4 MB; latency 4 ms beside 8 ms; 750 of 1000 MACs in int8; the drop of top1 is 0.0078125.
const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      {"max_metric_drop", 0.01, 0.005, 0.0078125, "drop of top1", [](Report& r) { r.metrics.clear(); }, "eval.metric"},
      {"min_sqnr_db", 28.5, 29, 28.5, "output 'aux'", [](Report& r) { r.outputs.clear(); }, "--eval"},
      {"min_cosine", 0.99, 0.9995, 0.999, "output 'aux'", [](Report& r) { r.outputs.clear(); }, "--eval"},
      {"max_size_ratio", 0.3, 0.29, 0.3, "size ratio", [](Report& r) { r.optimized.reset(); }, "-o"},
      {"max_latency_ms", 4, 3.9, 4, "4 ms", [](Report& r) { r.measured.optimized_latency.reset(); }, "--eval"},
      {"max_latency_ratio", 0.5, 0.49, 0.5, "latency ratio", [](Report& r) { r.measured.original_latency.reset(); }, "--eval"},
      {"max_slowdown", 0.48, 0.47, 0.5 / 1.05, "the original's scatter", [](Report& r) { r.measured.original_latency.reset(); }, "--eval"},
      {"min_speedup", 2, 2.1, 2, "2x", [](Report& r) { r.measured.original_latency.reset(); }, "--eval"},
      {"max_memory_mb", 40, 39, 40, "40 MB", [](Report& r) { r.measured.optimized_peak_memory.reset(); }, "--eval"},
      {"min_integer_macs", 0.75, 0.76, 0.75, "integer share", [](Report& r) { r.layers.clear(); }, "MACs"},
  };
  return all;
}

GateResult evaluate(const std::string& name, double limit, const Report& report) { return evaluate_gates({{name, limit}}, report).front(); }

TEST(Gates, EveryOneIsCoveredHere) {
  ASSERT_EQ(all_gates().size(), cases().size());
  for (size_t i = 0; i < cases().size(); ++i) EXPECT_EQ(all_gates()[i].name, cases()[i].gate);
}

TEST(Gates, EachIsMetAtItsLimitAndBrokenAlone) {
  Report report = full_report();
  for (const Case& c : cases()) {
    std::vector<GateLimit> limits;
    for (const Case& other : cases()) limits.push_back({other.gate, other.gate == c.gate ? other.broken : other.met});
    std::vector<GateResult> results = evaluate_gates(limits, report);
    for (size_t i = 0; i < results.size(); ++i) {
      EXPECT_EQ(results[i].name, limits[i].name);
      EXPECT_EQ(results[i].limit, limits[i].limit);
      EXPECT_EQ(results[i].passed, limits[i].name != c.gate) << c.gate << ": " << results[i].message;
    }
    GateResult broken = evaluate(c.gate, c.broken, report);
    EXPECT_NEAR(broken.value.value(), c.value, 1e-12) << c.gate;
    EXPECT_THAT(broken.message, HasSubstr(c.message));
  }
}

TEST(Gates, WhatWasNotMeasuredIsNotMetAndSaysWhatToPass) {
  for (const Case& c : cases()) {
    Report report = full_report();
    c.unmeasure(report);
    GateResult result = evaluate(c.gate, c.met, report);
    EXPECT_FALSE(result.passed) << c.gate;
    EXPECT_FALSE(result.value.has_value()) << c.gate;
    EXPECT_THAT(result.message, HasSubstr(c.advice));
  }
}

// Of seven turns of 100 ms on the median and 103 at their 90th percentile: as slow as that is no slower, and nothing beyond 105 ever is.
TEST(Gates, ASlowdownWithinTheOriginalsScatterIsNone) {
  Report report;
  const auto slower = [&](double original_p90, double optimized) {
    report.measured.original_latency = Latency{.median_ms = 100, .p90_ms = original_p90, .runs = 7};
    report.measured.optimized_latency = Latency{.median_ms = optimized, .p90_ms = optimized, .runs = 7};
    return !evaluate("max_slowdown", 1, report).passed;
  };
  EXPECT_FALSE(slower(100, 100));
  EXPECT_TRUE(slower(100, 100.1));
  EXPECT_FALSE(slower(103, 103));
  EXPECT_TRUE(slower(103, 103.1));
  EXPECT_FALSE(slower(150, 105));
  EXPECT_TRUE(slower(150, 105.1));
  EXPECT_FALSE(slower(100, 50));
}

TEST(Gates, AFigureThatIsNoNumberIsNotMet) {
  Report report = full_report();
  report.outputs.front().sqnr_db = report.outputs.front().cosine = NAN;
  report.metrics.push_back({"f1", 0.5, NAN, true});
  EXPECT_FALSE(evaluate("min_sqnr_db", -1000, report).passed);
  EXPECT_FALSE(evaluate("min_cosine", -1, report).passed);
  EXPECT_FALSE(evaluate("max_metric_drop", 1000, report).passed);
}

TEST(Gates, EqualOutputsMeetAnySqnr) {
  Report report = full_report();
  for (OutputReport& o : report.outputs) o.sqnr_db = INFINITY;
  EXPECT_TRUE(evaluate("min_sqnr_db", 200, report).passed);
}

TEST(Gates, TheWorstOfSeveralMetricsCountsAndLowerMayBeBetter) {
  Report report = full_report();
  report.metrics = {{"top1", 0.5, 0.5, true}, {"perplexity", 10, 10.5, false}, {"top5", 0.8, 0.9, true}};
  GateResult result = evaluate("max_metric_drop", 0.4, report);
  EXPECT_EQ(result.value, 0.5);
  EXPECT_FALSE(result.passed);
  EXPECT_THAT(result.message, HasSubstr("perplexity"));
  EXPECT_TRUE(evaluate("max_metric_drop", 0.5, report).passed);
}

TEST(Gates, StorageFormIsNotIntegerExecution) {
  Report report = full_report();
  report.layers.front().form = LayerForm::Int8Storage;
  EXPECT_EQ(evaluate("min_integer_macs", 0.1, report).value, 0.0);
}

TEST(Gates, SayWhatHasToBeMeasured) {
  EXPECT_TRUE(needs({{"min_speedup", 1}}, GateNeed::Latency));
  EXPECT_FALSE(needs({{"min_speedup", 1}}, GateNeed::Memory));
  EXPECT_FALSE(needs({}, GateNeed::Comparison));
}

TEST(Gates, AnUnknownNameIsADefect) { EXPECT_THROW(evaluate_gates({{"max_colour", 1}}, full_report()), Error); }

}  // namespace
}  // namespace infopt

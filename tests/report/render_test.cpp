#include "lib/report/render.h"

#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/base/atomic_file.h"
#include "tests/support/full_report.h"
#include "tests/support/json_schema.h"

namespace infopt {
namespace {

using nlohmann::json;
using test::full_report;
using test::JsonSchema;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

const JsonSchema& schema() {
  static const JsonSchema s(read_file(INFOPT_SOURCE_DIR "/docs/report.schema.json"));
  return s;
}

// Names that break out of whatever isn't careful.
Report hostile_report() {
  Report r = full_report();
  std::string name = "a|b`c<script>&\"'\n# x\x01\xff]]>\xef\xbf\xbf";
  r.original->path = r.layers[0].node = r.layers[1].node = r.outputs[0].name = r.warnings[0] = r.metrics[0].name = name;
  r.gates[0].message = r.gates[1].message = r.gates[2].message = r.passes[0].edits.notes[0] = r.recipe = r.layers[1].reason = name;
  r.unknown_operators[0].op = r.compared_data = r.calibration->source = r.command_line[0] = name;
  return r;
}

TEST(JsonReport, FitsThePublishedSchema) {
  EXPECT_EQ(schema().check(json::parse(render_json(full_report()))), "");
  EXPECT_EQ(schema().check(json::parse(render_json(Report{}))), "");
  EXPECT_EQ(schema().check(json::parse(render_json(hostile_report()))), "");
}

TEST(JsonReport, TheSchemaRefusesWhatDoesNotBelong) {
  json j = json::parse(render_json(full_report()));
  json more = j, less = j, wrong = j;
  more["layers"][0]["colour"] = 1;
  less["gates"][0].erase("passed");
  wrong["outputs"] = 3;
  EXPECT_NE(schema().check(more), "");
  EXPECT_NE(schema().check(less), "");
  EXPECT_NE(schema().check(wrong), "");
}

TEST(JsonReport, HoldsWhatTheReportHolds) {
  json j = json::parse(render_json(full_report()));
  EXPECT_EQ(j["schema_version"], 1);
  EXPECT_EQ(j["verdict"], "failed");
  EXPECT_EQ(j["size_ratio"], 0.3);
  EXPECT_EQ(j["integer_mac_share"], 0.75);
  EXPECT_EQ(j["layers"][1]["form"], "float32");
  EXPECT_EQ(j["layers"][1]["reason"], "its error is out of proportion");
  EXPECT_EQ(j["comparison"]["outputs"][1]["sqnr_db"], 28.5);
  EXPECT_EQ(j["metrics"][0]["drop"], 0.0078125);
  EXPECT_EQ(j["passes"][0]["options"]["bias_correction"], "true");
  EXPECT_EQ(j["measured"]["latency"]["speedup"], 2.0);
  EXPECT_EQ(j["pruned"][0]["removed"], 0.5);  // 90 stored of 120, 30 of them zeros
  EXPECT_FALSE(j["pruned"][1].contains("pattern"));
  EXPECT_NEAR(j["removed_share"].get<double>(), 60.0 / 130, 1e-12);
  EXPECT_EQ(j["cost"]["optimized"]["flops"], 1500);
  EXPECT_EQ(j["measured"]["passes"][0]["seconds"], 1.5);
  EXPECT_EQ(j["measured"]["peak_memory_bytes"]["optimized"], 40'000'000);
}

TEST(Reports, ShowEveryAttemptOfASearch) {
  const Report r = full_report();
  json j = json::parse(render_json(r));
  EXPECT_EQ(j["search"]["chosen"], 2);
  EXPECT_EQ(j["search"]["attempts"][0]["gates_not_met"][0], "min_sqnr_db");
  EXPECT_EQ(j["search"]["attempts"][1]["failure"], "no statistics");
  EXPECT_FALSE(j["search"]["attempts"][1].contains("gates_not_met"));
  EXPECT_EQ(j["measured"]["attempts"][0]["latency_ratio"], 0.5);
  EXPECT_THAT(render_markdown(r), HasSubstr("| 1 | int8 |  | 17.5 dB | +0.02 | 0.260 | 0.500 | min\\_sqnr\\_db not met | 1.25 s |"));
  EXPECT_THAT(render_markdown(r), HasSubstr("| **3** | int8 |"));
  EXPECT_THAT(render_text(r), HasSubstr("2. int8, smoothed: nothing came of it: no statistics\n"));
  EXPECT_THAT(render_junit(r), HasSubstr("int8: 17.5 dB, drop 0.02, size 0.260, latency 0.500; gates: min_sqnr_db not met"));
  EXPECT_THAT(render_markdown(Report{}), Not(HasSubstr("tried")));
}

TEST(JsonReport, WhatWasNotMeasuredIsAbsent) {
  json j = json::parse(render_json(Report{}));
  for (const char* key : {"size_ratio", "pruned", "removed_share", "cost", "calibration", "comparison", "integer_mac_share", "original", "recipe"}) EXPECT_FALSE(j.contains(key)) << key;
  EXPECT_FALSE(j["measured"].contains("latency"));
  EXPECT_FALSE(j["measured"].contains("peak_memory_bytes"));
  EXPECT_FALSE(json::parse(render_json(full_report()))["gates"][2].contains("value"));
}

TEST(JsonReport, NumbersThatJsonCannotHoldAreNamed) {
  Report r = full_report();
  r.outputs[0] = {"logits", INFINITY, NAN, 0};
  json j = json::parse(render_json(r));
  EXPECT_EQ(j["comparison"]["outputs"][0]["sqnr_db"], "Infinity");
  EXPECT_EQ(j["comparison"]["outputs"][0]["cosine"], "NaN");
  EXPECT_EQ(schema().check(j), "");
}

TEST(JsonReport, TimesStandNowhereButUnderMeasured) {
  Report a = full_report(), b = full_report();
  b.passes[0].seconds = 77;
  b.measured = {};
  json first = json::parse(render_json(a)), second = json::parse(render_json(b));
  EXPECT_NE(first, second);
  first.erase("measured");
  second.erase("measured");
  EXPECT_EQ(first, second);
}

TEST(MarkdownReport, BeginsWithTheVerdict) {
  Report r = full_report();
  EXPECT_THAT(render_markdown(r), StartsWith("**Failed: 2 of 3 gates are not met.** `net.onnx` → `out.onnx`\n"));
  r.gates.resize(1);
  EXPECT_THAT(render_markdown(r), StartsWith("**Passed: the gate is met.**"));
  r.gates[0].passed = false;
  EXPECT_THAT(render_markdown(r), StartsWith("**Failed: 1 of 1 gate is not met.**"));
  EXPECT_THAT(render_markdown(Report{}), StartsWith("**No gates were set.**"));
}

TEST(MarkdownReport, HasItsTables) {
  std::string text = render_markdown(full_report());
  EXPECT_THAT(text, HasSubstr("| `min_speedup` | 3 | 2 | **not met** |"));
  EXPECT_THAT(text, HasSubstr("| `max_memory_mb` | 10 | not measured | **not met** |"));
  EXPECT_THAT(text, HasSubstr("| size | 4.0 MB | 1.2 MB | 0.300 |"));
  EXPECT_THAT(text, HasSubstr("| top1 | 0.75 | 0.742188 | -0.0078125 |"));
  EXPECT_THAT(text, HasSubstr("| latency, median of 50 (1 thread, batch 1) | 8.00 ms | 4.00 ms | 0.500 |"));
  EXPECT_THAT(text, HasSubstr("| `aux` | 28.5 dB | 0.999000 | 0.5 |"));
  EXPECT_THAT(text, HasSubstr("| int8 static | 75.0 % | 1 | 90 |"));
  EXPECT_THAT(text, HasSubstr("| `fc` | Gemm | float32 | 250 | its error is out of proportion | 12 kB |"));
  EXPECT_THAT(text, HasSubstr("| `conv1` | Conv | 2:4 | sparsegpt | \\[4,30\\] → \\[3,30\\] | 120 | 90 | 30 | 50.0 % | 17.5 dB |  |"));
  EXPECT_THAT(text, HasSubstr("| FLOPs, by shapes | 2000 | 1500 | 0.750 |"));
  EXPECT_THAT(text, HasSubstr("<summary>Passes (1)</summary>"));
  EXPECT_THAT(text, HasSubstr("| `quantize_int8` | lossy | held (0.01) | 10 → 30 | 1.50 s |"));
}

TEST(MarkdownReport, EveryRowOfATableHasItsColumnsWhateverTheNamesAre) {
  size_t columns = 0;
  for (const char* what : {"full", "hostile"}) {
    std::istringstream lines(render_markdown(what == std::string("full") ? full_report() : hostile_report()));
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with('|')) {
        columns = 0;
        continue;
      }
      size_t bars = 0;
      for (size_t i = 0; i < line.size(); ++i) bars += line[i] == '|' && (i == 0 || line[i - 1] != '\\');
      EXPECT_TRUE(columns == 0 || bars == columns) << what << ": " << line;
      columns = bars;
    }
  }
}

TEST(MarkdownReport, NothingIsPrintedOfWhatIsNotThere) {
  std::string text = render_markdown(Report{});
  for (const char* title : {"## Gates", "## Figures", "## Outputs", "## Forms", "## Layers", "## Worst", "## Warnings", "<details>"}) {
    EXPECT_THAT(text, Not(HasSubstr(title)));
  }
}

TEST(JUnitReport, HasOneCaseAGate) {
  std::string text = render_junit(full_report());
  EXPECT_THAT(text, StartsWith("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"infopt\" tests=\"3\" failures=\"2\""));
  EXPECT_THAT(text, HasSubstr("<testcase classname=\"infopt.gates\" name=\"min_sqnr_db\">\n      <system-out>"));
  EXPECT_THAT(text, HasSubstr("name=\"min_speedup\">\n      <failure type=\"not met\" message=\"the speedup is 2x, at least 3x is wanted\"/>"));
  EXPECT_THAT(text, HasSubstr("<failure type=\"not measured\" message=\"no peak memory was measured\"/>"));
}

TEST(JUnitReport, EscapesWhatXmlReserves) {
  std::string text = render_junit(hostile_report());
  std::string escaped = "a|b`c&lt;script&gt;&amp;&quot;&apos;&#10;# x\uFFFD\uFFFD]]&gt;\uFFFD";
  EXPECT_THAT(text, HasSubstr("<testsuite name=\"" + escaped + "\""));
  EXPECT_THAT(text, HasSubstr("<system-out>" + escaped + "</system-out>"));
  EXPECT_THAT(text, HasSubstr("message=\"" + escaped + "\"/>"));
}

TEST(TextReport, SummarizesOnAScreen) {
  std::string text = render_text(full_report());
  EXPECT_THAT(text, HasSubstr("size        4.0 MB → 1.2 MB (0.300)\n"));
  EXPECT_THAT(text, HasSubstr("metric      top1: 0.75 → 0.742188\n"));
  EXPECT_THAT(text, HasSubstr("SQNR        28.5 dB, cosine 0.99900 (worst of 2 outputs), 100 samples\n"));
  EXPECT_THAT(text, HasSubstr("latency     8.00 ms → 4.00 ms (2.00x), median of 50, 1 thread, batch 1\n"));
  EXPECT_THAT(text, HasSubstr("pruned      46.2 % of the weights of 2 layers, 1 of them changed\nFLOPs       2000 → 1500 (0.750)\nparameters  130 → 100 (0.769)\n"));
  EXPECT_THAT(text, HasSubstr("MACs        int8 static 75.0 %, float32 25.0 %\n"));
  EXPECT_THAT(text, HasSubstr("worst       conv1 (Conv, int8 static): 31.0 dB\n"));
  EXPECT_THAT(text, HasSubstr("NOT MET     min_speedup: the speedup is 2x, at least 3x is wanted\n"));
}

TEST(TextReport, TellsTheNodesWhereNothingIsQuantized) {
  Report r = full_report();
  ASSERT_FALSE(r.passes.empty());
  EXPECT_THAT(render_text(r), Not(HasSubstr("nodes ")));
  r.layers.clear();
  r.passes.front().nodes_before = 448;
  r.passes.back().nodes_after = 126;
  EXPECT_THAT(render_text(r), HasSubstr("nodes       448 → 126\n"));
}

TEST(TextReport, NamesCannotMoveTheTerminalsCursor) {
  Report r = full_report();
  r.layers[0].node = "\x1b[2Jgone\r\n";
  EXPECT_THAT(render_text(r), Not(HasSubstr("\x1b")));
  EXPECT_THAT(render_text(r), Not(HasSubstr("\r")));
  EXPECT_EQ(render_text(Report{}), "");
}

TEST(Report, FiguresFollowFromTheOthersOrAreEmpty) {
  EXPECT_FALSE(size_ratio(Report{}) || latency_ratio(Report{}) || speedup(Report{}) || worst_sqnr_db(Report{}) || integer_mac_share(Report{}));
  EXPECT_TRUE(all_gates_passed(Report{}));
  Report r = full_report();
  EXPECT_FALSE(all_gates_passed(r));
  EXPECT_EQ(worst_sqnr_db(r), 28.5);
  EXPECT_EQ(worst_cosine(r), 0.999);
  r.original->bytes = 0;
  EXPECT_FALSE(size_ratio(r));
  ASSERT_EQ(mac_shares(r).size(), 2u);
  EXPECT_EQ(mac_shares(r)[1].form, LayerForm::Float32);
}

}  // namespace
}  // namespace infopt

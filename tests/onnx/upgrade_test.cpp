#include "lib/onnx/upgrade.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/base/error.h"
#include "lib/onnx/check.h"
#include "lib/onnx/export.h"
#include "tests/support/model_text.h"

namespace infopt {
namespace {

using test::model_of;

/// The graph's nodes as text: "Slice(x, [0], [2], [1])", constants by their elements, in order.
std::string text_of(const Graph& graph) {
  std::string text;
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    text += text.empty() ? "" : "; ";
    text += n.op + "(";
    for (size_t i = 0; i < n.inputs.size(); ++i) {
      text += i ? ", " : "";
      if (n.inputs[i] == kNone) continue;
      const Tensor* c = graph.constant(n.inputs[i]);
      if (!c) {
        text += graph.value(n.inputs[i]).name.empty() ? "_" : graph.value(n.inputs[i]).name;
        continue;
      }
      text += "[";
      const auto values = to_vector<double>(*c);
      for (size_t k = 0; k < values.size(); ++k) {
        char number[32];
        std::snprintf(number, sizeof number, "%s%g", k ? "," : "", values[k]);
        text += number;
      }
      text += "]";
    }
    text += ")";
    for (const Attribute& a : n.attributes) {
      if (const auto* v = std::get_if<int64_t>(&a.data)) text += " " + a.name + "=" + std::to_string(*v);
      if (const auto* s = std::get_if<std::string>(&a.data)) text += " " + a.name + "=" + *s;
    }
  }
  return text;
}

struct Case {
  int from;
  int64_t to;
  const char* graph;
  const char* expected;
};

/// What each changed operator becomes; the rules are those of ONNX's docs/Changelog.md. That the new graphs compute what the old ones did
/// was compared in ONNX Runtime 1.32 for all of these.
const Case kCases[] = {
    {9, 13, "g (float[4, 5] x) => (float[a, b] y) { y = Slice <starts = [1], ends = [3], axes = [1]> (x) }", "Slice(x, [1], [3], [1])"},
    {9, 13, "g (float[4] x) => (float[a] y, int64[a] i) { y, i = TopK <k = 2> (x) }", "TopK(x, [2])"},
    {9, 13, "g (float[4] x) => (float[4] y) { y = Clip <min = 0.25, max = 0.5> (x) }", "Clip(x, [0.25], [0.5])"},
    {9, 13, "g (float[4] x) => (float[4] y) { y = Clip <max = 0.5> (x) }", "Clip(x, , [0.5])"},
    {9, 13, "g (float[4] x) => (float[a] y) { y = Pad <pads = [1, 2], value = 1.5> (x) }", "Pad(x, [1,2], [1.5])"},
    {9, 13, "g (float[2, 3] x) => (float[2, 3] y) { y = Softmax(x) }", "Softmax(x) axis=1"},
    {9, 13, "g (float[2, 3, 1] x) => (float[2, 3, 1] y) { y = Softmax(x) }", "Softmax(x) axis=1"},
    {9, 13, "g (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = LogSoftmax(x) }",
     "Flatten(x) axis=1; Shape(x); LogSoftmax(_) axis=-1; Reshape(_, _)"},
    {11, 13, "g (float[2, 1] x) => (float[2] y) { y = Squeeze <axes = [1]> (x) }", "Squeeze(x, [1])"},
    {11, 13, "g (float[2, 1] x) => (float[2] y) { y = Squeeze(x) }", "Squeeze(x)"},
    {11, 13, "g (float[2] x) => (float[2, 1] y) { y = Unsqueeze <axes = [1]> (x) }", "Unsqueeze(x, [1])"},
    {11, 13, "g (float[3] x) => (float[1] y, float[2] z) { y, z = Split <split = [1, 2]> (x) }", "Split(x, [1,2])"},
    {13, 18, "g (float[4] x) => (float[2] y, float[2] z) { y, z = Split(x) }", "Split(x) num_outputs=2"},
    {11, 17, "g (float[2, 3] x) => (float[2, 1] y) { y = ReduceSum <axes = [1]> (x) }", "ReduceSum(x, [1])"},
    {11, 17, "g (float[2, 3] x) => (float[2, 1] y) { y = ReduceMean <axes = [1]> (x) }", "ReduceMean(x)"},
    {11, 18, "g (float[2, 3] x) => (float[2, 1] y) { y = ReduceMean <axes = [1]> (x) }", "ReduceMean(x, [1])"},
    {7, 13, "g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 4] y) { y = Upsample <scales = [1.0, 1.0, 2.0, 2.0]> (x) }",
     "Resize(x, , [1,1,2,2]) coordinate_transformation_mode=asymmetric nearest_mode=floor"},
    {10, 11, "g (float[1, 1, 4, 5] x) => (float[a, b, c, d] y) <float[4] s = {1, 1, 0.5, 0.6}> { y = Resize(x, s) }",
     "Resize(x, [], [1,1,0.5,0.6]) coordinate_transformation_mode=asymmetric nearest_mode=ceil"},
    {7, 13, "g (float[4] x) => (float[4] y) { y, mask = Dropout <ratio = 0.3> (x) }", "Dropout(x, [0.3])"},
    {7, 15, "g (float[2, 3] x, float[3] s) => (float[2, 3] y) { y, a, b = BatchNormalization <spatial = 1> (x, s, s, s, s) }",
     "BatchNormalization(x, s, s, s, s)"},
    {9, 13, "g (float[3] x, int64[2] i, float[2] u) => (float[3] y) { y = Scatter(x, i, u) }", "ScatterElements(x, i, u)"},
    {17, 20, "g (float[2, 5, 1] x) => (float[a, b, c] y) { y = DFT(x) }", "DFT(x, , [1])"},
    {16, 20, "g (float[1, 1, 4, 4] x, float[1, 3, 3, 2] p) => (float[a, b, c, d] y) { y = GridSample(x, p) }",
     "GridSample(x, p) mode=linear"},
    {10, 16, "g (float[1, 1, 8, 8] x, float[2, 4] r, int64[2] i) => (float[a, b, c, d] y) { y = RoiAlign(x, r, i) }",
     "RoiAlign(x, r, i) coordinate_transformation_mode=output_half_pixel"},
    {12, 21, "g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", "Add(x, w)"},
};

TEST(Upgrade, EachChangedOperatorMeansTheSame) {
  for (const Case& c : kCases) {
    Model m = model_of(c.graph, c.from);
    upgrade_opset(m, c.to);
    EXPECT_EQ(m.graph->opset(), c.to);
    EXPECT_EQ(text_of(*m.graph), c.expected) << c.graph;
    test::TempDir dir;
    write_model(m, dir / "m.onnx");
    EXPECT_NO_THROW(check_model_file(dir / "m.onnx")) << c.graph;
  }
}

TEST(Upgrade, GoesIntoBodies) {
  Model m = model_of(R"(g (float[2, 1] x, bool c) => (float[2] y) {
    y = If (c) <then_branch = th () => (float[2] p) { p = Squeeze <axes = [1]> (x) }, else_branch = el () => (float[2] q) { q = Squeeze(x) }>
  })",
                     11);
  upgrade_opset(m, 13);
  const auto body = m.graph->node(m.graph->order()[0]).bodies()[0];
  EXPECT_EQ(body->opset(), 13);
  EXPECT_EQ(text_of(*body), "Squeeze(x, [1])");
}

TEST(Upgrade, AClipsBoundsHaveTheTypeOfWhatItClips) {
  Model m = model_of("g (float16[4] x) => (float16[4] y) { t = Relu(x) y = Clip <max = 6.0> (t) }", 9);
  upgrade_opset(m, 13);
  EXPECT_EQ(m.graph->constant(m.graph->node(m.graph->order()[1]).input(2))->dtype(), DType::F16);
}

TEST(Upgrade, WhatTheNewerOpsetCannotSayIsRefusedByNameAndLeavesTheModel) {
  const struct {
    int from;
    const char* graph;
  } cases[] = {
      {7, "g (float[2, 3] x, float[2, 3] s) => (float[2, 3] y) { y = BatchNormalization <spatial = 0> (x, s, s, s, s) }"},
      {9, "g (float[4] x) => (float[4] y, float[4] z) { y, mask = Dropout(x) z = Neg(mask) }"},
      {11,
       "g (float[1, 1, 2, 2] x, float[4] s) => (float[a, b, c, d] y) <float[0] r = {}> { y = Resize <coordinate_transformation_mode = "
       "\"tf_half_pixel_for_nn\"> (x, r, s) }"},
  };
  for (const auto& c : cases) {
    Model m = model_of(c.graph, c.from);
    const std::string before = text_of(*m.graph);
    try {
      upgrade_opset(m, 14);
      ADD_FAILURE() << c.graph;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Unsupported);
      EXPECT_THAT(e.what(), testing::HasSubstr(m.graph->node(m.graph->order()[0]).op));
    }
    EXPECT_EQ(text_of(*m.graph), before);
    EXPECT_EQ(m.graph->opset(), c.from);
  }
}

TEST(Upgrade, FromBeforeSevenByOnnxsOwnConverter) {
  Model m = model_of("g (float[2, 3] x, float[3] w) => (float[2, 3] y) { y = Add <broadcast = 1> (x, w) }", 6, 3);
  upgrade_opset(m, 13);
  EXPECT_EQ(text_of(*m.graph), "Add(x, w)");
  EXPECT_TRUE(m.graph->node(m.graph->order()[0]).attributes.empty());
}

TEST(Upgrade, DoesNothingToAModelThatIsNewer) {
  Model m = model_of("g (float[2] x) => (float[2] y) { y = Relu(x) }", 18);
  upgrade_opset(m, 13);
  EXPECT_EQ(m.graph->opset(), 18);
}

}  // namespace
}  // namespace infopt

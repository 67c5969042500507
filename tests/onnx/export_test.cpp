#include "lib/onnx/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "lib/base/atomic_file.h"
#include "lib/ir/edit.h"
#include "lib/onnx/check.h"
#include "tests/support/model_text.h"

namespace infopt {
namespace {

using test::model_of;
using test::proto_of;
using test::TempDir;
using test::with_header;

onnx::ModelProto written(const Model& model) {
  onnx::ModelProto proto;
  EXPECT_TRUE(proto.ParseFromString(serialize_model(model)));
  return proto;
}

std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// A model whose one weight has `count` floats 0, 0.5, 1, …
Model with_weight(int64_t count) {
  Model m = model_of("g (float[N] x) => (float[N] y) { y = Relu(x) }");
  GraphEdit edit(*m.graph);
  Tensor w(DType::F32, {count});
  for (int64_t i = 0; i < count; ++i) w.mutable_data<float>()[i] = static_cast<float>(i) * 0.5f;
  const ValueId sum = edit.add({.op = "Add"}, {m.graph->inputs()[0], edit.add_constant(std::move(w), "w")});
  edit.set_input(m.graph->order()[0], 0, sum);
  edit.finish();
  return m;
}

TEST(Export, KeepsEverythingThatWasRead) {
  auto proto = proto_of(with_header(R"(g (float[N, 3] x, bool c) => (float[N, 3] y) <float[3] w = {1, 2, 3}> {
    t = Add(x, w)
    y = If (c) <then_branch = th () => (float[N, 3] p) { p = Relu(t) }, else_branch = el () => (float[N, 3] q) { q = Neg(t) }>
  })"));
  proto.set_producer_name("trainer");
  proto.set_producer_version("3.1");
  proto.set_domain("org.example");
  proto.set_model_version(7);
  proto.set_doc_string("what it is");
  auto add = [](auto* props) {
    auto* p = props->Add();
    p->set_key("key");
    p->set_value("value");
  };
  add(proto.mutable_metadata_props());
  auto* graph = proto.mutable_graph();
  graph->set_doc_string("the graph");
  add(graph->mutable_metadata_props());
  graph->mutable_node(0)->set_name("sum");
  graph->mutable_node(0)->set_doc_string("a node");
  add(graph->mutable_node(0)->mutable_metadata_props());
  graph->mutable_input(0)->set_doc_string("an input");
  add(graph->mutable_input(0)->mutable_metadata_props());
  auto* annotation = graph->add_quantization_annotation();
  annotation->set_tensor_name("t");
  add(annotation->mutable_quant_parameter_tensor_names());
  proto.add_training_info()->mutable_algorithm()->set_name("sgd");
  const onnx::ModelProto again = written(parse_model(proto.SerializeAsString()));
  EXPECT_EQ(again.SerializeAsString(), written(parse_model(again.SerializeAsString())).SerializeAsString());
  EXPECT_EQ(again.producer_name(), "trainer");
  EXPECT_EQ(again.producer_version(), "3.1");
  EXPECT_EQ(again.domain(), "org.example");
  EXPECT_EQ(again.model_version(), 7);
  EXPECT_EQ(again.doc_string(), "what it is");
  EXPECT_EQ(again.metadata_props(0).value(), "value");
  EXPECT_EQ(again.training_info(0).algorithm().name(), "sgd");
  EXPECT_EQ(again.graph().doc_string(), "the graph");
  EXPECT_EQ(again.graph().metadata_props(0).key(), "key");
  EXPECT_EQ(again.graph().node(0).name(), "sum");
  EXPECT_EQ(again.graph().node(0).doc_string(), "a node");
  EXPECT_EQ(again.graph().node(0).metadata_props(0).key(), "key");
  EXPECT_EQ(again.graph().input(0).doc_string(), "an input");
  EXPECT_EQ(again.graph().input(0).metadata_props(0).key(), "key");
  EXPECT_EQ(again.graph().input(0).type().tensor_type().shape().dim(0).dim_param(), "N");
  EXPECT_EQ(again.graph().quantization_annotation(0).tensor_name(), "t");
  EXPECT_EQ(again.graph().node(1).attribute(0).g().node(0).input(0), "t");
  EXPECT_EQ(again.graph().initializer(0).name(), "w");
}

TEST(Export, MissingNamesAreFilledAndTakenOnesAreLeft) {
  Model m = model_of("g (float[2] x) => (float[2] y) { Relu_0 = Abs(x) y = Relu(Relu_0) }");
  GraphEdit edit(*m.graph);
  const NodeId last = m.graph->order()[1];
  const ValueId fresh = edit.add({.op = "Relu"}, {m.graph->node(last).inputs[0]}, last);
  edit.set_input(last, 0, fresh);
  edit.finish();
  const auto proto = written(m);
  EXPECT_EQ(proto.graph().node(0).output(0), "Relu_0");
  EXPECT_EQ(proto.graph().node(1).output(0), "Relu_1");
  EXPECT_EQ(proto.graph().output(0).name(), "y");
  EXPECT_EQ(serialize_model(m), serialize_model(m));
}

TEST(Export, ABodysOwnValueThatHidesAnOuterOneIsRenamed) {
  Model m = model_of(R"(g (float[2] x, bool c) => (float[2] y) {
    t = Abs(x)
    y = If (c) <then_branch = th () => (float[2] p) { u = Neg(t) p = Relu(u) }, else_branch = el () => (float[2] q) { q = Neg(t) }>
  })");
  const auto body = m.graph->node(m.graph->order()[1]).bodies()[0];
  GraphEdit edit(*body);
  edit.set_name(body->find_value("u"), "t");
  const auto proto = written(m);
  const auto& g = proto.graph().node(1).attribute(0).g();
  EXPECT_EQ(g.node(0).input(0), "t");
  EXPECT_NE(g.node(0).output(0), "t");
  EXPECT_EQ(g.node(1).input(0), g.node(0).output(0));
}

TEST(Export, ABodyThatGivesOutAnOuterValueGetsAnIdentity) {
  auto proto = proto_of(with_header(R"(g (float[2] x, bool c) => (float[2] y) {
    y = If (c) <then_branch = th () => (float[2] p) { p = Neg(x) }, else_branch = el () => (float[2] q) { q = Neg(x) }>
  })"));
  auto* body = proto.mutable_graph()->mutable_node(0)->mutable_attribute(0)->mutable_g();
  body->clear_node();
  body->mutable_output(0)->set_name("x");
  TempDir dir;
  write_model(parse_model(proto.SerializeAsString()), dir / "m.onnx");
  EXPECT_NO_THROW(check_model_file(dir / "m.onnx"));
}

TEST(Export, TheIrVersionRisesToWhatOpsetAndTypesNeed) {
  EXPECT_EQ(written(model_of("g (float[2] x) => (float[2] y) { y = Relu(x) }", 8, 3)).ir_version(), 3);
  EXPECT_EQ(written(model_of("g (float[2] x, float[2] w = {1, 2}) => (float[2] y) { y = Add(x, w) }", 8, 3)).ir_version(), 4);
  EXPECT_EQ(written(model_of("g (float[2] x) => (float[2] y) { y = Relu(x) }", 21, 4)).ir_version(), 10);
  EXPECT_EQ(written(model_of("g (float[2] x) => (float[2] y) { y = Relu(x) }", 13, 9)).ir_version(), 9);
}

TEST(Export, LargeWeightsComeThroughAsTheyWere) {
  TempDir dir;
  const Model m = with_weight(100000);
  write_model(m, dir / "m.onnx");
  EXPECT_EQ(read_file(dir / "m.onnx"), serialize_model(m));
  const Model back = read_model(dir / "m.onnx");
  EXPECT_EQ(to_vector<float>(back.graph->value(back.graph->find_value("w")).constant),
            to_vector<float>(m.graph->value(m.graph->find_value("w")).constant));
  onnx::ModelProto proto;  // and for protobuf itself it is an ordinary message
  ASSERT_TRUE(proto.ParseFromString(read_file(dir / "m.onnx")));
  EXPECT_EQ(proto.graph().initializer(0).raw_data().size(), 400000u);
  EXPECT_FALSE(proto.graph().initializer(0).has_segment());
}

TEST(Export, ExternalDataIsOneFileNamedByItsContent) {
  TempDir dir;
  const Model m = with_weight(5000);
  write_model(m, dir / "m.onnx", {.external_data = true});
  const auto files = files_in(dir.path());
  ASSERT_EQ(files.size(), 2u);
  EXPECT_THAT(files[1], testing::MatchesRegex("m.onnx.[0-9a-f]*.data"));
  EXPECT_EQ(std::filesystem::file_size(dir / files[1]), 20000u);
  const Model back = read_model(dir / "m.onnx");
  EXPECT_EQ(serialize_model(back), serialize_model(m));
  EXPECT_NO_THROW(check_model_file(dir / "m.onnx"));
}

TEST(Export, AModelOverTheLargestFileIsWrittenWithExternalDataUnasked) {
  TempDir dir;
  write_model(with_weight(5000), dir / "m.onnx", {.largest_file = 10000});
  EXPECT_EQ(files_in(dir.path()).size(), 2u);
  EXPECT_LT(std::filesystem::file_size(dir / "m.onnx"), 10000u);
}

TEST(Export, AModelThatCannotBeWrittenLeavesWhatStoodThere) {
  TempDir dir;
  test::write_bytes(dir / "m.onnx", "before");
  EXPECT_THROW(write_model(with_weight(5000), dir / "m.onnx", {.largest_file = 10, .smallest_external = 1 << 30}), Error);
  EXPECT_THROW(write_model(with_weight(5000), dir / "m.onnx", {.largest_file = 10}), Error);
  EXPECT_EQ(read_file(dir / "m.onnx"), "before");
  EXPECT_EQ(files_in(dir.path()).size(), 1u);
  EXPECT_THROW(write_model(with_weight(10), dir / "no/such/folder/m.onnx"), Error);
}

}  // namespace
}  // namespace infopt

#include "lib/onnx/import.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/base/error.h"
#include "tests/support/model_text.h"

namespace infopt {
namespace {

using test::model_of;
using test::proto_of;
using test::TempDir;
using test::with_header;
using testing::ElementsAre;

ValueId named(const Graph& graph, const std::string& name) { return graph.find_value(name); }

const Node& only(const Graph& graph, const std::string& op) {
  for (NodeId id : graph.order())
    if (graph.node(id).op == op) return graph.node(id);
  throw std::runtime_error("no " + op);
}

TEST(Import, ReadsValuesNodesAndTypes) {
  const Model m = model_of("g (float[N, 3] x) => (float[N, 3] y) <float[3] w = {1, 2, 3}> { t = Add(x, w) y = Relu(t) }");
  const Graph& g = *m.graph;
  EXPECT_EQ(g.opset(), 17);
  ASSERT_EQ(g.order().size(), 2u);
  EXPECT_EQ(g.node(g.order()[0]).op, "Add");
  const Value& x = g.value(g.inputs()[0]);
  EXPECT_EQ(x.name, "x");
  EXPECT_EQ(x.type.shape[0].symbol, "N");
  EXPECT_EQ(x.type.shape[0].size, -1);
  EXPECT_EQ(x.type.shape[1].size, 3);
  EXPECT_THAT(g.value(named(g, "w")).constant.span<float>(), ElementsAre(1, 2, 3));
  EXPECT_TRUE(g.value(named(g, "w")).is_constant());
  EXPECT_EQ(g.value(g.outputs()[0]).producer, g.order()[1]);
}

TEST(Import, NegativeDimensionsAreUnknown) {
  auto proto = proto_of(with_header("g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }"));
  proto.mutable_graph()->mutable_input(0)->mutable_type()->mutable_tensor_type()->mutable_shape()->mutable_dim(0)->set_dim_value(-1);
  const Model m = parse_model(proto.SerializeAsString());
  EXPECT_EQ(m.graph->value(m.graph->inputs()[0]).type.shape[0], Dim{});
}

TEST(Import, AnInitializerThatIsAnInputIsADefaultFromIrVersionFourOn) {
  const std::string graph = "g (float[2] x, float[2] w = {1, 2}) => (float[2] y) { y = Add(x, w) }";
  const Model now = model_of(graph, 17, 8);
  EXPECT_EQ(now.graph->inputs().size(), 2u);
  EXPECT_TRUE(now.graph->value(now.graph->inputs()[1]).constant.defined());
  EXPECT_FALSE(now.graph->value(now.graph->inputs()[1]).is_constant());

  const Model before = model_of(graph, 8, 3);
  EXPECT_EQ(before.graph->inputs().size(), 1u);
  EXPECT_TRUE(before.graph->value(named(*before.graph, "w")).is_constant());
}

TEST(Import, BodiesReferToValuesOfGraphsAroundThem) {
  const Model m = model_of(R"(g (float[2] x, bool c, bool d) => (float[2] y) {
    k = Neg(x)
    y = If (c) <then_branch = t () => (float[2] p) {
          p = If (d) <then_branch = tt () => (float[2] q) { q = Add(k, x) }, else_branch = te () => (float[2] r) { r = Relu(x) }>
        }, else_branch = e () => (float[2] s) { s = Abs(x) }>
  })");
  const Graph& g = *m.graph;
  const Node& outer_if = only(g, "If");
  EXPECT_THAT(outer_if.captures, testing::UnorderedElementsAre(named(g, "x"), named(g, "k"), named(g, "d")));
  const Graph& then_branch = *outer_if.bodies()[0];
  const Node& inner_if = only(then_branch, "If");
  const Graph& inner = *inner_if.bodies()[0];
  const Value& k = inner.value(named(inner, "k"));
  EXPECT_EQ(then_branch.value(k.outer).name, "k");
  EXPECT_EQ(then_branch.value(k.outer).outer, named(g, "k"));
  EXPECT_THAT(g.value(named(g, "k")).uses, testing::Contains(Use{outer_if.id, kCapture}));
}

TEST(Import, NodesOutOfOrderAreSorted) {
  auto proto = proto_of(with_header("g (float[2] x) => (float[2] y) { t = Relu(x) y = Neg(t) }"));
  proto.mutable_graph()->mutable_node()->SwapElements(0, 1);
  const Model m = parse_model(proto.SerializeAsString());
  EXPECT_EQ(m.graph->node(m.graph->order()[0]).op, "Relu");
}

TEST(Import, NamesOfNodesMayRepeatOrBeMissing) {
  auto proto = proto_of(with_header("g (float[2] x) => (float[2] y) { s = Relu(x) t = Neg(s) y = Abs(t) }"));
  proto.mutable_graph()->mutable_node(0)->set_name("n");
  proto.mutable_graph()->mutable_node(1)->set_name("n");
  EXPECT_EQ(parse_model(proto.SerializeAsString()).graph->order().size(), 3u);
}

/// int32_data holds 16-bit floats as their bits and four-bit integers two to a number; expected bits by numpy:
/// np.float16([1, -2]).view('u2') = [15360, 49152].
TEST(Import, DecodesTypedDataOfEveryWidth) {
  struct Case {
    int32_t dtype;
    std::vector<int64_t> dims;
    std::vector<int32_t> stored;
    std::vector<double> expected;
  };
  const Case cases[] = {
      {onnx::TensorProto::INT8, {2}, {-128, 127}, {-128, 127}},
      {onnx::TensorProto::UINT8, {2}, {0, 255}, {0, 255}},
      {onnx::TensorProto::INT16, {1}, {-32768}, {-32768}},
      {onnx::TensorProto::BOOL, {2}, {0, 1}, {0, 1}},
      {onnx::TensorProto::INT32, {1}, {-5}, {-5}},
      {onnx::TensorProto::FLOAT16, {2}, {15360, 49152}, {1, -2}},
      {onnx::TensorProto::BFLOAT16, {1}, {0x3fc0}, {1.5}},
      {onnx::TensorProto::FLOAT8E4M3FN, {1}, {0x38}, {1}},
      {onnx::TensorProto::INT4, {3}, {0x2f, 0x08}, {-1, 2, -8}},
      {onnx::TensorProto::UINT4, {2}, {0xf1}, {1, 15}},
      {onnx::TensorProto::INT2, {4}, {0xe4}, {0, 1, -2, -1}},
  };
  for (const Case& c : cases) {
    auto proto = proto_of(with_header("g (float[2] x) => (float[2] y) { y = Relu(x) }"));
    auto* t = proto.mutable_graph()->add_initializer();
    t->set_name("w");
    t->set_data_type(c.dtype);
    for (int64_t d : c.dims) t->add_dims(d);
    for (int32_t v : c.stored) t->add_int32_data(v);
    const Model m = parse_model(proto.SerializeAsString());
    EXPECT_EQ(to_vector<double>(m.graph->value(named(*m.graph, "w")).constant), c.expected) << c.dtype;
  }
}

TEST(Import, LargeDataIsReadFromRawAndFromPackedFloats) {
  for (const bool raw : {true, false}) {
    auto proto = proto_of(with_header("g (float[1000] x) => (float[1000] y) { y = Relu(x) }"));
    auto* t = proto.mutable_graph()->add_initializer();
    t->set_name("w");
    t->set_data_type(onnx::TensorProto::FLOAT);
    t->add_dims(1000);
    std::vector<float> values(1000);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) * 0.5f;
    if (raw) t->set_raw_data(values.data(), values.size() * 4);
    else t->mutable_float_data()->Add(values.begin(), values.end());
    TempDir dir;
    test::write_bytes(dir / "m.onnx", proto.SerializeAsString());
    const Model m = read_model(dir / "m.onnx");
    EXPECT_EQ(to_vector<float>(m.graph->value(named(*m.graph, "w")).constant), values);
  }
}

TEST(Import, ABoolOtherThanOneIsMadeOne) {
  auto proto = proto_of(with_header("g (bool[3] x) => (bool[3] y) { y = Not(x) }"));
  auto* t = proto.mutable_graph()->add_initializer();
  t->set_name("w");
  t->set_data_type(onnx::TensorProto::BOOL);
  t->add_dims(3);
  t->set_raw_data(std::string("\x00\x02\xff", 3));
  const Model m = parse_model(proto.SerializeAsString());
  EXPECT_EQ(to_vector<int64_t>(m.graph->value(named(*m.graph, "w")).constant), (std::vector<int64_t>{0, 1, 1}));
}

TEST(Import, SparseInitializersBecomeDense) {
  auto proto = proto_of(with_header("g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }"));
  auto* sparse = proto.mutable_graph()->add_sparse_initializer();
  sparse->add_dims(2), sparse->add_dims(3);
  auto* values = sparse->mutable_values();
  values->set_name("w");
  values->set_data_type(onnx::TensorProto::FLOAT);
  values->add_dims(2), values->add_float_data(5), values->add_float_data(7);
  auto* indices = sparse->mutable_indices();
  indices->set_data_type(onnx::TensorProto::INT64);
  indices->add_dims(2), indices->add_int64_data(1), indices->add_int64_data(5);
  const Model m = parse_model(proto.SerializeAsString());
  EXPECT_THAT(m.graph->value(named(*m.graph, "w")).constant.span<float>(), ElementsAre(0, 5, 0, 0, 0, 7));
}

constexpr const char* kWithFunction = R"(
<ir_version: 9, opset_import: ["": 17, "local": 1]>
g (float[2] x) => (float[2] y) { y = local.twice (x) }
<domain: "local", opset_import: ["": 17, "local": 1]>
twice (a) => (b) { c = local.shift <by = 3.0> (a) b = Add(c, c) }
<domain: "local", opset_import: ["": 17]>
shift <by: float = 1.0> (a) => (b) { k = Constant <value_float: float = @by> () b = Add(a, k) }
)";

TEST(Import, FunctionsAreInlined) {
  const Model m = parse_model(proto_of(kWithFunction).SerializeAsString());
  std::vector<std::string> ops;
  for (NodeId id : m.graph->order()) ops.push_back(m.graph->node(id).op);
  EXPECT_THAT(ops, ElementsAre("Constant", "Add", "Add"));
  EXPECT_EQ(only(*m.graph, "Constant").f("value_float", 0), 3.0f);
  EXPECT_TRUE(m.functions.empty());
}

TEST(Import, AFunctionsDefaultIsUsedWhereTheCallLeavesTheAttributeOut) {
  std::string text = kWithFunction;
  text.erase(text.find("<by = 3.0>"), 10);
  const Model m = parse_model(proto_of(text).SerializeAsString());
  EXPECT_EQ(only(*m.graph, "Constant").f("value_float", 0), 1.0f);
}

TEST(Import, FunctionsAreKeptWhereAsked) {
  const Model m = parse_model(proto_of(kWithFunction).SerializeAsString(), {.inline_functions = false});
  EXPECT_EQ(m.functions.size(), 2u);
  EXPECT_EQ(m.graph->node(m.graph->order()[0]).domain, "local");
}

TEST(Import, UnknownDomainsPassThrough) {
  const Model m = parse_model(
      proto_of("<ir_version: 8, opset_import: [\"\": 17, \"acme\": 2]> g (float[2] x) => (float[2] y) { y = acme.Magic <level = 3> (x) }")
          .SerializeAsString());
  EXPECT_EQ(m.graph->opset("acme"), 2);
  EXPECT_EQ(m.graph->node(m.graph->order()[0]).i("level", 0), 3);
}

TEST(Import, TheDefaultDomainHasTwoNames) {
  auto proto = proto_of(with_header("g (float[2] x) => (float[2] y) { y = Relu(x) }"));
  proto.mutable_opset_import(0)->set_domain("ai.onnx");
  proto.mutable_graph()->mutable_node(0)->set_domain("ai.onnx");
  const Model m = parse_model(proto.SerializeAsString());
  EXPECT_EQ(m.graph->opset(), 17);
  EXPECT_TRUE(m.graph->node(m.graph->order()[0]).is("Relu"));
}

}  // namespace
}  // namespace infopt

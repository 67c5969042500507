#include "lib/ir/edit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/base/error.h"

namespace infopt {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

/// x → a=Relu → b=Neg → output, with `a` given out too where asked.
struct Chain {
  Graph graph;
  ValueId x, a, b;
  NodeId relu, neg;

  Chain() {
    GraphEdit edit(graph);
    x = edit.add_input("x", Type::tensor(DType::F32, {2}));
    a = edit.add_value("a");
    b = edit.add_value("b");
    relu = edit.add_node({.op = "Relu"}, {x}, {a});
    neg = edit.add_node({.op = "Neg"}, {a}, {b});
    edit.add_output(b);
    edit.finish();
  }
};

TEST(GraphEdit, KeepsProducersAndUses) {
  Chain c;
  EXPECT_EQ(c.graph.value(c.a).producer, c.relu);
  EXPECT_THAT(c.graph.value(c.a).uses, ElementsAre(Use{c.neg, 0}));
  EXPECT_THAT(c.graph.value(c.b).uses, ElementsAre(Use{kNone, kGraphOutput}));
  EXPECT_EQ(c.graph.sole_consumer(c.a)->id, c.neg);
  EXPECT_EQ(c.graph.sole_consumer(c.b), nullptr);
}

TEST(GraphEdit, ReplacingAGraphOutputKeepsItsName) {
  Chain c;
  GraphEdit edit(c.graph);
  edit.replace_uses(c.b, c.a);
  EXPECT_EQ(c.graph.value(c.graph.outputs()[0]).name, "b");
  EXPECT_EQ(c.graph.outputs()[0], c.a);
  EXPECT_THAT(c.graph.value(c.b).uses, IsEmpty());
  edit.remove_node(c.neg);
  edit.finish();
  EXPECT_THAT(c.graph.order(), ElementsAre(c.relu));
}

TEST(GraphEdit, ReplacingAValueThatIsGivenOutTwiceKeepsItsName) {
  Chain c;
  GraphEdit edit(c.graph);
  edit.add_output(c.b);
  edit.replace_uses(c.b, c.a);
  EXPECT_EQ(c.graph.value(c.a).name, "b");
  EXPECT_THAT(c.graph.outputs(), ElementsAre(c.a, c.a));
}

TEST(GraphEdit, ReplacesEveryInputOfANode) {
  Chain c;
  GraphEdit edit(c.graph);
  const NodeId add = edit.add_node({.op = "Add"}, {c.a, c.a}, {edit.add_value("s")});
  edit.replace_uses(c.a, c.x);
  EXPECT_THAT(c.graph.node(add).inputs, ElementsAre(c.x, c.x));
  EXPECT_THAT(c.graph.value(c.a).uses, IsEmpty());
  EXPECT_THAT(c.graph.value(c.x).uses, UnorderedElementsAre(Use{c.relu, 0}, Use{c.neg, 0}, Use{add, 0}, Use{add, 1}));
}

TEST(GraphEdit, AnExceptionKeepsItsInput) {
  Chain c;
  GraphEdit edit(c.graph);
  const ValueId scaled = edit.add_value("scaled");
  const NodeId mul = edit.add_node({.op = "Mul"}, {c.a, c.a}, {scaled});
  edit.replace_uses_except(c.a, scaled, mul);
  edit.finish();
  EXPECT_THAT(c.graph.node(mul).inputs, ElementsAre(c.a, c.a));
  EXPECT_THAT(c.graph.node(c.neg).inputs, ElementsAre(scaled));
  EXPECT_THAT(c.graph.order(), ElementsAre(c.relu, mul, c.neg));
}

TEST(GraphEdit, BodiesFollowAReplacedValue) {
  Chain c;
  GraphEdit edit(c.graph);
  auto body = std::make_shared<Graph>();
  ValueId inner;
  {
    GraphEdit inside(*body);
    inner = inside.add_outer(c.a, "a");
    inside.add_output(inside.add({.op = "Abs"}, {inner}));
  }
  const NodeId branch = edit.add_node({.op = "If", .attributes = {{"then_branch", body, {}}}}, {c.x}, {edit.add_value("y")});
  edit.set_captures(branch, {c.a});
  edit.replace_uses(c.a, c.x);
  EXPECT_EQ(body->value(inner).outer, c.x);
  EXPECT_THAT(c.graph.node(branch).captures, ElementsAre(c.x));
  EXPECT_THAT(c.graph.value(c.x).uses, testing::Contains(Use{branch, kCapture}));
  EXPECT_THAT(c.graph.value(c.a).uses, IsEmpty());
}

TEST(GraphEdit, TheInterfaceIsNotReplacedByInputsAndConstants) {
  Chain c;
  GraphEdit edit(c.graph);
  EXPECT_TRUE(edit.replaceable(c.b, c.a));
  EXPECT_FALSE(edit.replaceable(c.b, c.x));
  EXPECT_FALSE(edit.replaceable(c.b, edit.add_constant(Tensor::scalar(1.0f))));
  EXPECT_TRUE(edit.replaceable(c.a, c.x));
}

TEST(GraphEdit, AnOutputCanBeDroppedOrMadeByAnother) {
  Chain c;
  GraphEdit edit(c.graph);
  const ValueId extra = edit.add_value("extra");
  const NodeId split = edit.add_node({.op = "Split"}, {c.x}, {edit.add_value("p"), extra});
  edit.drop_output(split, 1);
  EXPECT_FALSE(c.graph.value_alive(extra));
  EXPECT_EQ(c.graph.node(split).outputs.size(), 1u);
  EXPECT_THROW(edit.drop_output(c.relu, 0), Error);

  const ValueId inner = edit.add_value();
  edit.replace_output(c.neg, 0, inner);
  const NodeId last = edit.add_node({.op = "Abs"}, {inner}, {c.b});
  edit.finish();
  EXPECT_EQ(c.graph.value(c.b).producer, last);
  EXPECT_EQ(c.graph.value(inner).producer, c.neg);
  EXPECT_EQ(c.graph.value(c.b).name, "b");
}

TEST(GraphEdit, RefusesToRemoveWhatIsUsed) {
  Chain c;
  GraphEdit edit(c.graph);
  EXPECT_THROW(edit.remove_node(c.relu), Error);
  EXPECT_THROW(edit.remove_value(c.a), Error);
}

TEST(GraphEdit, SortsStablyAndNamesACycle) {
  Chain c;
  GraphEdit edit(c.graph);
  const NodeId first = edit.add_node({.op = "Abs"}, {c.x}, {edit.add_value("early")});
  edit.set_input(c.relu, 0, c.graph.node(first).outputs[0]);
  edit.finish();
  EXPECT_THAT(c.graph.order(), ElementsAre(first, c.relu, c.neg));

  edit.set_input(first, 0, c.b);
  try {
    edit.finish();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Malformed);
    EXPECT_THAT(e.what(), testing::HasSubstr("cycle"));
  }
}

TEST(GraphEdit, AnEditedCloneLeavesTheOriginal) {
  Chain c;
  const auto copy = c.graph.clone();
  {
    GraphEdit edit(*copy);
    edit.replace_uses(c.b, c.a);
    edit.remove_node(c.neg);
  }
  EXPECT_EQ(c.graph.order().size(), 2u);
  EXPECT_EQ(c.graph.outputs()[0], c.b);
  EXPECT_EQ(c.graph.value(c.b).name, "b");
}

}  // namespace
}  // namespace infopt

// ONNX's Attention on the device against the CPU's.
#include "tests/runtime/attention_cases.h"

#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

std::string kernel_on_device(const Graph& graph) {
  SessionOptions options;
  options.device = cuda_device();
  options.fallback = false;
  return Session(graph, options).plan().at(0).kernel;
}

void check(const AttentionCase& c, Random& r) {
  SCOPED_TRACE(c.describe());
  AttentionNet built(c.opset);
  build(built, c, inputs_of(c, r));
  ASSERT_EQ(kernel_on_device(built.net.graph()), "attention without a matrix of scores");
  expect_as_cpu(built.net.graph(), built.feeds, c.type == DType::F32 ? 1e-5 : c.type == DType::F16 ? 4e-3 : 3e-2);
}

TEST(CudaAttentionOperator, IsTheCpusForRandomShapesMasksAndCaches) {
  Random r(21);
  for (int i = 0; i < 120 && !testing::Test::HasFailure(); ++i) check(random_attention(r), r);
}

TEST(CudaAttentionOperator, HeadsOfABatchKnowTheirOwnLengths) {
  Random r(22);
  for (int64_t queries : {1, 5}) {
    AttentionCase c{.batch = 4, .q_heads = 6, .kv_heads = 2, .queries = queries, .keys = 70, .depth = 16, .value_depth = 16};
    c.lengths = c.causal = true;
    for (DType type : {DType::F32, DType::F16}) {
      c.type = type;
      check(c, r);
    }
  }
}

TEST(CudaAttentionOperator, GivesAPresentForKeysWithoutAPast) {
  Random r(23);
  for (const bool three_axes : {false, true}) {
    AttentionCase c{.batch = 2, .q_heads = 4, .kv_heads = 2, .queries = 3, .keys = 5, .depth = 8, .value_depth = 6, .three_axes = three_axes};
    c.opset = 24;
    c.present = true;
    check(c, r);
  }
}

TEST(CudaAttentionOperator, ShapesThatDontFitAreErrors) {
  Random r(24);
  const AttentionCase c{.batch = 2, .q_heads = 4, .kv_heads = 2, .queries = 3, .keys = 5, .depth = 8, .value_depth = 6};
  const auto fails = [&](auto change) {
    AttentionInputs g = inputs_of(c, r);
    change(g);
    AttentionNet built(c.opset);
    build(built, c, g);
    EXPECT_THROW(run_cuda(built.net.graph(), built.feeds), Error);
  };
  fails([&](AttentionInputs& g) { g.k = random_floats(r, {2, 3, 5, 8}, DType::F32); });
  fails([&](AttentionInputs& g) { g.v = random_floats(r, {2, 2, 6, 6}, DType::F32); });
  fails([&](AttentionInputs& g) { g.mask = random_floats(r, {4, 5}, DType::F32); });
  fails([&](AttentionInputs& g) { g.past_key = random_floats(r, {2, 2, 1, 8}, DType::F32); });
  fails([&](AttentionInputs& g) { g.past_key = random_floats(r, {2, 2, 1, 7}, DType::F32), g.past_value = random_floats(r, {2, 2, 1, 6}, DType::F32); });
  fails([&](AttentionInputs& g) { g.lengths = Tensor::vector<int64_t>({1, 2, 3}); });
}

}  // namespace
}  // namespace infopt::test

#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;

TEST(MergeReshapes, MakesChainsOfViewsOne) {
  expect_rewritten("merge_reshapes",
                   {{"two of them", "g (float[N,6] x) => (float[N,3,2] y) <int64[2] a = {-1, 2}, int64[3] b = {-1, 3, 2}> { p = Reshape(x, a) y = Reshape(p, b) }", "Reshape"},
                    {"of any kind",
                     "g (float[2,1,6] x) => (float[4,3] y) <int64[1] one = {1}, int64[1] front = {0}, int64[2] to = {4, -1}> { p = Squeeze(x, one) q = Unsqueeze(p, front) r = Flatten <axis = 2> (q) y = Reshape(r, to) }", "Reshape"},
                    {"one that others read", "g (float[2,6] x) => (float[4,3] y, float[12] z) <int64[1] a = {-1}, int64[2] b = {4, 3}> { p = Reshape(x, a) z = Relu(p) y = Reshape(p, b) }", "Reshape Relu Reshape"}},
                   0);
}

TEST(MergeReshapes, LeavesThoseThatCopyADimensionOrComputeTheirShape) {
  expect_rewritten("merge_reshapes",
                   {{"a dimension of what would go", "g (float[N,2,3] x) => (float[N,6,1] y) <int64[2] a = {-1, 6}, int64[3] b = {0, 6, 1}> { p = Reshape(x, a) y = Reshape(p, b) }", "Reshape Reshape"},
                    {"a computed shape", "g (float[2,6] x, float[4,3] like) => (float[4,3] y) <int64[1] a = {-1}> { p = Reshape(x, a) s = Shape(like) y = Reshape(p, s) }", "Reshape Shape Reshape"}},
                   0);
}

TEST(MergeReshapes, TransposesMatricesAtTheirOwnRank) {
  expect_rewritten("merge_reshapes",
                   {{"keys of attention", "g (float[2,3,5,4] x) => (float[2,3,4,5] y) <int64[3] a = {-1, 5, 4}, int64[4] b = {2, 3, 4, 5}> { p = Reshape(x, a) t = Transpose <perm = [0, 2, 1]> (p) y = Reshape(t, b) }", "Transpose"},
                    {"of any batch", "g (float[N,3,5,4] x) => (float[N,3,4,5] y) <int64[3] a = {-1, 5, 4}, int64[4] b = {-1, 3, 4, 5}> { p = Reshape(x, a) t = Transpose <perm = [0, 2, 1]> (p) y = Reshape(t, b) }", "Transpose"}},
                   0);
}

TEST(MergeReshapes, LeavesTransposesOfOtherMatrices) {
  expect_rewritten(
      "merge_reshapes",
      {{"cut otherwise before", "g (float[2,3,5,4] x) => (float[2,3,4,5] y) <int64[3] a = {6, 4, 5}, int64[4] b = {2, 3, 4, 5}> { p = Reshape(x, a) t = Transpose <perm = [0, 2, 1]> (p) y = Reshape(t, b) }", "Reshape Transpose Reshape"},
       {"cut otherwise behind", "g (float[2,3,5,4] x) => (float[3,2,4,5] y) <int64[3] a = {6, 5, 4}, int64[4] b = {3, 2, 4, 5}> { p = Reshape(x, a) t = Transpose <perm = [0, 2, 1]> (p) y = Reshape(t, b) }", "Reshape Transpose Reshape"},
       {"two open dimensions", "g (float[N,M,5,4] x) => (float[A,B,4,5] y) <int64[3] a = {-1, 5, 4}, int64[4] b = {1, -1, 4, 5}> { p = Reshape(x, a) t = Transpose <perm = [0, 2, 1]> (p) y = Reshape(t, b) }", "Reshape Transpose Reshape"}},
      0);
}

}  // namespace
}  // namespace infopt

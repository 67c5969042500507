// Channels taken out of a graph, against the same graph with the weights that read them zeroed: the outputs must be equal.
#include <gmock/gmock.h>

#include "passes/support/channel_groups.h"
#include "passes/support/remove_channels.h"
#include "tests/passes/graph_helper.h"

namespace infopt::test {
namespace {

/// The graph with zeros for what reads the classes.
Model zeroed(const Model& model, const Dimensions& d, const std::vector<bool>& gone) {
  Model out = copy_of(model);
  GraphEdit edit(*out.graph);
  for (const AxisUse& u : d.uses()) {
    if (u.role != AxisRole::Reads) continue;
    const ValueId v = edit.graph().node(u.node).input(u.input);
    const Tensor old = *edit.graph().constant(v);
    std::vector<double> values = to_vector<double>(old);
    int64_t inner = 1;
    for (int64_t a = u.axis + 1; a < old.rank(); ++a) inner *= old.dim(a);
    for (size_t i = 0; i < values.size(); ++i)
      if (gone[static_cast<size_t>(d.find(u.atoms[i / static_cast<size_t>(inner) % u.atoms.size()]))]) values[i] = 0;
    edit.set_input(u.node, u.input, edit.add_constant(cast(Tensor::vector(values).reshaped(old.shape()), old.dtype())));
  }
  edit.finish();
  return out;
}

struct Removed {
  int64_t classes = 0, positions = 0, impossible = 0;
  std::string kinds;  ///< of the groups, "channels 6×1"
};

/// Channels that are there twice, and read with half of the weights, change nothing.
void check_repeated(const Model& model, const Dimensions& d, const ChannelGroups& groups, size_t first) {
  std::vector<int> copies(static_cast<size_t>(d.atoms()), 1);
  for (const ChannelGroup& g : groups.groups())
    for (size_t i = first; i < g.classes.size() && (g.kind == GroupKind::Channels || g.kind == GroupKind::Neurons); i += 3) copies[static_cast<size_t>(g.classes[i])] = 2;
  Model repeated = copy_of(model);
  {
    GraphEdit edit(*repeated.graph);
    repeat_channels(edit, d, copies);
    edit.finish();
  }
  EXPECT_LE(difference(model, parse_model(serialize_model(repeated))), kRounding);
}

/// Takes out every third class of each group, from `first` on, and compares. Counts by shapes are compared with those that were foretold.
Removed check(const std::string& text, int opset = 17, size_t first = 0) {
  const Model model = graph_of(text, opset);
  const Dimensions d(model, *model.graph, {});
  const ChannelGroups groups(d);
  Removed out{0, groups.positions(), groups.impossible(), {}};
  const GraphCosts before = count_costs(*model.graph, declared_shapes(*model.graph));
  RemovalCosts macs(d, before, RemovalCosts::Unit::Macs), parameters(d, before, RemovalCosts::Unit::Parameters);
  std::vector<bool> gone(static_cast<size_t>(d.atoms()), false);
  for (const ChannelGroup& g : groups.groups()) {
    out.kinds += (out.kinds.empty() ? "" : ", ") + std::string(name_of(g.kind)) + " " + std::to_string(g.classes.size()) + "×" + std::to_string(g.width);
    if (g.kind == GroupKind::Width) continue;
    for (size_t i = first; i < g.classes.size() && g.classes.size() > 1; i += 3) {
      if (i + 1 == g.classes.size() && i == 0) continue;
      gone[static_cast<size_t>(g.classes[i])] = true;
      ++out.classes;
      macs.remove({g.classes[i]});
      parameters.remove({g.classes[i]});
    }
  }
  Model pruned = copy_of(model);
  {
    GraphEdit edit(*pruned.graph);
    remove_channels(edit, d, gone);
    edit.finish();
  }
  EXPECT_LE(difference(zeroed(model, d, gone), pruned), kRounding) << text;
  infer_types(pruned, true);
  const GraphCosts after = count_costs(*pruned.graph, declared_shapes(*pruned.graph));
  if (before.unknown == 0 && after.unknown == 0) {
    EXPECT_NEAR(macs.total(), static_cast<double>(after.macs), 0.5) << text;
  }
  EXPECT_NEAR(parameters.total(), static_cast<double>(after.parameters), 0.5) << text;
  const Model read = parse_model(serialize_model(pruned));
  EXPECT_LE(difference(pruned, read), 0) << text;
  check_repeated(model, d, groups, first);
  return out;
}

TEST(Dimensions, ChainsOfConvolutions) {
  const Removed r = check("g (float[N,3,8,8] x, float[6,3,3,3] w1, float[6] wb, float[8,6,3,3] w2, float[5,8,1,1] w3) => (float[N,5,4,4] y) "
                          "{ a = Conv(x, w1, wb) b = Relu(a) c = Conv(b, w2) d = Sigmoid(c) y = Conv(d, w3) }");
  EXPECT_EQ(r.kinds, "channels 6×1, channels 8×1");
  EXPECT_EQ(r.classes, 2 + 3);
  EXPECT_EQ(r.impossible, 0);
}

TEST(Dimensions, ResidualsShrinkTogether) {
  const Removed r = check("g (float[N,3,6,6] x, float[6,3,1,1] w1, float[4,6,1,1] w2, float[6,4,1,1] w3, float[6,3,1,1] w5, float[2,6,1,1] w4) => (float[N,2,6,6] y) "
                          "{ a = Conv(x, w1) b = Relu(a) c = Conv(b, w2) d = Tanh(c) e = Conv(d, w3) f = Add(b, e) h = Conv(x, w5) i = Sub(f, h) y = Conv(i, w4) }");
  EXPECT_EQ(r.kinds, "channels 6×1, channels 4×1");
}

TEST(Dimensions, ConcatenationsAndTheirParts) {
  EXPECT_EQ(check("g (float[N,3,6,6] x, float[6,3,1,1] w1, float[4,3,1,1] w2, float[2,10,1,1] w4) => (float[N,2,6,6] y) "
                  "{ a = Conv(x, w1) b = Conv(x, w2) c = Concat <axis = 1> (a, b) d = Relu(c) y = Conv(d, w4) }").kinds, "channels 6×1, channels 4×1");
  EXPECT_EQ(check("g (float[N,3,6,6] x, float[6,3,1,1] w1, float[2,9,1,1] w4) => (float[N,2,6,6] y) { a = Conv(x, w1) c = Concat <axis = 1> (x, a) y = Conv(c, w4) }").classes, 2);
}

TEST(Dimensions, SplitsAndSlices) {
  const std::string head = "g (float[N,3,6,6] x, float[8,3,1,1] w1, float[2,4,1,1] w2, float[2,4,1,1] w3, float[2,5,1,1] w4, float[2,3,1,1] w5) => (float[N,2,6,6] y) ";
  EXPECT_GT(check(head + "{ a = Conv(x, w1) b, c = Split <axis = 1> (a) d = Conv(b, w2) e = Conv(c, w3) y = Add(d, e) }", 17).classes, 2);
  EXPECT_GT(check(head + "{ a = Conv(x, w1) s = Constant <value = int64[2] {5, 3}> () b, c = Split <axis = 1> (a, s) d = Conv(b, w4) e = Conv(c, w5) y = Add(d, e) }").classes, 2);
  EXPECT_GT(check(head + "{ a = Conv(x, w1) i = Constant <value = int64[1] {3}> () j = Constant <value = int64[1] {8}> () k = Constant <value = int64[1] {1}> () b = Slice(a, i, j, k) y = Conv(b, w4) }").classes, 1);
  // Halves that are multiplied with each other go together.
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) b, c = Split <axis = 1> (a) d = Sigmoid(c) e = Mul(b, d) y = Conv(e, w2) }").kinds, "channels 4×2");
}

TEST(Dimensions, DepthwiseAndGroupedConvolutions) {
  const std::string head = "g (float[N,3,8,8] x, float[8,3,1,1] w1, float[8,1,3,3] w2, float[8] wb, float[5,8,1,1] w3, float[16,1,3,3] w4, float[5,16,1,1] w5, float[12,4,3,3] w6, float[5,12,1,1] w7, float[8,2,3,3] w8) => (float[N,5,6,6] y) ";
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) b = Relu(a) c = Conv <group = 8> (b, w2, wb) y = Conv(c, w3) }").kinds, "channels 8×1");
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) c = Conv <group = 8> (a, w4) y = Conv(c, w5) }").kinds, "channels 8×1");
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) c = Conv <group = 2> (a, w6) y = Conv(c, w7) }").kinds, "channels 4×2, channels 6×2");
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) c = Conv <group = 4> (a, w8) y = Conv(c, w3) }").kinds, "channels 4×2");
}

TEST(Dimensions, TransposedConvolutions) {
  EXPECT_EQ(check("g (float[N,3,4,4] x, float[6,3,1,1] w1, float[6,4,2,2] w2, float[4] wb, float[2,4,1,1] w3) => (float[N,2,8,8] y) "
                  "{ a = Conv(x, w1) b = ConvTranspose <strides = [2,2]> (a, w2, wb) y = Conv(b, w3) }").kinds, "channels 6×1, channels 4×1");
}

TEST(Dimensions, Normalizations) {
  const std::string head = "g (float[N,3,6,6] x, float[8,3,1,1] w1, float[8] ws, float[8] wb, float[8] wm, float[8] v, float[4] wg, float[4] wh, float[2,8,1,1] w2) => (float[N,2,6,6] y) ";
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) b = BatchNormalization(a, ws, wb, wm, v) y = Conv(b, w2) }").kinds, "channels 8×1");
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) b = InstanceNormalization(a, ws, wb) y = Conv(b, w2) }").kinds, "channels 8×1");
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) b = GroupNormalization <num_groups = 4> (a, wg, wh) y = Conv(b, w2) }", 18).kinds, "channels 4×2");
  EXPECT_EQ(check("g (float[N,5,8] x, float[8,6] w1, float[6] ws, float[6] wb, float[6,3] w2) => (float[N,5,3] y) { a = MatMul(x, w1) b = LayerNormalization(a, ws, wb) y = MatMul(b, w2) }").kinds, "width 6×1");
}

TEST(Dimensions, ConstantsOfChannelsTimesOneValueForAll) {
  const Removed r = check("g (float[N,3,6,6] x, float[8,3,3,3] w1, float[8,1,1] ws, float[8,1,1] wt, float[2,8,1,1] w2) => (float[N,2,4,4] y) { a = Conv(x, w1) m = ReduceMax<axes=[1,2,3]>(x) i = Mul(m, ws) b = Mul(a, i) o = Sub(wt, i) c = Add(b, o) d = Relu(c) y = Conv(d, w2) }");
  EXPECT_EQ(r.kinds, "channels 8×1");
  EXPECT_EQ(r.impossible, 0);
}

TEST(Dimensions, SqueezeAndExcite) {
  EXPECT_EQ(check("g (float[N,3,6,6] x, float[8,3,1,1] w1, float[4,8,1,1] w2, float[4] wb, float[8,4,1,1] w3, float[8] wc, float[2,8,1,1] w4) => (float[N,2,6,6] y) "
                  "{ a = Conv(x, w1) p = GlobalAveragePool(a) q = Conv(p, w2, wb) r = Relu(q) s = Conv(r, w3, wc) t = Sigmoid(s) u = Mul(a, t) y = Conv(u, w4) }").kinds, "channels 8×1, channels 4×1");
}

TEST(Dimensions, PoolsPadsAndResizes) {
  const std::string head = "g (float[N,3,8,8] x, float[6,3,1,1] w1, float[2,6,1,1] w2, float[2,9,1,1] w3) => (float[N,2,A,B] y) ";
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) b = MaxPool <kernel_shape = [2,2], strides = [2,2]> (a) c = AveragePool <kernel_shape = [2,2]> (b) y = Conv(c, w2) }").classes, 2);
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) s = Constant <value = int64[8] {0,0,1,1,0,0,1,1}> () b = Pad(a, s) y = Conv(b, w2) }").classes, 2);
  EXPECT_GE(check(head + "{ a = Conv(x, w1) s = Constant <value = int64[8] {0,1,0,0,0,2,0,0}> () b = Pad(a, s) y = Conv(b, w3) }").classes, 2);
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) s = Constant <value = float[4] {1,1,2,2}> () b = Resize <mode = \"nearest\"> (a, , s) y = Conv(b, w2) }").classes, 2);
  EXPECT_EQ(check("g (float[1,3,8,8] x, float[6,3,1,1] w1, float[2,6,1,1] w2) => (float[1,2,16,16] y) { a = Conv(x, w1) s = Constant <value = int64[4] {1,6,16,16}> () b = Resize <mode = \"nearest\"> (a, , , s) y = Conv(b, w2) }").classes, 2);
}

TEST(Dimensions, FlattenedImagesOwnRunsOfColumns) {
  const std::string head = "g (float[N,3,4,4] x, float[6,3,3,3] w1, float[24,7] w2, float[7] wb, float[6,7] w4, float[7,2] w3) => (float[N,2] y) ";
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) b = Flatten(a) c = Gemm(b, w2, wb) d = Relu(c) y = Gemm(d, w3) }").kinds, "channels 6×1, neurons 7×1");
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) s = Constant <value = int64[2] {0,-1}> () b = Reshape(a, s) c = MatMul(b, w2) y = MatMul(c, w3) }").kinds, "channels 6×1, neurons 7×1");
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) s = Constant <value = int64[2] {-1,24}> () b = Reshape(a, s) c = MatMul(b, w2) y = MatMul(c, w3) }").kinds, "channels 6×1, neurons 7×1");
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) b = ReduceMean <axes = [2,3], keepdims = 0> (a) c = MatMul(b, w4) y = MatMul(c, w3) }").kinds, "channels 6×1, neurons 7×1");
}

const std::string kAttention =
    "g (float[N,5,8] x, float[8,12] wq, float[8,12] wk, float[8,12] wv, float[12] wb, float[12,8] wo) => (float[N,5,8] y) { q0 = MatMul(x, wq) q1 = Add(q0, wb) k0 = MatMul(x, wk) v0 = MatMul(x, wv) ";
const std::string kAttentionEnd =
    "q2 = Reshape(q1, s) k2 = Reshape(k0, s) v2 = Reshape(v0, s) q = Transpose <perm = [0,2,1,3]> (q2) k = Transpose <perm = [0,2,3,1]> (k2) v = Transpose <perm = [0,2,1,3]> (v2) "
    "z = MatMul(q, k) p = Softmax <axis = -1> (z) o = MatMul(p, v) o2 = Transpose <perm = [0,2,1,3]> (o) o3 = Reshape(o2, t) y = MatMul(o3, wo) }";

TEST(Dimensions, PlacesSideBySideThatBecomeOne) {
  const Removed r = check("g (float[N,8,5] x, float[5,6] w1, float[24,3] w2) => (float[N,2,3] y) { a = MatMul(x, w1) s = Constant <value = int64[3] {-1,2,24}> () b = Reshape(a, s) y = MatMul(b, w2) }");
  EXPECT_EQ(r.kinds, "neurons 6×1");
  EXPECT_EQ(r.impossible, 0);
}

TEST(Dimensions, HeadsOfAttention) {
  EXPECT_EQ(check(kAttention + "s = Constant <value = int64[4] {0,5,4,3}> () t = Constant <value = int64[3] {0,5,12}> () " + kAttentionEnd).kinds, "heads 4×3");
  EXPECT_EQ(check(kAttention + "s = Constant <value = int64[4] {0,5,-1,3}> () t = Constant <value = int64[3] {-1,5,12}> () " + kAttentionEnd).kinds, "heads 4×3");
}

TEST(Dimensions, ShapesThatAreComputedKeepTheOldSizesOrGetTheNew) {
  const std::string sizes = "h = Shape(x) zero = Constant <value = int64[1] {0}> () one = Constant <value = int64[1] {1}> () n = Gather(h, zero) l = Gather(h, one) "
                            "heads = Constant <value = int64[1] {4}> () g = Shape(q1) two = Constant <value = int64[1] {2}> () all = Gather(g, two) each = Div(all, heads) s = Concat <axis = 0> (n, l, heads, each) t = Concat <axis = 0> (n, l, all) ";
  EXPECT_EQ(check(kAttention + sizes + kAttentionEnd).kinds, "heads 4×3");
}

TEST(Dimensions, QueriesKeysAndValuesOfOneProduct) {
  EXPECT_EQ(check("g (float[N,5,8] x, float[8,36] w1, float[12,8] wo) => (float[N,5,8] y) { a = MatMul(x, w1) s = Constant <value = int64[5] {0,5,3,4,3}> () b = Reshape(a, s) c = Transpose <perm = [2,0,3,1,4]> (b) "
                  "i = Constant <value = int64 {0}> () j = Constant <value = int64 {1}> () l = Constant <value = int64 {2}> () q = Gather <axis = 0> (c, i) k0 = Gather <axis = 0> (c, j) v = Gather <axis = 0> (c, l) "
                  "k = Transpose <perm = [0,1,3,2]> (k0) z = MatMul(q, k) p = Softmax <axis = -1> (z) o = MatMul(p, v) o2 = Transpose <perm = [0,2,1,3]> (o) t = Constant <value = int64[3] {0,5,12}> () o3 = Reshape(o2, t) y = MatMul(o3, wo) }").kinds,
            "heads 4×9");
}

TEST(Dimensions, ChannelShuffle) {
  EXPECT_EQ(check("g (float[1,3,4,4] x, float[12,3,1,1] w1, float[2,12,1,1] w2) => (float[1,2,4,4] y) { a = Conv(x, w1) s = Constant <value = int64[5] {1,4,3,4,4}> () b = Reshape(a, s) c = Transpose <perm = [0,2,1,3,4]> (b) "
                  "t = Constant <value = int64[4] {1,12,4,4}> () d = Reshape(c, t) y = Conv(d, w2) }").kinds, "channels 4×3");
}

TEST(Dimensions, PixelsAndChannels) {
  const std::string head = "g (float[N,3,4,4] x, float[12,3,1,1] w1, float[2,3,1,1] w2, float[2,48,1,1] w3) => (float[N,2,A,B] y) ";
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) b = DepthToSpace <blocksize = 2> (a) y = Conv(b, w2) }").kinds, "channels 3×4");
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) b = DepthToSpace <blocksize = 2, mode = \"CRD\"> (a) y = Conv(b, w2) }").kinds, "channels 3×4");
  EXPECT_EQ(check(head + "{ a = Conv(x, w1) b = SpaceToDepth <blocksize = 2> (a) y = Conv(b, w3) }").kinds, "channels 12×1");
}

TEST(Dimensions, GatedNeuronsAndTables) {
  EXPECT_EQ(check("g (float[N,5,8] x, float[8,6] w1, float[8,6] w2, float[6,3] w3) => (float[N,5,3] y) { a = MatMul(x, w1) b = MatMul(x, w2) s = Sigmoid(a) t = Mul(a, s) c = Mul(t, b) y = MatMul(c, w3) }").kinds, "neurons 6×1");
  EXPECT_EQ(check("g (int64[N,5] x, float[9,6] w1, float[5,6] w2, float[6,3] w3) => (float[N,5,3] y) { a = Gather(w1, x) b = Add(a, w2) y = MatMul(b, w3) }").kinds, "neurons 6×1");
}

TEST(Dimensions, WhatIsNotFollowedStaysAndSaysWhy) {
  const Model model = graph_of("g (float[N,3,6,6] x, float[6,3,1,1] w1, float[4,6,1,1] w2, float[2,4,1,1] w3) => (float[N,2,6,6] y) { a = Conv(x, w1) b = LRN <size = 3> (a) c = Conv(b, w2) y = Conv(c, w3) }");
  const Dimensions d(model, *model.graph, {});
  const ChannelGroups groups(d);
  EXPECT_EQ(groups.groups().size(), 1u);
  EXPECT_EQ(groups.positions(), 12);
  EXPECT_EQ(groups.impossible(), 6);
  EXPECT_THAT(groups.locked()[0].lock.reason, testing::HasSubstr("LRN"));
  EXPECT_EQ(check("g (float[N,3,6,6] x, float[6,3,1,1] w1) => (float[N,6,6,6] y) { a = Conv(x, w1) y = Relu(a) }").classes, 0);
  for (const std::string body : {"b = Softmax <axis = 1> (a)", "b = ReduceMax <axes = [1], keepdims = 1> (a)", "i = Constant <value = int64[2] {0,2}> () b = Gather <axis = 1> (a, i)"})
    EXPECT_EQ(check("g (float[N,3,6,6] x, float[6,3,1,1] w1) => (float[N,A,6,6] y) { a = Conv(x, w1) " + body + " y = Neg(b) }").impossible + 0, body[4] == 'S' ? 0 : 6) << body;
}

TEST(Dimensions, WeightsBehindDequantizeLinear) {
  EXPECT_EQ(check("g (float[N,3,6,6] x, float[6,3,1,1] w1, float[2,6,1,1] w2) => (float[N,2,6,6] y) { q = Constant <value = int8[6,3,1,1] {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18}> () "
                  "s = Constant <value = float[6] {1,2,3,4,5,6}> () d = DequantizeLinear <axis = 0> (q, s) a = Conv(x, d) y = Conv(a, w2) }").classes, 2);
}

}  // namespace
}  // namespace infopt::test

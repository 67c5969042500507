// Random cases of ONNX's Attention, for every device.
#pragma once
#include <limits>

#include "tests/runtime/fusion_harness.h"

namespace infopt::test {

struct AttentionCase {
  int64_t batch = 1, q_heads = 1, kv_heads = 1, queries = 1, keys = 1, past = 0, depth = 1, value_depth = 1;
  bool three_axes = false, causal = false, with_past = false, present = false, lengths = false;
  int64_t left = -1, right = -1, opset = 25;
  float scale = 0, softcap = 0;
  Shape mask_shape = {};  ///< empty: no mask
  bool bool_mask = false;
  DType type = DType::F32;

  int64_t total() const { return past + keys; }
  std::string describe() const {
    std::string s = "b" + std::to_string(batch) + " h" + std::to_string(q_heads) + "/" + std::to_string(kv_heads) + " s" + std::to_string(queries) + " t" + std::to_string(keys) + "+" + std::to_string(past);
    s += " d" + std::to_string(depth) + "," + std::to_string(value_depth) + (three_axes ? " 3d" : "") + (causal ? " causal" : "") + (lengths ? " lengths" : "") + (present ? " present" : "");
    return s + " window " + std::to_string(left) + "," + std::to_string(right) + " cap " + std::to_string(softcap) + (bool_mask ? " bool" : "") + " mask " + to_string(mask_shape) + " opset " + std::to_string(opset) + " " + std::string(name_of(type));
  }
};

struct AttentionInputs {
  Tensor q, k, v, mask, past_key, past_value, lengths;
};

inline Tensor random_floats(Random& r, Shape shape, DType type) {
  Tensor t(DType::F32, std::move(shape));
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(-2, 2);
  return cast(t, type);
}

inline AttentionInputs inputs_of(const AttentionCase& c, Random& r) {
  const auto shape = [&](int64_t heads, int64_t rows, int64_t depth) { return c.three_axes ? Shape{c.batch, rows, heads * depth} : Shape{c.batch, heads, rows, depth}; };
  AttentionInputs g{random_floats(r, shape(c.q_heads, c.queries, c.depth), c.type), random_floats(r, shape(c.kv_heads, c.keys, c.depth), c.type), random_floats(r, shape(c.kv_heads, c.keys, c.value_depth), c.type), {}, {}, {}, {}};
  if (!c.mask_shape.empty()) {
    if (c.bool_mask) {
      g.mask = Tensor(DType::Bool, c.mask_shape);
      const uint64_t denied = r.pick({1, 1, 3});
      for (int64_t i = 0; i < g.mask.size(); ++i) g.mask.mutable_data<bool>()[i] = static_cast<uint64_t>(r.in(0, 3)) >= denied;
    } else {
      Tensor mask = random_floats(r, c.mask_shape, DType::F32);
      const bool holes = r.chance(2);
      for (int64_t i = 0; i < mask.size(); ++i)
        if (holes && r.chance(3)) mask.mutable_data<float>()[i] = -std::numeric_limits<float>::infinity();
      g.mask = cast(mask, c.type);
    }
  }
  if (c.with_past) g.past_key = random_floats(r, {c.batch, c.kv_heads, c.past, c.depth}, c.type), g.past_value = random_floats(r, {c.batch, c.kv_heads, c.past, c.value_depth}, c.type);
  if (c.lengths) {
    std::vector<int64_t> n;
    for (int64_t b = 0; b < c.batch; ++b) n.push_back(r.in(0, c.keys));
    g.lengths = Tensor::vector(n);
  }
  return g;
}

/// Grouped heads, windows, masks of either kind, caches and lengths.
inline AttentionCase random_attention(Random& r) {
  AttentionCase c;
  c.batch = r.pick<int64_t>({1, 1, 2, 3});
  c.kv_heads = r.pick<int64_t>({1, 2, 3});
  c.q_heads = c.kv_heads * r.pick<int64_t>({1, 1, 2, 4, 7});
  c.queries = r.pick<int64_t>({1, 1, 1, 2, 4, 5, 9, 33});
  c.keys = r.pick<int64_t>({1, 3, 7, 16, 20, 33, 70});
  c.depth = r.pick<int64_t>({1, 2, 5, 16, 20, 32, 64});
  c.value_depth = r.pick<int64_t>({1, 4, 16, 20, 48});
  c.three_axes = r.chance(2);
  c.causal = r.chance(2);
  c.opset = r.pick<int64_t>({23, 24, 25});
  c.lengths = c.opset >= 24 && r.chance(4);
  c.with_past = !c.lengths && r.chance(3);
  c.past = c.with_past ? r.pick<int64_t>({0, 1, 6, 31}) : 0;
  c.present = c.with_past && r.chance(2);
  if (c.opset >= 25 && r.chance(2)) c.left = r.pick<int64_t>({-1, 0, 2, 9}), c.right = r.pick<int64_t>({-1, 0, 1, 30});
  c.scale = r.pick({0.0f, 0.0f, 0.3f});
  c.softcap = r.pick({0.0f, 0.0f, 1.5f, 8.0f});
  c.bool_mask = r.chance(2);
  if (r.chance(2)) {
    const int64_t columns = c.opset >= 24 && r.chance(3) ? r.in(1, c.total()) : r.pick<int64_t>({c.total(), c.total(), c.opset == 23 ? 1 : c.total()});
    c.mask_shape = {r.pick<int64_t>({1, c.batch}), r.pick<int64_t>({1, c.q_heads}), r.pick<int64_t>({1, c.queries}), columns};
    for (int64_t drop = r.in(0, 3); drop > 0; --drop) c.mask_shape.erase(c.mask_shape.begin());
  }
  c.type = r.pick({DType::F32, DType::F32, DType::F32, DType::F16, DType::BF16});
  return c;
}

struct AttentionNet {
  Net net;
  Feeds feeds;
  explicit AttentionNet(int64_t opset) : net(opset) {}
};

inline void build(AttentionNet& built, const AttentionCase& c, const AttentionInputs& g, Attributes more = {}, size_t outputs = 1) {
  Attributes attributes = std::move(more);
  if (c.causal) attributes.push_back({"is_causal", int64_t{1}, {}});
  if (c.three_axes) attributes.insert(attributes.end(), {{"q_num_heads", c.q_heads, {}}, {"kv_num_heads", c.kv_heads, {}}});
  if (c.left >= 0) attributes.push_back({"left_window_size", c.left, {}});
  if (c.right >= 0) attributes.push_back({"right_window_size", c.right, {}});
  if (c.scale != 0) attributes.push_back({"scale", c.scale, {}});
  if (c.softcap != 0) attributes.push_back({"softcap", c.softcap, {}});
  std::vector<ValueId> in;
  for (const Tensor* t : {&g.q, &g.k, &g.v, &g.mask, &g.past_key, &g.past_value, &g.lengths}) {
    in.push_back(t->defined() ? built.net.input(t->dtype(), t->shape()) : kNone);
    if (t->defined()) built.feeds[in.back()] = *t;
  }
  while (in.back() == kNone) in.pop_back();
  const NodeId node = built.net.add_node("Attention", in, std::max(outputs, c.present ? size_t{3} : size_t{1}), attributes);
  for (ValueId v : built.net.graph().node(node).outputs) built.net.output(v);
}

}  // namespace infopt::test

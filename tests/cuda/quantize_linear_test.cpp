// QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear on the CUDA device: the CPU's bits.
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

Tensor reals(Random& r, DType type, const Shape& shape, float low, float high) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.chance(20) ? r.pick<float>({0.0f, 1e30f, -1e30f, -0.0f}) : r.real(low, high);
  return cast(t, type);
}

/// Codes of any value; 8-bit floats without NaN, packed types too.
Tensor codes(Random& r, DType type, const Shape& shape) {
  Tensor t(type, shape);
  const auto bytes = r.bytes(static_cast<int64_t>(t.bytes()));
  for (size_t i = 0; i < t.bytes(); ++i) t.mutable_raw()[i] = static_cast<std::byte>(is_float(type) ? bytes[i] & 0xBB : bytes[i]);
  return t;
}

/// The device's session without fusions, so that each node runs.
void expect_bits(Net& net, const Feeds& feeds) {
  SessionOptions options;
  options.fuse = false;
  expect_same_bits(run_cuda(net.graph(), feeds, options), Session(net.graph(), options).run(feeds));
}

struct Scales {
  Shape shape;
  Attributes attributes;
};

Scales random_scales(Random& r, const Shape& x) {
  const auto axis = static_cast<size_t>(r.in(0, static_cast<int64_t>(x.size()) - 1));
  switch (r.in(0, 3)) {
    case 0: return {{}, {}};
    case 1: return {{x[axis]}, {{"axis", static_cast<int64_t>(axis)}}};
    case 2:
      if (x.size() > 1) return {{x[1]}, {}};
      return {{1}, {}};
    default: {
      const int64_t block = r.pick<int64_t>({1, 2, 4, 8, x[axis]});
      Shape s = x;
      s[axis] = (x[axis] + block - 1) / block;
      return {s, {{"axis", static_cast<int64_t>(axis)}, {"block_size", block}}};
    }
  }
}

/// The value as an input, channels-last where the rank is 4 and luck has it.
ValueId feed_in(Random& r, Net& net, Feeds& feeds, Tensor (*make)(Random&, DType, const Shape&), DType type, const Shape& shape) {
  const bool last = shape.size() == 4 && bits_of(type) >= 8 && r.chance(2);
  const Shape given = last ? Shape{shape[0], shape[2], shape[3], shape[1]} : shape;
  const ValueId x = net.input(type, given);
  feeds[x] = make(r, type, given);
  return last ? net.add("Transpose", {x}, {{"perm", std::vector<int64_t>{0, 3, 1, 2}}}) : x;
}

Shape some_shape(Random& r) {
  Shape s;
  for (int64_t i = r.in(1, 4); i > 0; --i) s.push_back(r.pick<int64_t>({1, 3, 4, 8, 16, 20}));
  return s;
}

TEST(CudaQuantizeLinear, AsTheCpu) {
  Random r(51);
  for (int i = 0; i < 150 && !testing::Test::HasFatalFailure(); ++i) {
    Net net(23);
    Feeds feeds;
    const Shape shape = some_shape(r);
    const Scales s = random_scales(r, shape);
    const DType type = r.pick({DType::F32, DType::F32, DType::F16, DType::BF16}), scale = r.chance(2) ? type : DType::F32;
    const DType to = r.pick({DType::U8, DType::I8, DType::U16, DType::I16, DType::F8E4M3FN, DType::F8E5M2});
    const auto make = [](Random& random, DType t, const Shape& of) { return reals(random, t, of, -300, 300); };
    std::vector<ValueId> inputs{feed_in(r, net, feeds, make, type, shape), net.constant(cast(reals(r, DType::F32, s.shape, 0.5f, 2.0f), scale))};
    Attributes attributes = s.attributes;
    if (r.chance(4)) attributes.push_back({"output_dtype", static_cast<int64_t>(to)});
    else inputs.push_back(net.constant(is_float(to) ? Tensor::zeros(to, s.shape) : codes(r, to, s.shape)));
    net.output(net.add("QuantizeLinear", inputs, attributes));
    expect_bits(net, feeds);
  }
}

TEST(CudaQuantizeLinear, DequantizesAsTheCpu) {
  Random r(52);
  for (int i = 0; i < 150 && !testing::Test::HasFatalFailure(); ++i) {
    Net net(23);
    Feeds feeds;
    const Shape shape = some_shape(r);
    const Scales s = random_scales(r, shape);
    const DType from = r.pick({DType::U8, DType::I8, DType::U16, DType::I16, DType::I32, DType::U4, DType::I4, DType::F8E4M3FN, DType::F8E5M2});
    std::vector<ValueId> inputs{feed_in(r, net, feeds, codes, from, shape), net.constant(cast(reals(r, DType::F32, s.shape, 0.01f, 0.1f), r.pick({DType::F32, DType::F16, DType::BF16})))};
    if (r.chance(2) && from != DType::I32) inputs.push_back(net.constant(codes(r, from, s.shape)));
    Attributes attributes = s.attributes;
    if (r.chance(4)) attributes.push_back({"output_dtype", static_cast<int64_t>(r.pick({DType::F32, DType::F16, DType::BF16}))});
    net.output(net.add("DequantizeLinear", inputs, attributes));
    expect_bits(net, feeds);
  }
}

TEST(CudaQuantizeLinear, DynamicAsTheCpu) {
  Random r(53);
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{7}, Shape{3, 1000}, Shape{0, 4}, Shape{2, 5, 4, 30}}) {
    for (const float low : {-3.0f, 0.0f, 1.0f}) {
      Net net;
      const ValueId x = net.input(DType::F32, shape);
      const NodeId node = net.add_node("DynamicQuantizeLinear", {x}, 3);
      for (const ValueId v : std::vector<ValueId>(net.edit()->node(node).outputs)) net.output(v);
      Tensor t(DType::F32, shape);
      for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(low, 2);
      expect_bits(net, {{x, t}});
    }
  }
}

}  // namespace
}  // namespace infopt::test

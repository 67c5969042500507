// Poolings on the emulated device, in both layouts, beside the CPU's.
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

Tensor random_reals(Random& r, DType type, const Shape& shape) {
  if (type == DType::U8 || type == DType::I8) return random_codes(r, type, shape);
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(-4, 4);
  return cast(t, type);
}

/// An image of 1 to 3 spatial axes, plain or channels-last (by a Transpose that moves nothing).
struct Images {
  Net net;
  Feeds feeds;
  Shape shape;
  ValueId x;
  Images(Random& r, DType type, Shape image) : shape(std::move(image)) {
    const auto rank = static_cast<int64_t>(shape.size());
    const bool last = r.chance(2);
    Shape given = shape;
    std::vector<int64_t> perm{0, rank - 1};
    if (last) given.erase(given.begin() + 1), given.push_back(shape[1]);
    for (int64_t d = 1; d + 1 < rank; ++d) perm.push_back(d);
    x = net.input(type, given);
    feeds[x] = random_reals(r, type, given);
    if (last) x = net.add("Transpose", {x}, {{"perm", perm}});
  }
  void check(double relative = 1e-5) {
    SCOPED_TRACE(testing::Message() << to_string(shape));
    expect_as_cpu(net.graph(), feeds, relative);
  }
};

Shape random_image(Random& r, int64_t spatial, int64_t most) {
  Shape s{r.in(1, 2), r.pick<int64_t>({1, 3, 8, 16, 20})};
  for (int64_t i = 0; i < spatial; ++i) s.push_back(r.in(5, most));
  return s;
}

Attributes random_window(Random& r, int64_t spatial) {
  std::vector<int64_t> kernel, strides, dilations, pads(static_cast<size_t>(2 * spatial));
  for (int64_t i = 0; i < spatial; ++i) kernel.push_back(r.in(1, 3)), strides.push_back(r.in(1, 3)), dilations.push_back(r.pick<int64_t>({1, 1, 2}));
  for (size_t i = 0; i < pads.size(); ++i) pads[i] = r.in(0, kernel[i % kernel.size()] - 1);
  Attributes a{{"kernel_shape", kernel}, {"strides", strides}};
  if (r.chance(2)) a.push_back({"dilations", dilations});
  if (r.chance(4)) a.push_back({"auto_pad", r.pick<std::string>({"SAME_UPPER", "SAME_LOWER", "VALID"})});
  else a.push_back({"pads", pads});
  a.push_back({"ceil_mode", r.in(0, 1)});
  return a;
}

TEST(CudaPooling, WindowsAsTheCpu) {
  Random r(31);
  for (int i = 0; i < 120 && !testing::Test::HasFatalFailure(); ++i) {
    const int64_t spatial = r.in(1, 3);
    const std::string op = r.pick<std::string>({"MaxPool", "AveragePool", "LpPool"});
    DType type = r.pick({DType::F32, DType::F32, DType::F16, DType::BF16, DType::F64});
    if (op == "MaxPool" && r.chance(3)) type = r.pick({DType::U8, DType::I8});
    Images c(r, type, random_image(r, spatial, 12));
    Attributes a = random_window(r, spatial);
    if (op == "AveragePool") a.push_back({"count_include_pad", r.in(0, 1)});
    if (op == "LpPool") a.push_back({"p", r.in(1, 3)});
    if (op == "MaxPool" && r.chance(3)) {
      a.push_back({"storage_order", r.in(0, 1)});
      const NodeId node = c.net.add_node(op, {c.x}, 2, a);
      for (const ValueId v : std::vector<ValueId>(c.net.edit()->node(node).outputs)) c.net.output(v);
    } else {
      c.net.output(c.net.add(op, {c.x}, a));
    }
    c.check(type == DType::BF16 ? 1e-2 : type == DType::F16 ? 1e-3 : 1e-5);
  }
}

TEST(CudaPooling, WholeImagesAsTheCpu) {
  Random r(32);
  for (int i = 0; i < 40 && !testing::Test::HasFatalFailure(); ++i) {
    const DType type = r.pick({DType::F32, DType::F32, DType::F16, DType::F64});
    Shape shape = random_image(r, r.in(1, 3), 9);
    if (r.chance(8)) shape = {1, 2, 60, 50};
    Images c(r, type, shape);
    for (const char* op : {"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"}) c.net.output(c.net.add(op, {c.x}));
    c.check(type == DType::F16 ? 1e-3 : 1e-5);
  }
}

TEST(CudaPooling, NothingOfAnEmptyBatch) {
  Random r(33);
  Net net;
  const ValueId x = net.input(DType::F32, {0, 3, 6, 6});
  net.output(net.add("MaxPool", {x}, {{"kernel_shape", std::vector<int64_t>{2, 2}}}));
  net.output(net.add("GlobalAveragePool", {x}));
  expect_as_cpu(net.graph(), {{x, Tensor(DType::F32, {0, 3, 6, 6})}});
}

}  // namespace
}  // namespace infopt::test

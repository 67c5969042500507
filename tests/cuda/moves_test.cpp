// Operators that move elements, on the emulated device: the CPU's results, bit for bit, for every size of element and both layouts.
#include "lib/runtime/cuda/fault.h"
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

const std::vector<DType> kMoved{DType::F32, DType::F16, DType::U8, DType::I64, DType::Bool, DType::I16, DType::F64, DType::F8E4M3FN};

Tensor random_tensor(Random& r, DType type, const Shape& shape) {
  Tensor t(type, shape);
  const auto bytes = r.bytes(static_cast<int64_t>(t.bytes()));
  for (size_t i = 0; i < t.bytes(); ++i) t.mutable_raw()[i] = static_cast<std::byte>(type == DType::Bool ? bytes[i] & 1 : bytes[i]);
  if (type == DType::F16)  // no NaN: which one it is isn't kept
    for (size_t i = 1; i < t.bytes(); i += 2) t.mutable_raw()[i] &= std::byte{0xBB};
  return t;
}

Shape random_shape(Random& r, int64_t rank, int64_t most) {
  Shape s;
  for (int64_t i = 0; i < rank; ++i) s.push_back(r.pick<int64_t>({1, r.in(1, 4), r.in(1, most)}));
  return s;
}

/// A graph whose input is moved by one node, with its feed. Half of the inputs of rank 4 come channels-last.
struct Case {
  Net net;
  Feeds feeds;
  Random& r;
  DType type;
  Shape shape;
  ValueId x = kNone;

  Case(Random& random, DType type_, Shape shape_) : r(random), type(type_), shape(std::move(shape_)) {
    const bool last = shape.size() == 4 && r.chance(2);
    const Shape given = last ? Shape{shape[0], shape[2], shape[3], shape[1]} : shape;
    x = net.input(type, given);
    feeds[x] = random_tensor(r, type, given);
    if (last) x = net.add("Transpose", {x}, {{"perm", std::vector<int64_t>{0, 3, 1, 2}}});
  }
  ValueId feed(Tensor t) {
    const ValueId id = net.input(t.dtype(), t.shape());
    feeds[id] = std::move(t);
    return id;
  }
  void check() {
    SCOPED_TRACE(testing::Message() << name_of(type) << to_string(shape));
    expect_as_cpu(net.graph(), feeds, 0);
    cuda::wide_indices() = true;
    expect_as_cpu(net.graph(), feeds, 0);
    cuda::wide_indices() = false;
  }
};

DType pick_type(Random& r) { return kMoved[static_cast<size_t>(r.in(0, static_cast<int64_t>(kMoved.size()) - 1))]; }

std::vector<int64_t> random_perm(Random& r, int64_t rank) {
  std::vector<int64_t> perm;
  for (int64_t i = 0; i < rank; ++i) perm.insert(perm.begin() + r.in(0, i), i);
  return perm;
}

TEST(CudaMoves, TransposeAsTheCpu) {
  Random r(11);
  for (int i = 0; i < 60 && !testing::Test::HasFatalFailure(); ++i) {
    Case c(r, pick_type(r), random_shape(r, r.in(1, 5), 20));
    c.net.output(c.net.add("Transpose", {c.x}, {{"perm", random_perm(r, static_cast<int64_t>(c.shape.size()))}}));
    c.check();
  }
}

TEST(CudaMoves, TransposeOfLargeMatricesCrossesTiles) {
  Random r(12);
  for (const DType type : {DType::U8, DType::F16, DType::F32, DType::I64}) {
    for (const Shape& shape : {Shape{130, 260}, Shape{3, 65, 2, 129}, Shape{1, 128, 256}}) {
      Case c(r, type, shape);
      std::vector<int64_t> perm{1, 0};
      if (shape.size() == 3) perm = {0, 2, 1};
      if (shape.size() == 4) perm = {2, 3, 0, 1};
      c.net.output(c.net.add("Transpose", {c.x}, {{"perm", perm}}));
      c.check();
    }
  }
}

TEST(CudaMoves, TransposeReversesWithoutPerm) {
  Random r(13);
  Case c(r, DType::F32, {2, 3, 4, 5, 2, 3, 2, 2, 3});  // more axes than a kernel takes
  c.net.output(c.net.add("Transpose", {c.x}));
  c.check();
}

TEST(CudaMoves, SliceAsTheCpu) {
  Random r(14);
  for (int i = 0; i < 60 && !testing::Test::HasFatalFailure(); ++i) {
    Case c(r, pick_type(r), random_shape(r, r.in(1, 4), 20));
    const auto rank = static_cast<int64_t>(c.shape.size());
    std::vector<int64_t> axes = random_perm(r, rank), starts, ends, steps;
    axes.resize(static_cast<size_t>(r.in(1, rank)));
    for (size_t k = 0; k < axes.size(); ++k) {
      starts.push_back(r.in(-22, 22)), ends.push_back(r.in(-22, 22)), steps.push_back(r.pick<int64_t>({1, 1, 2, -1, -3}));
      if (r.chance(2)) starts.back() = steps.back() > 0 ? 0 : 100, ends.back() = steps.back() > 0 ? 100 : -100;
    }
    c.net.output(c.net.add("Slice", {c.x, c.net.integers(starts), c.net.integers(ends), c.net.integers(axes), c.net.integers(steps)}));
    c.check();
  }
}

TEST(CudaMoves, ConcatAndSplitAsTheCpu) {
  Random r(15);
  for (int i = 0; i < 60 && !testing::Test::HasFatalFailure(); ++i) {
    Case c(r, pick_type(r), random_shape(r, r.in(1, 4), 20));
    const auto rank = static_cast<int64_t>(c.shape.size()), axis = r.in(-rank, rank - 1);
    const auto at = static_cast<size_t>(axis < 0 ? axis + rank : axis);
    std::vector<ValueId> parts{c.x};
    while (r.chance(2)) {
      Shape other = c.shape;
      other[at] = r.in(0, 9);
      parts.insert(parts.begin() + r.in(0, static_cast<int64_t>(parts.size())), c.feed(random_tensor(r, c.type, other)));
    }
    c.net.output(c.net.add("Concat", parts, {{"axis", axis}}));
    const int64_t first = r.in(0, c.shape[at]), second = r.in(0, c.shape[at] - first);
    const NodeId split = c.net.add_node("Split", {c.x, c.net.integers({first, second, c.shape[at] - first - second})}, 3, {{"axis", axis}});
    for (const ValueId v : std::vector<ValueId>(c.net.edit()->node(split).outputs)) c.net.output(v);
    c.check();
  }
}

TEST(CudaMoves, SplitInEqualPartsByItsOpset) {
  Random r(16);
  for (const int64_t opset : {11, 13, 18}) {
    Net net(opset);
    const ValueId x = net.input(DType::F32, {3, opset == 18 ? 7 : 8});
    const NodeId split = net.add_node("Split", {x}, 4, opset == 18 ? Attributes{{"axis", int64_t{1}}, {"num_outputs", int64_t{4}}} : Attributes{{"axis", int64_t{1}}});
    for (const ValueId v : std::vector<ValueId>(net.edit()->node(split).outputs)) net.output(v);
    expect_as_cpu(net.graph(), {{x, random_tensor(r, DType::F32, {3, opset == 18 ? 7 : 8})}}, 0);
  }
}

TEST(CudaMoves, ExpandAndTileAsTheCpu) {
  Random r(17);
  for (int i = 0; i < 40 && !testing::Test::HasFatalFailure(); ++i) {
    Case c(r, pick_type(r), random_shape(r, r.in(1, 4), 9));
    std::vector<int64_t> to, repeats;
    for (const int64_t n : c.shape) to.push_back(n == 1 ? r.in(1, 9) : r.pick<int64_t>({1, n})), repeats.push_back(r.in(1, 3));
    if (r.chance(3)) to.insert(to.begin(), r.in(1, 3));
    c.net.output(c.net.add("Expand", {c.x, c.net.integers(to)}));
    c.net.output(c.net.add("Tile", {c.x, c.net.integers(repeats)}));
    c.check();
  }
}

TEST(CudaMoves, PadAsTheCpu) {
  Random r(18);
  for (int i = 0; i < 80 && !testing::Test::HasFatalFailure(); ++i) {
    Case c(r, pick_type(r), random_shape(r, r.in(1, 4), 17));
    std::vector<int64_t> axes = random_perm(r, static_cast<int64_t>(c.shape.size())), pads;
    axes.resize(static_cast<size_t>(r.in(1, static_cast<int64_t>(c.shape.size()))));
    for (size_t k = 0; k < axes.size(); ++k) pads.push_back(r.in(c.shape[static_cast<size_t>(axes[k])] > 2 ? -1 : 0, 4));
    for (size_t k = 0; k < axes.size(); ++k) pads.push_back(r.in(c.shape[static_cast<size_t>(axes[k])] > 2 ? -1 : 0, 20));
    std::vector<ValueId> inputs{c.x, c.net.integers(pads), kNone, c.net.integers(axes)};
    const std::string mode = r.pick<std::string>({"constant", "constant", "edge", "reflect", "wrap"});
    if (mode == "constant" && r.chance(2)) inputs[2] = r.chance(2) ? c.feed(random_tensor(r, c.type, {})) : c.net.constant(random_tensor(r, c.type, {1}));
    c.net.output(c.net.add("Pad", inputs, {{"mode", mode}}));
    c.check();
  }
}

TEST(CudaMoves, PadByAttributesAndCenterCropPad) {
  Random r(19);
  Net net(10);
  const ValueId x = net.input(DType::F32, {2, 3, 5, 4});
  net.output(net.add("Pad", {x}, {{"pads", std::vector<int64_t>{0, 0, 1, -1, 0, 1, 2, 3}}, {"value", 2.5f}}));
  expect_as_cpu(net.graph(), {{x, random_tensor(r, DType::F32, {2, 3, 5, 4})}}, 0);
  Case c(r, DType::U8, {2, 8, 5, 16});
  c.net.output(c.net.add("CenterCropPad", {c.x, c.net.integers({9, 11})}, {{"axes", std::vector<int64_t>{2, 3}}}));
  c.check();
}

/// Indices of either sign.
Tensor random_indices(Random& r, const Shape& shape, int64_t n) {
  Tensor t(r.pick({DType::I32, DType::I64}), shape);
  for (int64_t i = 0; i < t.size(); ++i) {
    if (t.dtype() == DType::I32) t.mutable_data<int32_t>()[i] = static_cast<int32_t>(r.in(-n, n - 1));
    else t.mutable_data<int64_t>()[i] = r.in(-n, n - 1);
  }
  return t;
}

TEST(CudaMoves, GatherAndGatherElementsAsTheCpu) {
  Random r(20);
  for (int i = 0; i < 50 && !testing::Test::HasFatalFailure(); ++i) {
    Case c(r, pick_type(r), random_shape(r, r.in(1, 4), 17));
    const auto rank = static_cast<int64_t>(c.shape.size()), axis = r.in(-rank, rank - 1);
    const auto at = static_cast<size_t>(axis < 0 ? axis + rank : axis);
    c.net.output(c.net.add("Gather", {c.x, c.feed(random_indices(r, random_shape(r, r.in(0, 2), 7), c.shape[at]))}, {{"axis", axis}}));
    Shape box;
    for (size_t d = 0; d < c.shape.size(); ++d) box.push_back(d == at ? r.in(0, 9) : r.in(1, c.shape[d]));
    c.net.output(c.net.add("GatherElements", {c.x, c.feed(random_indices(r, box, c.shape[at]))}, {{"axis", axis}}));
    c.check();
  }
}

/// Tuples into the axes of `data` from `batch` on.
Tensor random_tuples(Random& r, const Shape& data, size_t batch, Shape shape, int64_t width) {
  shape.push_back(width);
  Tensor t(DType::I64, shape);
  for (int64_t i = 0; i < t.size(); ++i) {
    const int64_t n = data[batch + static_cast<size_t>(i % width)];
    t.mutable_data<int64_t>()[i] = r.in(-n, n - 1);
  }
  return t;
}

TEST(CudaMoves, GatherNDAsTheCpu) {
  Random r(21);
  for (int i = 0; i < 40 && !testing::Test::HasFatalFailure(); ++i) {
    Case c(r, pick_type(r), random_shape(r, r.in(2, 4), 9));
    const auto batch = static_cast<size_t>(r.in(0, 1));
    Shape shape(c.shape.begin(), c.shape.begin() + static_cast<ptrdiff_t>(batch));
    shape.push_back(r.in(1, 6));
    const int64_t width = r.in(1, static_cast<int64_t>(c.shape.size() - batch));
    c.net.output(c.net.add("GatherND", {c.x, c.feed(random_tuples(r, c.shape, batch, shape, width))}, {{"batch_dims", static_cast<int64_t>(batch)}}));
    c.check();
  }
}

TEST(CudaMoves, ScattersKeepTheLastOfEqualIndices) {
  Random r(22);
  for (int i = 0; i < 50 && !testing::Test::HasFatalFailure(); ++i) {
    const std::string reduction = r.pick<std::string>({"none", "none", "add", "mul", "min", "max"});
    const DType type = reduction == "none" ? pick_type(r) : reduction[0] != 'm' || reduction == "mul" ? r.pick({DType::I32, DType::I64}) : r.pick({DType::F32, DType::I32, DType::F64});
    Case c(r, type, random_shape(r, r.in(1, 4), 9));
    if (is_float(type))
      for (auto& [id, t] : c.feeds) t = cast(random_tensor(r, DType::I8, t.shape()), type);
    const auto updates = [&](const Shape& shape) { return c.feed(is_float(type) ? cast(random_tensor(r, DType::I8, shape), type) : random_tensor(r, type, shape)); };
    const auto axis = static_cast<size_t>(r.in(0, static_cast<int64_t>(c.shape.size()) - 1));
    Shape box;
    for (size_t d = 0; d < c.shape.size(); ++d) box.push_back(d == axis ? r.in(0, 9) : r.in(1, c.shape[d]));
    c.net.output(c.net.add("ScatterElements", {c.x, c.feed(random_indices(r, box, c.shape[axis])), updates(box)}, {{"axis", static_cast<int64_t>(axis)}, {"reduction", reduction}}));
    const int64_t width = r.in(1, static_cast<int64_t>(c.shape.size()));
    const Shape tuples = random_shape(r, r.in(0, 2), 6);
    Shape slices = tuples;
    slices.insert(slices.end(), c.shape.begin() + width, c.shape.end());
    c.net.output(c.net.add("ScatterND", {c.x, c.feed(random_tuples(r, c.shape, 0, tuples, width)), updates(slices)}, {{"reduction", reduction}}));
    c.check();
  }
}

TEST(CudaMoves, AnIndexOutOfRangeIsMalformed) {
  for (const char* op : {"Gather", "GatherElements"}) {
    Net net;
    const ValueId x = net.input(DType::F32, {5}), i = net.input(DType::I64, {2});
    net.output(net.add(op, {x, i}));
    try {
      run_cuda(net.graph(), {{x, Tensor::zeros(DType::F32, {5})}, {i, Tensor::of<int64_t>({2}, {1, 5})}});
      ADD_FAILURE() << "it ran";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Malformed);
    }
    EXPECT_NO_THROW(run_cuda(net.graph(), {{x, Tensor::zeros(DType::F32, {5})}, {i, Tensor::of<int64_t>({2}, {1, -5})}}));
  }
}

TEST(CudaMoves, SumsOfFloatsByScatterStayOnTheCpu) {
  Net net;
  const ValueId x = net.input(DType::F32, {5}), i = net.input(DType::I64, {2}), u = net.input(DType::F32, {2});
  net.output(net.add("ScatterElements", {x, i, u}, {{"reduction", std::string("add")}}));
  SessionOptions options;
  options.device = cuda_device();
  EXPECT_NE(Session(net.graph(), options).plan().at(0).refusal.find("order"), std::string::npos);
}

TEST(CudaMoves, BlocksToAndFromDepth) {
  Random r(23);
  for (int i = 0; i < 20 && !testing::Test::HasFatalFailure(); ++i) {
    const int64_t b = r.in(1, 3);
    Case c(r, pick_type(r), {r.in(1, 2), b * b * r.in(1, 5), b * r.in(1, 4), b * r.in(1, 7)});
    c.net.output(c.net.add("DepthToSpace", {c.x}, {{"blocksize", b}, {"mode", r.pick<std::string>({"DCR", "CRD"})}}));
    c.net.output(c.net.add("SpaceToDepth", {c.x}, {{"blocksize", b}}));
    c.check();
  }
}

TEST(CudaMoves, TriangleEyeOneHotRangeAndFill) {
  Random r(24);
  for (int i = 0; i < 20 && !testing::Test::HasFatalFailure(); ++i) {
    Case c(r, pick_type(r), random_shape(r, 2, 20));
    c.net.output(c.net.add("Trilu", {c.x, c.net.constant(Tensor::scalar<int64_t>(r.in(-5, 5)))}, {{"upper", r.in(0, 1)}}));
    c.net.output(c.net.add("EyeLike", {c.x}, {{"dtype", int64_t{1}}, {"k", r.in(-5, 5)}}));
    const ValueId n = c.feed(Tensor::vector<int64_t>({r.in(0, 40), r.in(1, 5)}));
    c.net.output(c.net.add("ConstantOfShape", {n}, {{"value", random_tensor(r, c.type, {1})}}));
    c.net.output(c.net.add("OneHot", {c.feed(random_indices(r, random_shape(r, r.in(1, 2), 6), 9)), c.net.integers({7}), c.feed(random_tensor(r, c.type, {2}))}, {{"axis", r.in(-1, 1)}}));
    c.net.output(c.net.add("Range", {c.feed(Tensor::scalar(r.real(-3, 3))), c.feed(Tensor::scalar(r.real(3, 9))), c.net.number(0.03f)}));
    c.net.output(c.net.add("Range", {c.feed(Tensor::scalar<int64_t>(9)), c.feed(Tensor::scalar<int64_t>(r.in(-9, 9))), c.net.constant(Tensor::scalar<int64_t>(-2))}));
    c.check();
  }
}

TEST(CudaMoves, EmptyTensorsMove) {
  Random r(25);
  Case c(r, DType::F32, {0, 3, 4});
  c.net.output(c.net.add("Transpose", {c.x}));
  c.net.output(c.net.add("Slice", {c.x, c.net.integers({1}), c.net.integers({2}), c.net.integers({1})}));
  c.net.output(c.net.add("Tile", {c.x, c.net.integers({2, 1, 2})}));
  c.net.output(c.net.add("Gather", {c.x, c.feed(Tensor::vector<int64_t>({2, 1}))}, {{"axis", int64_t{1}}}));
  c.check();
}

}  // namespace
}  // namespace infopt::test

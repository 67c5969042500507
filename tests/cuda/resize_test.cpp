// Resize and Upsample on the CUDA device, in both layouts, beside the CPU's.
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

Tensor reals(Random& r, DType type, const Shape& shape) {
  if (type == DType::U8 || type == DType::I8) return random_codes(r, type, shape);
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(-4, 4);
  return cast(t, type);
}

ValueId image(Random& r, Net& net, Feeds& feeds, DType type, const Shape& shape) {
  const bool last = shape.size() == 4 && r.chance(2);
  const Shape given = last ? Shape{shape[0], shape[2], shape[3], shape[1]} : shape;
  const ValueId x = net.input(type, given);
  feeds[x] = reals(r, type, given);
  return last ? net.add("Transpose", {x}, {{"perm", std::vector<int64_t>{0, 3, 1, 2}}}) : x;
}

TEST(CudaResize, AsTheCpu) {
  Random r(61);
  for (int i = 0; i < 200 && !testing::Test::HasFatalFailure(); ++i) {
    Net net;
    Feeds feeds;
    const std::string mode = r.pick<std::string>({"nearest", "linear", "linear", "cubic"});
    const DType type = mode == "nearest" ? r.pick({DType::F32, DType::U8, DType::F16, DType::F64}) : r.pick({DType::F32, DType::F32, DType::F16, DType::BF16, DType::F64, DType::U8, DType::I8});
    const int64_t rank = r.in(2, 5);
    Shape shape{r.in(1, 2), r.pick<int64_t>({1, 3, 8, 16})};
    while (static_cast<int64_t>(shape.size()) < rank) shape.push_back(r.in(1, 8));
    std::vector<float> scales(shape.size(), 1.0f);
    for (size_t d = rank > 3 ? 2 : 1; d < shape.size(); ++d) scales[d] = r.chance(5) ? 1.0f : r.real(0.6f, 3.0f);
    const std::string coordinates = r.pick<std::string>({"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize"});
    Attributes a{{"mode", mode}, {"coordinate_transformation_mode", coordinates}, {"extrapolation_value", 7.0f}};
    if (mode == "nearest") a.push_back({"nearest_mode", r.pick<std::string>({"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"})});
    else if (r.chance(3)) a.push_back({"antialias", int64_t{1}});
    if (mode == "cubic") a.push_back({"exclude_outside", r.in(0, 1)});
    std::vector<ValueId> inputs{image(r, net, feeds, type, shape), kNone, net.constant(Tensor::vector(scales))};
    if (coordinates == "tf_crop_and_resize") {
      std::vector<float> roi(2 * shape.size(), 0.0f);
      for (size_t d = 0; d < shape.size(); ++d) roi[d] = d < 2 ? 0 : r.real(0, 0.3f), roi[d + shape.size()] = d < 2 ? 1 : r.real(0.7f, 1.2f);
      inputs[1] = net.constant(Tensor::vector(roi));
    }
    net.output(net.add("Resize", inputs, a));
    SCOPED_TRACE(testing::Message() << mode << " " << coordinates << " " << name_of(type) << to_string(shape));
    expect_as_cpu(net.graph(), feeds, type == DType::BF16 ? 1e-2 : type == DType::F16 ? 1e-3 : 1e-6);
  }
}

TEST(CudaResize, ToSizesOfSomeAxes) {
  Random r(62);
  for (const char* policy : {"stretch", "not_larger", "not_smaller"}) {
    Net net;
    Feeds feeds;
    const ValueId x = image(r, net, feeds, DType::F32, {1, 3, 7, 5});
    net.output(net.add("Resize", {x, kNone, kNone, net.integers({9, 12})}, {{"mode", std::string("linear")}, {"axes", std::vector<int64_t>{2, 3}}, {"keep_aspect_ratio_policy", std::string(policy)}}));
    expect_as_cpu(net.graph(), feeds, 1e-6);
  }
}

TEST(CudaResize, UpsampleOfEveryOpset) {
  Random r(63);
  for (const int64_t opset : {8, 9}) {
    Net net(opset);
    Feeds feeds;
    const ValueId x = image(r, net, feeds, DType::F32, {1, 4, 3, 5});
    const std::vector<float> scales{1, 1, 2, 2};
    net.output(opset == 8 ? net.add("Upsample", {x}, {{"scales", scales}}) : net.add("Upsample", {x, net.constant(Tensor::vector(scales))}, {{"mode", std::string("linear")}}));
    expect_as_cpu(net.graph(), feeds, 1e-6);
  }
}

}  // namespace
}  // namespace infopt::test

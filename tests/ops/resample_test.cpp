// Operators that resample images and pick boxes. Expected values: ONNX Runtime 1.32 on the same inputs (np.arange, unless written out).
#include "tests/ops/data_harness.h"

namespace infopt::test {
namespace {

const Tensor kNothing;

TEST(Resize, InterpolatesLinearly) {
  const Tensor x = counted({1, 1, 2, 3}), sizes = longs({4}, {1, 1, 3, 5});
  expect_tensor(run_op("Resize", 19, {x, kNothing, kNothing, sizes}, {text("mode", "linear")})[0], {1, 1, 3, 5},
                {0, 0.4, 1, 1.6, 2, 1.5, 1.9, 2.5, 3.1, 3.5, 3, 3.4, 4, 4.6, 5}, 1e-5);
  expect_tensor(run_op("Resize", 19, {x, kNothing, kNothing, sizes},
                       {text("mode", "linear"), text("coordinate_transformation_mode", "align_corners")})[0],
                {1, 1, 3, 5}, {0, 0.5, 1, 1.5, 2, 1.5, 2, 2.5, 3, 3.5, 3, 3.5, 4, 4.5, 5}, 1e-5);
  expect_tensor(run_op("Resize", 19, {counted({1, 1, 5, 5}), kNothing, kNothing, longs({4}, {1, 1, 2, 3})},
                       {text("mode", "linear"), text("coordinate_transformation_mode", "pytorch_half_pixel")})[0],
                {1, 1, 2, 3}, {4.08333, 5.75, 7.41667, 16.5833, 18.25, 19.9167}, 1e-4);
}

TEST(Resize, InterpolatesVolumesAndDoubles) {
  for (const DType dtype : {DType::F32, DType::F64, DType::F16})
    expect_tensor(run_op("Resize", 19, {counted({1, 1, 2, 2, 2}, dtype), kNothing, kNothing, longs({5}, {1, 1, 3, 3, 3})},
                         {text("mode", "linear")})[0],
                  {1, 1, 3, 3, 3}, {0, 0.5, 1, 1, 1.5, 2, 2, 2.5, 3, 2, 2.5, 3, 3, 3.5, 4, 4, 4.5, 5, 4, 4.5, 5, 5, 5.5, 6, 6, 6.5, 7},
                  1e-5);
}

TEST(Resize, InterpolatesCubically) {
  expect_tensor(run_op("Resize", 19, {counted({1, 1, 2, 3}), kNothing, kNothing, longs({4}, {1, 1, 3, 5})}, {text("mode", "cubic")})[0],
                {1, 1, 3, 5},
                {-0.356417, 0.055583, 0.739584, 1.423584, 1.835585, 1.404001, 1.816, 2.5, 3.184, 3.596001, 3.164419, 3.576417, 4.260418,
                 4.944419, 5.356421},
                1e-5);
  expect_tensor(run_op("Resize", 19, {floats({1, 1, 1, 5}, {0, 1, 4, 9, 16}), kNothing, floats({4}, {1, 1, 1, 1.6F})},
                       {text("mode", "cubic"), attribute("exclude_outside", int64_t{1}), attribute("cubic_coeff_a", -0.5F)})[0],
                {1, 1, 1, 8}, {-0.0719557, 0.243749, 1.12891, 2.84766, 5.34766, 8.62891, 13.4882, 16.5037}, 1e-4);
}

TEST(Resize, WidensTheFilterWithAntialias) {
  const std::vector<Tensor> inputs{counted({1, 1, 4, 4}), kNothing, floats({4}, {1, 1, 0.6F, 0.6F})};
  expect_tensor(run_op("Resize", 18, inputs, {text("mode", "linear"), attribute("antialias", int64_t{1})})[0], {1, 1, 2, 2},
                {1.875, 3.5, 8.375001, 10}, 1e-5);
  expect_tensor(run_op("Resize", 18, inputs, {text("mode", "cubic"), attribute("antialias", int64_t{1})})[0], {1, 1, 2, 2},
                {1.518071, 3.285886, 8.589329, 10.357144}, 1e-5);
}

TEST(Resize, PicksTheNearestByEveryRule) {
  const struct {
    const char* rule;
    std::vector<double> expected;
  } cases[] = {{"round_prefer_floor", {0, 0, 1, 1, 2, 3, 3}},
               {"round_prefer_ceil", {0, 0, 1, 2, 2, 3, 3}},
               {"floor", {0, 0, 0, 1, 2, 2, 3}},
               {"ceil", {0, 1, 1, 2, 3, 3, 3}}};
  for (const auto& c : cases)
    expect_tensor(run_op("Resize", 19, {counted({1, 1, 1, 4}), kNothing, kNothing, longs({4}, {1, 1, 1, 7})},
                         {text("mode", "nearest"), text("nearest_mode", c.rule)})[0],
                  {1, 1, 1, 7}, c.expected);
}

TEST(Resize, CutsIntegersTowardZero) {
  const Tensor sizes = longs({4}, {1, 1, 1, 7});
  expect_tensor(
      run_op("Resize", 19, {cast(floats({1, 1, 1, 3}, {-7, 3, 9}), DType::I8), kNothing, kNothing, sizes}, {text("mode", "linear")})[0],
      {1, 1, 1, 7}, {-7, -5, -1, 3, 5, 8, 9});
  expect_tensor(
      run_op("Resize", 19, {cast(floats({1, 1, 1, 3}, {200, 3, 9}), DType::U8), kNothing, kNothing, sizes}, {text("mode", "linear")})[0],
      {1, 1, 1, 7}, {200, 171, 87, 3, 5, 8, 9});
}

TEST(Resize, OldOpsetsTakeScalesOnly) {
  expect_tensor(run_op("Upsample", 9, {counted({1, 2, 2, 3}), floats({4}, {1, 1, 1.5F, 2})}, {text("mode", "nearest")})[0], {1, 2, 3, 6},
                {0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11});
  expect_tensor(
      run_op("Upsample", 7, {counted({1, 1, 2, 3})}, {text("mode", "linear"), attribute("scales", std::vector<float>{1, 1, 2, 2})})[0],
      {1, 1, 4, 6}, {0, 0.5, 1, 1.5, 2, 2, 1.5, 2, 2.5, 3, 3.5, 3.5, 3, 3.5, 4, 4.5, 5, 5, 3, 3.5, 4, 4.5, 5, 5}, 1e-6);
  expect_tensor(run_op("Resize", 10, {counted({1, 1, 1, 5}), floats({4}, {1, 1, 1, 0.6F})})[0], {1, 1, 1, 3}, {0, 2, 4});
}

TEST(Resize, RefusesWhatHasNoMeaning) {
  const Tensor x = counted({1, 1, 2, 2});
  const std::vector<std::vector<Tensor>> bad{
      {x, kNothing, floats({4}, {1, 1, 0, 1})},           {x, kNothing, floats({4}, {1, 1, NAN, 1})},   {x, kNothing, floats({2}, {1, 1})},
      {x, kNothing, kNothing, longs({4}, {1, 1, -2, 2})}, {x, kNothing, floats({4}, {1, 1, 1e30F, 1})}, {x}};
  for (const auto& inputs : bad) EXPECT_EQ(kind_of_error([&] { run_op("Resize", 19, inputs); }), ErrorKind::Malformed);
}

TEST(GridSample, FollowsModeBorderAndCorners) {
  const Tensor x = counted({1, 1, 3, 4}), grid = floats({1, 2, 2, 2}, {-1.3F, -0.9F, 0.1F, 0.2F, 0.77F, 1.6F, -3.4F, 2.9F});
  const struct {
    const char *mode, *border;
    int64_t corners;
    std::vector<double> expected;
  } cases[] = {
      {"linear", "zeros", 0, {0, 6.9, 0, 0}},
      {"linear", "zeros", 1, {0.22, 6.45, 4.262, 0}},
      {"linear", "border", 0, {0, 6.9, 11, 8}},
      {"linear", "border", 1, {0.4, 6.45, 10.655, 8}},
      {"linear", "reflection", 0, {0.0999999, 6.9, 9.4, 2.7}},
      {"linear", "reflection", 1, {0.85, 6.45, 8.255, 2.8}},
      {"nearest", "zeros", 0, {0, 6, 0, 0}},
      {"nearest", "zeros", 1, {0, 6, 0, 0}},
      {"nearest", "border", 0, {0, 6, 11, 8}},
      {"nearest", "border", 1, {0, 6, 11, 8}},
      {"nearest", "reflection", 0, {0, 6, 11, 3}},
      {"nearest", "reflection", 1, {0, 6, 7, 2}},
      {"cubic", "zeros", 0, {0.02695, 7.67134, -1.15396, 0}},
      {"cubic", "zeros", 1, {0.059117, 6.93466, 4.95738, 0}},
      {"cubic", "border", 0, {-0.443624, 7.21499, 11.0277, 8}},
      {"cubic", "border", 1, {0.198907, 6.70388, 11.019, 8}},
      {"cubic", "reflection", 0, {-0.607249, 7.21499, 9.7648, 2.08575}},
      {"cubic", "reflection", 1, {0.316189, 6.79988, 9.11399, 2.626}},
  };
  for (const auto& c : cases)
    expect_tensor(run_op("GridSample", 20, {x, grid},
                         {text("mode", c.mode), text("padding_mode", c.border), attribute("align_corners", c.corners)})[0],
                  {1, 1, 2, 2}, c.expected, 1e-4);
}

TEST(GridSample, SurvivesCoordinatesThatAreNotFinite) {
  for (const char* border : {"zeros", "border", "reflection"})
    EXPECT_EQ(run_op("GridSample", 20, {counted({1, 1, 3, 4}), floats({1, 1, 2, 2}, {NAN, 1, INFINITY, -INFINITY})},
                     {text("padding_mode", border)})[0]
                  .size(),
              2);
}

TEST(NonMaxSuppression, KeepsTheBestOfOverlappingBoxes) {
  const Tensor boxes =
      floats({1, 6, 4}, {0, 0, 1, 1, 0, 0.1F, 1, 1.1F, 0, -0.1F, 1, 0.9F, 0, 10, 1, 11, 0, 10.1F, 1, 11.1F, 0, 100, 1, 101});
  const Tensor scores = floats({1, 1, 6}, {0.9F, 0.75F, 0.6F, 0.95F, 0.5F, 0.3F});
  expect_tensor(run_op("NonMaxSuppression", 11, {boxes, scores, longs({1}, {3}), floats({1}, {0.5F}), floats({1}, {0.4F})})[0], {2, 3},
                {0, 0, 3, 0, 0, 0});
  expect_tensor(run_op("NonMaxSuppression", 11, {boxes, scores})[0], {0, 3}, {});
}

TEST(RoiAlign, AveragesRegions) {
  const std::vector<Tensor> inputs{counted({1, 1, 4, 4}), floats({2, 4}, {0, 0, 3, 3, 1, 0.5F, 3.5F, 2}), longs({2}, {0, 0})};
  const Attributes size{attribute("output_height", int64_t{2}), attribute("output_width", int64_t{2})};
  expect_tensor(run_op("RoiAlign", 16, inputs, size)[0], {2, 1, 2, 2}, {1.5625, 3, 7.3125, 8.75, 2.625, 3.875, 5.625, 6.875}, 1e-5);
  expect_tensor(run_op("RoiAlign", 10, inputs, size)[0], {2, 1, 2, 2}, {3.75, 5.25, 9.75, 11.25, 5.125, 6.28125, 8.125, 9.28125}, 1e-5);
  EXPECT_EQ(kind_of_error([&] { run_op("RoiAlign", 16, {inputs[0], inputs[1], longs({2}, {0, 1})}, size); }), ErrorKind::Malformed);
  expect_tensor(run_op("MaxRoiPool", 11, {inputs[0], floats({2, 5}, {0, 0, 0, 3, 3, 0, 1, 1, 3, 2})}, {ints("pooled_shape", {2, 2})})[0],
                {2, 1, 2, 2}, {5, 7, 13, 15, 6, 7, 10, 11});
}

TEST(MaxUnpool, PutsElementsBack) {
  const Attributes window{ints("kernel_shape", {2}), ints("strides", {2})};
  expect_tensor(run_op("MaxUnpool", 11, {floats({1, 1, 2}, {5, 7}), longs({1, 1, 2}, {1, 2})}, window)[0], {1, 1, 4}, {0, 5, 7, 0});
  EXPECT_EQ(kind_of_error([&] {
              run_op("MaxUnpool", 11, {floats({1, 1, 2}, {5, 7}), longs({1, 1, 2}, {1, 4})}, window);
            }),
            ErrorKind::Malformed);
}

}  // namespace
}  // namespace infopt::test

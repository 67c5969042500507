// Operators that move elements. Expected values: NumPy 2, by the expression beside each case, unless it says otherwise.
#include "tests/ops/data_harness.h"

namespace infopt::test {
namespace {

constexpr int64_t kBig = std::numeric_limits<int64_t>::max();

TEST(Reshape, InfersOneDimensionAndCopiesZeros) {
  EXPECT_EQ(run_op("Reshape", 14, {counted({2, 3, 4}), Tensor::vector<int64_t>({0, -1, 2})})[0].shape(), Shape({2, 6, 2}));
  EXPECT_EQ(run_op("Reshape", 14, {counted({0, 3}), Tensor::vector<int64_t>({3, 0})}, {attribute("allowzero", int64_t{1})})[0].shape(),
            Shape({3, 0}));
}

TEST(Reshape, RefusesShapesThatDontFit) {
  for (const std::vector<int64_t>& to : {std::vector<int64_t>{5, -1}, {-1, -1}, {-2, 3}, {7}, {kBig, kBig}, {2, 3, 4, 0}})
    EXPECT_EQ(kind_of_error([&] {
                run_op("Reshape", 14, {counted({2, 3, 4}), Tensor::vector(to)});
              }),
              ErrorKind::Malformed)
        << to_string(to);
}

TEST(Shape, GivesARangeOfDimensions) {
  expect_tensor(run_op("Shape", 15, {counted({2, 3, 4})}, {attribute("start", int64_t{-2}), attribute("end", int64_t{9})})[0], {2}, {3, 4});
  expect_tensor(run_op("Shape", 15, {counted({2, 3, 4})}, {attribute("start", int64_t{2}), attribute("end", int64_t{1})})[0], {0}, {});
}

TEST(Squeeze, TakesAxesAsAttributeOrInput) {
  EXPECT_EQ(run_op("Squeeze", 11, {counted({1, 3, 1})}, {ints("axes", {-1})})[0].shape(), Shape({1, 3}));
  EXPECT_EQ(run_op("Squeeze", 13, {counted({1, 3, 1}), Tensor::vector<int64_t>({0})})[0].shape(), Shape({3, 1}));
  EXPECT_EQ(run_op("Squeeze", 13, {counted({1, 3, 1})})[0].shape(), Shape({3}));
  EXPECT_EQ(kind_of_error([] { run_op("Squeeze", 13, {counted({1, 3, 1}), Tensor::vector<int64_t>({1})}); }), ErrorKind::Malformed);
  EXPECT_EQ(run_op("Unsqueeze", 13, {counted({3}), Tensor::vector<int64_t>({-1, 0})})[0].shape(), Shape({1, 3, 1}));
  EXPECT_EQ(kind_of_error([] { run_op("Unsqueeze", 13, {counted({3}), Tensor::vector<int64_t>({0, -3})}); }), ErrorKind::Malformed);
}

TEST(Transpose, WorksForEveryElementSize) {
  for (const DType dtype : {DType::U8, DType::F16, DType::F32, DType::I64, DType::Bool, DType::U4})
    EXPECT_EQ(to_vector<double>(cast(run_op("Transpose", 23, {cast(counted({2, 3}), dtype)})[0], DType::F32)),
              dtype == DType::Bool ? std::vector<double>({0, 1, 1, 1, 1, 1}) : std::vector<double>({0, 3, 1, 4, 2, 5}))
        << name_of(dtype);
  EXPECT_EQ(run_op("Transpose", 13, {strings({"a", "b", "c", "d"}).reshaped({2, 2})})[0].strings(),
            std::vector<std::string>({"a", "c", "b", "d"}));
}

/// The element at each place, computed by its definition.
TEST(Transpose, PermutesLargeTensorsOfAnyRank) {
  const Shape shape{3, 37, 5, 41};
  const Tensor x = counted(shape);
  for (std::vector<int64_t> perm :
       {std::vector<int64_t>{0, 2, 3, 1}, {0, 3, 1, 2}, {3, 2, 1, 0}, {0, 2, 1, 3}, {1, 0, 3, 2}, {0, 1, 3, 2}, {2, 3, 0, 1}}) {
    const Tensor y = run_op("Transpose", 13, {x}, {ints("perm", perm)})[0];
    const float* p = y.data<float>();
    int64_t wrong = 0, i[4];
    Shape out;
    for (const int64_t a : perm) out.push_back(shape[static_cast<size_t>(a)]);
    ASSERT_EQ(y.shape(), out);
    for (i[0] = 0; i[0] < out[0]; ++i[0])
      for (i[1] = 0; i[1] < out[1]; ++i[1])
        for (i[2] = 0; i[2] < out[2]; ++i[2])
          for (i[3] = 0; i[3] < out[3]; ++i[3]) {
            int64_t source[4];
            for (size_t d = 0; d < 4; ++d) source[perm[d]] = i[d];
            wrong += *p++ != static_cast<float>(((source[0] * 37 + source[1]) * 5 + source[2]) * 41 + source[3]);
          }
    EXPECT_EQ(wrong, 0) << to_string(perm);
  }
}

TEST(Transpose, RefusesBadPermutations) {
  for (const std::vector<int64_t>& perm : {std::vector<int64_t>{0}, {0, 0}, {0, 2}})
    EXPECT_EQ(kind_of_error([&] { run_op("Transpose", 13, {counted({2, 3})}, {ints("perm", perm)}); }), ErrorKind::Malformed);
}

TEST(Concat, JoinsAlongAnyAxis) {
  const Tensor a = counted({2, 1, 2}), b = counted({2, 2, 2});
  expect_tensor(run_op("Concat", 13, {a, b}, {attribute("axis", int64_t{-2})})[0], {2, 3, 2}, {0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 6, 7});
  EXPECT_EQ(run_op("Concat", 13, {strings({"x"}), strings({"y", "z"})}, {attribute("axis", int64_t{0})})[0].strings(),
            std::vector<std::string>({"x", "y", "z"}));
  EXPECT_EQ(kind_of_error([&] { run_op("Concat", 13, {a, b}, {attribute("axis", int64_t{0})}); }), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([&] { run_op("Concat", 13, {a, cast(b, DType::I32)}, {attribute("axis", int64_t{1})}); }), ErrorKind::Malformed);
}

TEST(Split, CutsBySizesOrEvenly) {
  const auto parts = run_op("Split", 18, {counted({2, 5})}, {attribute("axis", int64_t{1}), attribute("num_outputs", int64_t{3})}, 3);
  expect_tensor(parts[1], {2, 2}, {2, 3, 7, 8});
  expect_tensor(parts[2], {2, 1}, {4, 9});
  expect_tensor(run_op("Split", 11, {counted({3})}, {ints("split", {1, 2})}, 2)[1], {2}, {1, 2});
  EXPECT_EQ(kind_of_error([] { run_op("Split", 13, {counted({5})}, {}, 2); }), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([] { run_op("Split", 13, {counted({5}), Tensor::vector<int64_t>({6, -1})}, {}, 2); }), ErrorKind::Malformed);
}

TEST(Slice, FollowsNumpyForEveryStep) {
  struct Case {
    int64_t start, end, step;
    std::vector<double> expected;  // np.arange(5)[start:end:step]
  };
  for (const Case& s : {Case{1, 4, 1, {1, 2, 3}},
                        {-2, kBig, 1, {3, 4}},
                        {4, -kBig - 1, -2, {4, 2, 0}},
                        {kBig, 0, -1, {4, 3, 2, 1}},
                        {0, 5, 3, {0, 3}},
                        {3, 1, 1, {}},
                        {-9, 2, 1, {0, 1}},
                        {9, 9, -1, {}},
                        {4, 0, -kBig - 1, {4}},
                        {0, 5, kBig, {0}}})
    expect_tensor(run_op("Slice", 13, {counted({5}), longs({1}, {s.start}), longs({1}, {s.end}), longs({1}, {0}), longs({1}, {s.step})})[0],
                  {static_cast<int64_t>(s.expected.size())}, s.expected);
}

TEST(Slice, ReadsBoundsFromAttributesInOldOpsets) {
  expect_tensor(run_op("Slice", 9, {counted({3, 4})}, {ints("starts", {1, -3}), ints("ends", {3, -1}), ints("axes", {0, 1})})[0], {2, 2},
                {5, 6, 9, 10});
}

TEST(Slice, RefusesStepZeroAndBadAxes) {
  EXPECT_EQ(kind_of_error([] {
              run_op("Slice", 13, {counted({5}), longs({1}, {0}), longs({1}, {2}), longs({1}, {0}), longs({1}, {0})});
            }),
            ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([] {
              run_op("Slice", 13, {counted({5}), longs({1}, {0}), longs({1}, {2}), longs({1}, {1})});
            }),
            ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([] {
              run_op("Slice", 13, {counted({5}), longs({2}, {0, 0}), longs({2}, {2, 2}), longs({2}, {0, -1})});
            }),
            ErrorKind::Malformed);
}

TEST(ExpandAndTile, RepeatElements) {
  expect_tensor(run_op("Expand", 13, {counted({2, 1}), longs({3}, {2, 1, 2})})[0], {2, 2, 2}, {0, 0, 1, 1, 0, 0, 1, 1});
  expect_tensor(run_op("Tile", 13, {counted({1, 2}), longs({2}, {2, 2})})[0], {2, 4}, {0, 1, 0, 1, 0, 1, 0, 1});
  EXPECT_EQ(kind_of_error([] { run_op("Expand", 13, {counted({2}), longs({1}, {3})}); }), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([] { run_op("Tile", 13, {counted({2}), longs({1}, {-1})}); }), ErrorKind::Malformed);
}

TEST(Trilu, KeepsOneTriangle) {
  expect_tensor(run_op("Trilu", 14, {counted({2, 3}), Tensor::scalar<int64_t>(1)})[0], {2, 3}, {0, 1, 2, 0, 0, 5});
  expect_tensor(run_op("Trilu", 14, {counted({2, 3}), Tensor::scalar<int64_t>(-9)}, {attribute("upper", int64_t{0})})[0], {2, 3},
                {0, 0, 0, 0, 0, 0});
}

// ONNX Runtime 1.32 on np.arange(6).reshape(2, 3), pads [1, 2, 1, 1].
TEST(Pad, FollowsEachMode) {
  const struct {
    const char* mode;
    std::vector<double> expected;
  } cases[] = {{"reflect", {5, 4, 3, 4, 5, 4, 2, 1, 0, 1, 2, 1, 5, 4, 3, 4, 5, 4, 2, 1, 0, 1, 2, 1}},
               {"edge", {0, 0, 0, 1, 2, 2, 0, 0, 0, 1, 2, 2, 3, 3, 3, 4, 5, 5, 3, 3, 3, 4, 5, 5}},
               {"wrap", {4, 5, 3, 4, 5, 3, 1, 2, 0, 1, 2, 0, 4, 5, 3, 4, 5, 3, 1, 2, 0, 1, 2, 0}}};
  for (const auto& c : cases)
    expect_tensor(run_op("Pad", 19, {counted({2, 3}), longs({4}, {1, 2, 1, 1})}, {text("mode", c.mode)})[0], {4, 6}, c.expected);
}

TEST(Pad, CropsByNegativePadsAndTakesAxes) {
  expect_tensor(run_op("Pad", 18, {counted({2, 3}), longs({2}, {-1, 2}), Tensor::scalar(7.0F), longs({1}, {-1})})[0], {2, 4},
                {1, 2, 7, 7, 4, 5, 7, 7});
  expect_tensor(run_op("Pad", 10, {counted({2})}, {ints("pads", {1, 0}), attribute("value", 9.0F)})[0], {3}, {9, 0, 1});
  EXPECT_EQ(kind_of_error([] { run_op("Pad", 18, {counted({3}), longs({2}, {-2, -2})}); }), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([] { run_op("Pad", 18, {counted({3}), longs({2}, {kBig, kBig})}); }), ErrorKind::Malformed);
}

// onnx 1.23's reference implementation (onnx.reference.ops.op_center_crop_pad) on np.arange(20).reshape(5, 4) and np.arange(4).
TEST(CenterCropPad, CropsAndPadsAboutTheMiddleForBothIndexTypes) {
  for (const DType index : {DType::I32, DType::I64}) {
    const auto shape = [&](std::vector<int64_t> v) { return cast(Tensor::vector(v), index); };
    expect_tensor(run_op("CenterCropPad", 18, {counted({5, 4}), shape({2, 7})})[0], {2, 7}, {0, 4, 5, 6, 7, 0, 0, 0, 8, 9, 10, 11, 0, 0});
    expect_tensor(run_op("CenterCropPad", 18, {counted({5, 4}), shape({1})}, {ints("axes", {-1})})[0], {5, 1}, {1, 5, 9, 13, 17});
    expect_tensor(run_op("CenterCropPad", 18, {counted({4}, DType::I16), shape({7})})[0], {7}, {0, 0, 1, 2, 3, 0, 0});
  }
  EXPECT_EQ(run_op("CenterCropPad", 18, {strings({"a", "b"}), longs({1}, {3})})[0].strings(), (std::vector<std::string>{"a", "b", ""}));
  EXPECT_EQ(run_op("CenterCropPad", 18, {counted({5, 4}), longs({2}, {0, 4})})[0].shape(), Shape({0, 4}));
  EXPECT_EQ(kind_of_error([] { run_op("CenterCropPad", 18, {counted({5, 4}), longs({1}, {2})}); }), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([] { run_op("CenterCropPad", 18, {counted({4}), longs({1}, {-2})}); }), ErrorKind::Malformed);
}

TEST(Gather, TakesEntriesAndNegativeIndices) {
  expect_tensor(run_op("Gather", 13, {counted({3, 2}), longs({2}, {-1, 0})})[0], {2, 2}, {4, 5, 0, 1});
  expect_tensor(run_op("Gather", 13, {counted({2, 3}), longs({1, 2}, {2, 1})}, {attribute("axis", int64_t{1})})[0], {2, 1, 2},
                {2, 1, 5, 4});
  expect_tensor(run_op("GatherElements", 13, {counted({2, 3}), longs({2, 2}, {0, -1, 2, 1})}, {attribute("axis", int64_t{1})})[0], {2, 2},
                {0, 2, 5, 4});
  expect_tensor(run_op("GatherND", 13, {counted({2, 3, 2}), longs({2, 1}, {1, -1})}, {attribute("batch_dims", int64_t{1})})[0], {2, 2},
                {2, 3, 10, 11});
  EXPECT_EQ(run_op("Gather", 13, {strings({"a", "b"}), longs({1}, {1})})[0].strings(), std::vector<std::string>({"b"}));
}

TEST(Gather, RefusesIndicesOutOfRange) {
  for (const char* op : {"Gather", "GatherElements", "GatherND"})
    for (const int64_t index : {int64_t{3}, int64_t{-4}, kBig})
      EXPECT_EQ(kind_of_error([&] { run_op(op, 13, {counted({3}), longs({1}, {index})}); }), ErrorKind::Malformed) << op << index;
}

TEST(Scatter, WritesAndCombines) {
  expect_tensor(
      run_op("ScatterElements", 18, {counted({4}), longs({3}, {1, 1, -1}), floats({3}, {5, 7, 9})}, {text("reduction", "add")})[0], {4},
      {0, 13, 2, 12});
  expect_tensor(run_op("ScatterElements", 18, {counted({4}), longs({2}, {1, 3}), floats({2}, {0, 9})}, {text("reduction", "max")})[0], {4},
                {0, 1, 2, 9});
  expect_tensor(run_op("ScatterND", 18, {counted({3, 2}), longs({1, 1}, {2}), floats({1, 2}, {8, 9})})[0], {3, 2}, {0, 1, 2, 3, 8, 9});
  EXPECT_EQ(kind_of_error([] {
              run_op("ScatterND", 18, {counted({3, 2}), longs({1, 1}, {3}), floats({1, 2}, {8, 9})});
            }),
            ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([] {
              run_op("ScatterND", 18, {counted({3, 2}), longs({1, 1}, {0}), floats({1, 1}, {8})});
            }),
            ErrorKind::Malformed);
}

TEST(OneHot, LeavesIndicesOutOfRangeOff) {
  expect_tensor(run_op("OneHot", 11, {longs({3}, {1, -1, 5}), Tensor::scalar<int64_t>(3), floats({2}, {2, 4})})[0], {3, 3},
                {2, 4, 2, 2, 2, 4, 2, 2, 2});
}

TEST(Range, CountsLikeArange) {
  expect_tensor(run_op("Range", 11, {Tensor::scalar<int64_t>(10), Tensor::scalar<int64_t>(4), Tensor::scalar<int64_t>(-4)})[0], {2},
                {10, 6});
  expect_tensor(run_op("Range", 11, {Tensor::scalar(1.0F), Tensor::scalar(2.1F), Tensor::scalar(0.5F)})[0], {3}, {1, 1.5, 2});
  EXPECT_EQ(kind_of_error([] {
              run_op("Range", 11, {Tensor::scalar<int64_t>(0), Tensor::scalar<int64_t>(4), Tensor::scalar<int64_t>(0)});
            }),
            ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([] {
              run_op("Range", 11, {Tensor::scalar(0.0F), Tensor::scalar(INFINITY), Tensor::scalar(1.0F)});
            }),
            ErrorKind::Malformed);
}

TEST(TopK, PrefersTheLowerIndexAmongEqualElements) {
  const auto y = run_op("TopK", 11, {floats({2, 4}, {1, 3, 3, 2, 4, 0, 9, 9}), longs({1}, {2})}, {}, 2);
  expect_tensor(y[0], {2, 2}, {3, 3, 9, 9});
  expect_tensor(y[1], {2, 2}, {1, 2, 2, 3});
  expect_tensor(run_op("TopK", 11, {longs({2, 2}, {1, 5, 3, 4}), longs({1}, {1})},
                       {attribute("largest", int64_t{0}), attribute("axis", int64_t{0})}, 2)[0],
                {1, 2}, {1, 4});
  EXPECT_EQ(kind_of_error([] { run_op("TopK", 11, {counted({3}), longs({1}, {4})}, {}, 2); }), ErrorKind::Malformed);
}

TEST(Unique, GivesFirstIndicesInverseAndCounts) {
  const auto y = run_op("Unique", 11, {floats({5}, {2, 1, 1, 3, 2})}, {attribute("sorted", int64_t{0})}, 4);
  expect_tensor(y[0], {3}, {2, 1, 3});
  expect_tensor(y[1], {3}, {0, 1, 3});
  expect_tensor(y[2], {5}, {0, 1, 1, 2, 0});
  expect_tensor(y[3], {3}, {2, 2, 1});
  expect_tensor(run_op("Unique", 11, {floats({3, 2}, {1, 0, 0, 1, 1, 0})}, {attribute("axis", int64_t{0})})[0], {2, 2}, {0, 1, 1, 0});
}

TEST(NonZero, ListsCoordinatesByAxis) {
  expect_tensor(run_op("NonZero", 13, {floats({2, 2}, {-0.0F, 2, NAN, 0})})[0], {2, 2}, {0, 1, 1, 0});
}

TEST(Compress, KeepsWhatIsTrue) {
  expect_tensor(run_op("Compress", 11, {counted({2, 3}), bools({0, 1})}, {attribute("axis", int64_t{1})})[0], {2, 1}, {1, 4});
  expect_tensor(run_op("Compress", 11, {counted({2, 3}), bools({0, 1, 0, 0, 1})})[0], {2}, {1, 4});
}

TEST(DepthToSpace, OrdersBlocksByMode) {  // NumPy: the reshapes and transposes of ONNX's definition
  const Tensor x = counted({1, 8, 1, 1});
  expect_tensor(run_op("DepthToSpace", 13, {x}, {attribute("blocksize", int64_t{2})})[0], {1, 2, 2, 2}, {0, 2, 4, 6, 1, 3, 5, 7});
  expect_tensor(run_op("DepthToSpace", 13, {x}, {attribute("blocksize", int64_t{2}), text("mode", "CRD")})[0], {1, 2, 2, 2},
                {0, 1, 2, 3, 4, 5, 6, 7});
  expect_tensor(run_op("SpaceToDepth", 13, {counted({1, 1, 2, 2})}, {attribute("blocksize", int64_t{2})})[0], {1, 4, 1, 1}, {0, 1, 2, 3});
}

TEST(ReverseSequence, ReversesEachEntrysOwnLength) {
  expect_tensor(run_op("ReverseSequence", 10, {counted({3, 2}), longs({2}, {2, 3})})[0], {3, 2}, {2, 5, 0, 3, 4, 1});
  EXPECT_EQ(kind_of_error([] { run_op("ReverseSequence", 10, {counted({3, 2}), longs({2}, {4, 0})}); }), ErrorKind::Malformed);
}

TEST(Constant, KnowsEveryForm) {
  expect_tensor(run_op("Constant", 13, {}, {attribute("value_float", 2.5F)})[0], {}, {2.5});
  expect_tensor(run_op("Constant", 13, {}, {ints("value_ints", {3, 4})})[0], {2}, {3, 4});
  EXPECT_EQ(run_op("Constant", 13, {}, {text("value_string", "hi")})[0].strings(), std::vector<std::string>({"hi"}));
  EXPECT_EQ(kind_of_error([] { run_op("Constant", 13, {}); }), ErrorKind::Malformed);
  expect_tensor(run_op("ConstantOfShape", 9, {longs({2}, {1, 2})}, {attribute("value", Tensor::vector<int64_t>({7}))})[0], {1, 2}, {7, 7});
  EXPECT_EQ(kind_of_error([] { run_op("ConstantOfShape", 9, {longs({2}, {-1, 2})}); }), ErrorKind::Malformed);
}

}  // namespace
}  // namespace infopt::test

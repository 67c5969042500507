// Arrays whose rows are whole inputs, as np.stack makes them of samples, and inputs that all samples share.
#include "lib/data/npy.h"
#include "tests/data/support.h"

namespace infopt::test {
namespace {

using testing::HasSubstr;

/// A .npy file of float32 0, 1, 2, …
std::string ramp_file(const TempFolder& folder, const std::string& name, const Shape& shape) {
  const std::vector<float> values = ramp<float>(0, element_count(shape));
  return folder.file(name, npy_header(DType::F32, shape) + std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)));
}

/// The arrays as one set: files named after inputs.
std::vector<Sample> samples_of(const std::vector<std::pair<std::string, Shape>>& arrays, DataOptions options) {
  const TempFolder folder;
  for (const auto& [name, shape] : arrays) ramp_file(folder, name + ".npy", shape);
  if (options.input_names.empty())
    for (const auto& [name, shape] : options.shapes) options.input_names.push_back(name);
  return all_samples(folder.path(), options);
}

std::string failure_of(const std::vector<std::pair<std::string, Shape>>& arrays, const DataOptions& options) {
  try {
    samples_of(arrays, options);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Malformed);
    return e.what();
  }
  return {};
}

TEST(WholeInputs, StackedBatchesOfOneAreRows) {
  const auto samples = samples_of({{"x", {3, 1, 2, 2}}}, {.shapes = {{"x", {-1, 2, 2}}}});
  ASSERT_EQ(samples.size(), 3u);
  EXPECT_EQ(samples[1].inputs.at("x").shape(), (Shape{1, 2, 2}));
  EXPECT_EQ(to_vector<float>(samples[1].inputs.at("x")), ramp<float>(4, 4));
}

TEST(WholeInputs, StackedBatchesOfOneFillAFixedBatch) {
  const auto samples = samples_of({{"x", {3, 1, 2}}}, {.shapes = {{"x", {2, 2}}}, .rows_per_sample = 2});
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_EQ(samples[1].inputs.at("x").shape(), (Shape{2, 2}));
  EXPECT_EQ(to_vector<float>(samples[1].inputs.at("x")), (std::vector<float>{4, 5, 4, 5}));
  EXPECT_EQ(samples[1].valid_rows, 1);
}

TEST(WholeInputs, ARowOfOneMoreAxisIsTheWholeInput) {
  const auto samples = samples_of({{"x", {3, 4}}, {"state", {3, 2, 1, 5}}, {"rate", {3}}}, {.shapes = {{"x", {-1, 4}}, {"state", {2, 1, 5}}, {"rate", {}}}});
  ASSERT_EQ(samples.size(), 3u);
  EXPECT_EQ(samples[2].inputs.at("x").shape(), (Shape{1, 4}));
  EXPECT_EQ(samples[2].inputs.at("state").shape(), (Shape{2, 1, 5}));
  EXPECT_EQ(to_vector<float>(samples[2].inputs.at("state")), ramp<float>(20, 10));
  EXPECT_EQ(samples[2].inputs.at("rate").shape(), Shape{});
  EXPECT_EQ(to_vector<float>(samples[2].inputs.at("rate")), (std::vector<float>{2}));
}

TEST(WholeInputs, StackedBatchesOfTheModelsSizeAreSamples) {
  const auto samples = samples_of({{"x", {3, 4, 2}}, {"label", {3, 4}}}, {.shapes = {{"x", {4, 2}}}, .rows_per_sample = 4});
  ASSERT_EQ(samples.size(), 3u);
  EXPECT_EQ(samples[1].inputs.at("x").shape(), (Shape{4, 2}));
  EXPECT_EQ(to_vector<float>(samples[1].inputs.at("x")), ramp<float>(8, 8));
  EXPECT_EQ(samples[1].label.shape(), Shape{4});
  EXPECT_EQ(samples[1].valid_rows, 4);
}

TEST(WholeInputs, AnArrayOfTheInputsOwnShapeThatCannotBeCutIsForAllSamples) {
  const auto samples = samples_of({{"x", {3, 4}}, {"state", {2, 1, 5}}}, {.shapes = {{"x", {-1, 4}}, {"state", {2, 1, 5}}}});
  ASSERT_EQ(samples.size(), 3u);
  for (const Sample& s : samples) EXPECT_EQ(to_vector<float>(s.inputs.at("state")), ramp<float>(0, 10));
}

TEST(WholeInputs, ArraysOfTheModelsRankAreCutAsEver) {
  const auto samples = samples_of({{"x", {3, 4}}, {"h", {3, 1, 5}}}, {.shapes = {{"x", {-1, 4}}, {"h", {1, 1, 5}}}});
  ASSERT_EQ(samples.size(), 3u);
  EXPECT_EQ(samples[2].inputs.at("h").shape(), (Shape{1, 1, 5}));
  EXPECT_EQ(to_vector<float>(samples[2].inputs.at("h")), ramp<float>(10, 5));
}

TEST(WholeInputs, CannotBeJoinedToABatchThatTheyDoNotHave) {
  EXPECT_THAT(failure_of({{"x", {6, 4}}, {"state", {6, 2, 1, 5}}}, {.shapes = {{"x", {3, 4}}, {"state", {2, 3, 5}}}, .rows_per_sample = 3}),
              testing::AllOf(HasSubstr("state"), HasSubstr("whole input"), HasSubstr("batch of 3")));
}

}  // namespace
}  // namespace infopt::test

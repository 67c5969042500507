#include "lib/data/test_data.h"

#include "lib/onnx/tensor_file.h"
#include "tests/data/support.h"

namespace infopt::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class OnnxTestData : public testing::Test {
 protected:
  void put(const std::string& name, float value) {
    std::filesystem::create_directories(std::filesystem::path(folder.path(name)).parent_path());
    write_tensor_file(folder.path(name), Tensor::of<float>({2, 1}, {value, value + 1}));
  }
  TempFolder folder;
};

TEST_F(OnnxTestData, IsOneSampleASetByNumberNotByName) {
  for (const int k : {0, 1, 2, 10}) put("test_data_set_" + std::to_string(k) + "/input_0.pb", static_cast<float>(k));
  auto data = open_dataset(folder.path(), {.input_names = {"x"}});
  EXPECT_EQ(data->size(), 4);
  std::vector<float> first;
  for (const Sample& s : all_samples(*data)) {
    EXPECT_EQ(s.inputs.at("x").shape(), (Shape{2, 1}));
    first.push_back(s.inputs.at("x").data<float>()[0]);
  }
  EXPECT_THAT(first, ElementsAre(0, 1, 2, 10));
  EXPECT_EQ(open_dataset(folder.path(), {.limit = 3})->size(), 3);
}

TEST_F(OnnxTestData, TakesInputsByPositionAndLeavesGapsForOptionalOnes) {
  put("input_0.pb", 1);
  put("input_2.pb", 3);
  put("output_0.pb", 9);
  auto data = open_dataset(folder.path(), {.input_names = {"a", "b", "c"}});
  EXPECT_THAT(data->names(), ElementsAre("a", "c"));
  EXPECT_EQ(data->size(), 1);
  EXPECT_THAT(all_samples(*data)[0].inputs, testing::SizeIs(2));
  const auto sets = find_test_data(folder.path());
  ASSERT_EQ(sets.size(), 1u);
  EXPECT_THAT(sets[0].outputs.at(0), HasSubstr("output_0.pb"));
}

TEST_F(OnnxTestData, WithAnInputTooManyOrTooFewIsMalformed) {
  put("input_0.pb", 1);
  put("input_1.pb", 2);
  EXPECT_THAT(error_of_data(folder.path(), {.input_names = {"a"}}).what(), HasSubstr("input_1.pb"));
  const Error e = error_of_data(folder.path(), {.input_names = {"a", "b", "c"}, .required = {"c"}});
  EXPECT_EQ(e.kind(), ErrorKind::Malformed);
  EXPECT_THAT(e.what(), HasSubstr("'c'"));
}

TEST_F(OnnxTestData, BrokenIsMalformed) {
  folder.file("input_0.pb", "not a tensor");
  EXPECT_EQ(error_of_data(folder.path()).kind(), ErrorKind::Malformed);
}

}  // namespace
}  // namespace infopt::test

// Fixtures: tests/data/fixtures/make_fixtures.py (NumPy 2.4.6).
#include "tests/data/support.h"

namespace infopt::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Npz : public testing::TestWithParam<const char*> {};

TEST_P(Npz, GivesOneRowOfEveryArrayASampleAndTheLabelsApart) {
  auto data = open_dataset(fixture(GetParam()), {});
  EXPECT_EQ(data->size(), 5);
  EXPECT_THAT(data->names(), ElementsAre("a", "b"));
  EXPECT_TRUE(data->has_label());
  for (int round = 0; round < 2; ++round) {
    const std::vector<Sample> samples = all_samples(*data);
    ASSERT_EQ(samples.size(), 5u);
    const std::vector<int64_t> labels{3, 1, 4, 1, 5};
    for (size_t i = 0; i < 5; ++i) {
      const Sample& s = samples[i];
      EXPECT_EQ(s.index, static_cast<int64_t>(i));
      EXPECT_EQ(s.valid_rows, 1);
      EXPECT_EQ(s.inputs.at("a").shape(), (Shape{1, 2, 3}));
      EXPECT_EQ(to_vector<float>(s.inputs.at("a")), ramp<float>(6.0f * static_cast<float>(i), 6));
      EXPECT_EQ(to_vector<int64_t>(s.inputs.at("b")), ramp<int64_t>(40 * static_cast<int64_t>(i), 4, 10));
      EXPECT_EQ(s.label.shape(), (Shape{1}));
      EXPECT_EQ(to_vector<int64_t>(s.label)[0], labels[i]);
      EXPECT_THAT(s.where, HasSubstr("sample " + std::to_string(i)));
    }
    data->reset();
  }
}
INSTANTIATE_TEST_SUITE_P(StoredAndDeflated, Npz, testing::Values("stored.npz", "deflated.npz"),
                         [](const auto& p) { return std::string(p.param, strlen(p.param) - 4); });

TEST(NpzDataSet, CanBeReadAgainFromTheMiddle) {
  auto data = open_dataset(fixture("deflated.npz"), {});
  Sample s;
  ASSERT_TRUE(data->next(s));
  ASSERT_TRUE(data->next(s));
  data->reset();
  ASSERT_TRUE(data->next(s));
  EXPECT_EQ(s.index, 0);
  EXPECT_EQ(to_vector<float>(s.inputs.at("a")), ramp<float>(0, 6));
}

TEST(NpzDataSet, StopsAtTheLimit) {
  auto data = open_dataset(fixture("deflated.npz"), {.limit = 2});
  EXPECT_EQ(data->size(), 2);
  EXPECT_EQ(all_samples(*data).size(), 2u);
  EXPECT_EQ(open_dataset(fixture("deflated.npz"), {.limit = 9})->size(), 5);
}

TEST(NpzDataSet, FillsAFixedBatchByRepeatingTheLastRow) {
  const auto samples = all_samples(fixture("deflated.npz"), {.rows_per_sample = 2});
  ASSERT_EQ(samples.size(), 3u);
  EXPECT_EQ(samples[1].valid_rows, 2);
  EXPECT_EQ(to_vector<float>(samples[1].inputs.at("a")), ramp<float>(12, 12));
  EXPECT_EQ(samples[2].valid_rows, 1);
  EXPECT_EQ(samples[2].inputs.at("b").shape(), (Shape{2, 4}));
  EXPECT_THAT(to_vector<int64_t>(samples[2].inputs.at("b")), ElementsAre(160, 170, 180, 190, 160, 170, 180, 190));
  EXPECT_THAT(to_vector<int64_t>(samples[2].label), ElementsAre(5, 5));
}

TEST(NpzDataSet, ReadsEveryTypeOfNumPyThatATensorHas) {
  const auto samples = all_samples(fixture("dtypes.npz"));
  ASSERT_EQ(samples.size(), 3u);
  const std::map<std::string, DType> types{{"f2", DType::F16}, {"f4", DType::F32}, {"f8", DType::F64}, {"i1", DType::I8},
                                           {"i2", DType::I16}, {"i4", DType::I32}, {"i8", DType::I64}, {"u1", DType::U8},
                                           {"u2", DType::U16}, {"u4", DType::U32}, {"u8", DType::U64}, {"b1", DType::Bool}};
  EXPECT_EQ(samples[1].inputs.size(), types.size());
  for (const auto& [name, dtype] : types) {
    const Tensor& t = samples[1].inputs.at(name);
    EXPECT_EQ(t.dtype(), dtype) << name;
    const std::vector<double> expected = name == "b1"     ? std::vector<double>{0, 1}
                                         : name[0] == 'u' ? std::vector<double>{2, 3}
                                                          : std::vector<double>{-1, 0};
    EXPECT_EQ(to_vector<double>(t), expected) << name;
  }
}

TEST(NpzDataSet, ReadsBigEndianArrays) {
  const auto samples = all_samples(fixture("big_endian.npz"));
  for (const char* name : {"f2", "f4", "f8", "i2", "i4", "i8"})
    EXPECT_THAT(to_vector<double>(samples[0].inputs.at(name)), ElementsAre(-600, -300)) << name;
}

TEST(NpzDataSet, ReadsFortranOrder) {
  const auto samples = all_samples(fixture("fortran.npz"), {.rows_per_sample = 3});
  EXPECT_EQ(samples[0].inputs.at("x").shape(), (Shape{3, 3, 2}));
  EXPECT_EQ(to_vector<float>(samples[0].inputs.at("x")), ramp<float>(0, 18));
  EXPECT_THAT(to_vector<float>(samples[1].inputs.at("x").slice_front(0, 1)), ElementsAre(18, 19, 20, 21, 22, 23));
  EXPECT_THAT(to_vector<int64_t>(samples[1].inputs.at("thin")), ElementsAre(3, 3, 3));
}

TEST(NpzDataSet, ReadsLabelsThatAreText) {
  const auto samples = all_samples(fixture("text_labels.npz"), {.rows_per_sample = 2});
  EXPECT_THAT(samples[0].label.strings(), ElementsAre("cat", "žába"));
  EXPECT_THAT(samples[1].label.strings(), ElementsAre("😀!", "😀!"));
}

TEST(NpzDataSet, GivesScalarsAndSharedArraysWholeWithEverySample) {
  const auto samples = all_samples(fixture("shared.npz"), {.shared = {"mask"}, .rows_per_sample = 2});
  ASSERT_EQ(samples.size(), 2u);
  for (const Sample& s : samples) {
    EXPECT_EQ(s.inputs.at("scale").rank(), 0);
    EXPECT_EQ(to_scalar<float>(s.inputs.at("scale")), 0.5f);
    EXPECT_EQ(s.inputs.at("mask").shape(), (Shape{1, 4}));
    EXPECT_EQ(s.inputs.at("x").shape(), (Shape{2, 2}));
  }
}

TEST(NpzDataSet, TakesArraysWithoutNamesByPosition) {
  auto data = open_dataset(fixture("positional.npz"), {.input_names = {"ids", "mask"}});
  EXPECT_THAT(data->names(), ElementsAre("ids", "mask"));
  EXPECT_EQ(all_samples(*data)[0].inputs.at("mask").shape(), (Shape{1, 3}));
}

TEST(NpzDataSet, LeavesArraysThatAreNoInputUnread) {
  auto data = open_dataset(fixture("deflated.npz"), {.input_names = {"b", "c"}});
  EXPECT_THAT(data->names(), ElementsAre("b"));
  EXPECT_THAT(data->unused(), ElementsAre("a"));
  EXPECT_TRUE(data->has_label());
}

TEST(NpzDataSet, TakesALabelThatIsAnInputAsTheInput) {
  auto data = open_dataset(fixture("deflated.npz"), {.input_names = {"label"}});
  EXPECT_THAT(data->names(), ElementsAre("label"));
  EXPECT_FALSE(data->has_label());
}

TEST(NpzDataSet, FindsTheLabelsUnderTheNameThatIsGiven) {
  const auto samples = all_samples(fixture("deflated.npz"), {.input_names = {"a"}, .label = "b"});
  EXPECT_EQ(samples[0].label.shape(), (Shape{1, 4}));
}

TEST(NpyFile, FeedsTheFirstInput) {
  for (const char* name : {"batch.npy", "version2.npy", "version3.npy"}) {
    const auto samples = all_samples(fixture(name), {.input_names = {"x"}});
    ASSERT_EQ(samples.size(), 3u);
    EXPECT_THAT(to_vector<float>(samples[2].inputs.at("x")), ElementsAre(4, 5)) << name;
  }
}

TEST(Folder, OfNpzIsReadInTheOrderOfNames) {
  auto data = open_dataset(fixture("parts"), {});
  EXPECT_EQ(data->size(), 5);
  const auto samples = all_samples(*data);
  ASSERT_EQ(samples.size(), 5u);
  for (int64_t i = 0; i < 5; ++i) {
    EXPECT_EQ(to_vector<float>(samples[static_cast<size_t>(i)].inputs.at("x")), ramp<float>(2.0f * static_cast<float>(i), 2));
    EXPECT_EQ(to_vector<int64_t>(samples[static_cast<size_t>(i)].label)[0], i);
  }
  EXPECT_THAT(samples[3].where, HasSubstr("b.npz, sample 3"));
}

TEST(Folder, FillsAFixedBatchAcrossItsFiles) {
  const auto samples = all_samples(fixture("parts"), {.rows_per_sample = 4});
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_EQ(to_vector<float>(samples[0].inputs.at("x")), ramp<float>(0, 8));
  EXPECT_EQ(samples[1].valid_rows, 1);
  EXPECT_THAT(to_vector<int64_t>(samples[1].label), ElementsAre(4, 4, 4, 4));
}

TEST(Folder, MayHoldSamplesOfDifferentSizes) {
  const auto samples = all_samples(fixture("sizes"));
  EXPECT_EQ(samples[0].inputs.at("x").shape(), (Shape{1, 2}));
  EXPECT_EQ(samples[1].inputs.at("x").shape(), (Shape{1, 3}));
}

TEST(Folder, OfNpyIsOneInputFileAfterFile) {
  const auto samples = all_samples(fixture("pieces"), {.input_names = {"x"}});
  ASSERT_EQ(samples.size(), 3u);
  EXPECT_THAT(to_vector<float>(samples[2].inputs.at("x")), ElementsAre(4, 5));
}

TEST(Folder, OfNpyNamedAfterInputsIsOneSet) {
  auto data = open_dataset(fixture("exploded"), {.input_names = {"x", "mask"}});
  EXPECT_EQ(data->size(), 3);
  const auto samples = all_samples(*data);
  EXPECT_THAT(to_vector<int64_t>(samples[2].inputs.at("mask")), ElementsAre(2));
  EXPECT_THAT(to_vector<int64_t>(samples[2].label), ElementsAre(9));
}

TEST(ContentKey, IsOfContentAndOptionsNotOfThePath) {
  const TempFolder folder;
  const std::string bytes = bytes_of_file(fixture("deflated.npz"));
  const auto key = [](const std::string& path, const DataOptions& options = {}) { return open_dataset(path, options)->content_key(); };
  const std::string original = key(fixture("deflated.npz"));
  EXPECT_EQ(original.size(), 32u);
  EXPECT_EQ(key(folder.file("elsewhere.npz", bytes)), original);
  EXPECT_NE(key(fixture("stored.npz")), original);
  EXPECT_NE(key(fixture("deflated.npz"), {.limit = 2}), original);
  EXPECT_NE(key(fixture("deflated.npz"), {.rows_per_sample = 2}), original);
  folder.file("one/a.npz", bytes);
  folder.file("two/a.npz", bytes);
  folder.file("three/b.npz", bytes);
  EXPECT_EQ(key(folder.path("one")), key(folder.path("two")));
  EXPECT_NE(key(folder.path("one")), key(folder.path("three")));
}

TEST(Finite, NamesSampleInputAndPlace) {
  const auto samples = all_samples(fixture("nonfinite.npz"));
  check_finite(samples[0]);
  const Error e = error_of([&] { check_finite(samples[1]); });
  EXPECT_EQ(e.kind(), ErrorKind::Malformed);
  EXPECT_THAT(e.what(), HasSubstr("nonfinite.npz, sample 1, input 'h': holds NaN at [0,0]"));
  const auto x = all_samples(fixture("nonfinite.npz"), {.input_names = {"x"}});
  EXPECT_THAT(error_of([&] { check_finite(x[1]); }).what(), HasSubstr("input 'x': holds Inf at [0,1]"));
}

}  // namespace
}  // namespace infopt::test

// What is written is read back by the npz reader, which is tested on NumPy's own files.
#include "lib/data/npz_writer.h"

#include "lib/base/hash.h"
#include "tests/data/support.h"

namespace infopt::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(NpzWriter, WritesWholeArraysAndGrowingOnes) {
  const TempFolder folder;
  for (const bool deflate : {false, true}) {
    const std::string path = folder.path(deflate ? "d.npz" : "s.npz");
    NpzWriter writer(path, deflate);
    for (int64_t i = 0; i < 3; ++i) {
      writer.append("x", Tensor::of<float>({1, 2}, {2.0f * static_cast<float>(i), 2.0f * static_cast<float>(i) + 1}));
      writer.append("y", Tensor::of<int64_t>({1}, {i * i}));
    }
    writer.add("scale", Tensor::scalar(0.25));
    writer.commit();
    const auto samples = all_samples(path);
    ASSERT_EQ(samples.size(), 3u);
    EXPECT_THAT(to_vector<float>(samples[2].inputs.at("x")), ElementsAre(4, 5));
    EXPECT_THAT(to_vector<int64_t>(samples[2].inputs.at("y")), ElementsAre(4));
    EXPECT_EQ(to_scalar<double>(samples[0].inputs.at("scale")), 0.25);
  }
}

TEST(NpzWriter, SpillsLargeArraysAndGivesThemBackWhole) {
  const TempFolder folder;
  for (const bool deflate : {false, true}) {
    const std::string path = folder.path("large.npz");
    NpzWriter writer(path, deflate);
    constexpr int64_t kRows = 40, kWidth = 20011;  // 3 MB, and no piece ends where a buffer does
    for (int64_t i = 0; i < kRows; ++i)
      writer.append("x", Tensor::vector(ramp<int32_t>(static_cast<int32_t>(i * kWidth), kWidth)).reshaped({1, kWidth}));
    writer.commit();
    const auto samples = all_samples(path);
    ASSERT_EQ(samples.size(), 40u);
    for (int64_t i = 0; i < kRows; ++i)
      ASSERT_EQ(to_vector<int64_t>(samples[static_cast<size_t>(i)].inputs.at("x")), ramp<int64_t>(i * kWidth, kWidth));
  }
}

TEST(NpzWriter, GivesTheSameBytesEveryTimeHoweverTheRowsCame) {
  const TempFolder folder;
  const Tensor rows = Tensor::of<float>({4, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  NpzWriter whole(folder.path("whole.npz")), pieces(folder.path("pieces.npz"));
  whole.add("x", rows);
  for (int64_t i = 0; i < 4; ++i) pieces.append("x", rows.slice_front(i, 1));
  whole.commit();
  pieces.commit();
  EXPECT_EQ(bytes_of_file(folder.path("whole.npz")), bytes_of_file(folder.path("pieces.npz")));
}

// A file of these bytes gave these arrays in numpy.load (NumPy 2.4.6), and None in zipfile.ZipFile(f).testzip().
TEST(NpzWriter, WritesTheBytesThatNumPyHasRead) {
  const TempFolder folder;
  const std::string path = folder.path("n.npz");
  NpzWriter writer(path);
  for (int i = 0; i < 3; ++i)
    writer.append("x", Tensor::of<float>({1, 2}, {2.0f * static_cast<float>(i), 2.0f * static_cast<float>(i) + 1}));
  writer.add("one", Tensor::of<uint8_t>({2, 1}, {7, 255}));
  writer.add("scale", Tensor::scalar(0.25));
  writer.add("h", Tensor::of<half>({1}, {to_half(1.5f)}));
  writer.add("b", Tensor::of<bool>({2}, {true, false}));
  Tensor text(DType::String, {2});
  text.mutable_strings() = {"žába", "x"};
  writer.add("text", text);
  writer.add("a/b:0", Tensor::of<int64_t>({0, 3}, {}));
  writer.commit();
  const std::string bytes = bytes_of_file(path);
  EXPECT_EQ(bytes.size(), 1616u);
  EXPECT_EQ(Hasher().bytes(bytes.data(), bytes.size()).hex(), "d0a1e069168aa98051ea743990ce7c8d");
}

TEST(NpzWriter, WidensTypesThatNumPyHasnt) {
  const TempFolder folder;
  NpzWriter writer(folder.path("w.npz"));
  writer.add("bf", Tensor::of<bfloat16>({2}, {to_bfloat16(1.5f), to_bfloat16(-2.0f)}));
  writer.add("i4", cast(Tensor::of<int8_t>({2}, {-8, 7}), DType::I4));
  writer.commit();
  const auto samples = all_samples(folder.path("w.npz"));
  EXPECT_EQ(samples[0].inputs.at("bf").dtype(), DType::F32);
  EXPECT_THAT(to_vector<float>(samples[1].inputs.at("bf")), ElementsAre(-2));
  EXPECT_EQ(samples[0].inputs.at("i4").dtype(), DType::I8);
  EXPECT_THAT(to_vector<int64_t>(samples[0].inputs.at("i4")), ElementsAre(-8));
}

TEST(NpzWriter, WritesTextAndPutsAMarkForBrokenUtf8) {
  const TempFolder folder;
  NpzWriter writer(folder.path("t.npz"));
  writer.add("x", Tensor::of<float>({4}, {0, 0, 0, 0}));
  Tensor text(DType::String, {4});
  text.mutable_strings() = {"žába", "", "a\xFF\xC3", "😀"};
  writer.add("label", text);
  writer.commit();
  std::vector<std::string> labels;
  for (const Sample& s : all_samples(folder.path("t.npz"))) labels.push_back(s.label.strings()[0]);
  EXPECT_THAT(labels, ElementsAre("žába", "", "a\uFFFD\uFFFD", "😀"));
}

TEST(NpzWriter, RefusesRowsThatDontFit) {
  const TempFolder folder;
  NpzWriter writer(folder.path("r.npz"));
  writer.append("x", Tensor::of<float>({1, 2}, {1, 2}));
  for (const Tensor& other :
       {Tensor::of<float>({1, 3}, {1, 2, 3}), Tensor::of<int32_t>({1, 2}, {1, 2}), Tensor::of<float>({2}, {1, 2}), Tensor::scalar(1.0f)}) {
    const Error e = error_of([&] { writer.append("x", other); });
    EXPECT_EQ(e.kind(), ErrorKind::Malformed);
    EXPECT_THAT(e.what(), HasSubstr("array 'x'"));
  }
}

TEST(NpzWriter, LeavesNothingBehindWithoutACommit) {
  const TempFolder folder;
  {
    NpzWriter writer(folder.path("n.npz"));
    writer.add("x", Tensor::zeros(DType::F32, {1 << 20}));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(NpzWriter, SaysBeforehandThatTheFileCantBeWritten) {
  const TempFolder folder;
  EXPECT_EQ(error_of([&] { NpzWriter writer(folder.path("missing/n.npz")); }).kind(), ErrorKind::Io);
}

}  // namespace
}  // namespace infopt::test

// Broken images and lists of labels end with a clear error. Fixtures: tests/data/fixtures/make_fixtures.py.
#include <random>

#include "tests/data/support.h"

namespace infopt::test {
namespace {

using testing::HasSubstr;

class BadImages : public testing::Test {
 protected:
  Error error_of_image(const std::string& name, const std::string& bytes) {
    folder.file(name, bytes);
    return error_of_data(folder.path());
  }
  static std::string image(const std::string& name) { return bytes_of_file(fixture("images/" + name)); }
  TempFolder folder;
};

TEST_F(BadImages, EveryTruncationIsMalformedAndNamesTheFile) {
  for (const char* name : {"cat/rgb.png", "emu/baseline.jpg", "emu/progressive.jpeg"}) {
    const std::string whole = image(name);
    const std::string file = std::string("a.") + (name[0] == 'c' ? "png" : "jpg");
    for (size_t n = 0; n + 20 < whole.size(); n += 1 + whole.size() / 60) {
      const Error e = error_of_image(file, whole.substr(0, n));
      EXPECT_EQ(e.kind(), ErrorKind::Malformed) << name << " " << n;
      EXPECT_THAT(e.where(), HasSubstr(file));
    }
    std::filesystem::remove(folder.path(file));
  }
}

TEST_F(BadImages, AnotherFormatUnderAnImagesNameIsMalformed) {
  EXPECT_THAT(error_of_image("a.png", "GIF89a").what(), HasSubstr("neither a JPEG nor a PNG"));
  EXPECT_EQ(error_of_image("a.png", "").kind(), ErrorKind::Malformed);
}

TEST_F(BadImages, ClaimsOfHugeSizesAreOverTheLimit) {
  std::string png = image("cat/rgb.png");
  png.replace(16, 8, std::string("\x00\x10\x00\x00\x00\x10\x00\x00", 8));
  png.replace(29, 4, std::string("\xC4\x4A\x37\x92", 4));  // zlib.crc32 of the changed IHDR chunk
  EXPECT_EQ(error_of_image("a.png", png).kind(), ErrorKind::Limit);
}

TEST_F(BadImages, ChangedBytesNeverCrash) {
  std::mt19937 random(8);
  for (const char* name : {"cat/rgb.png", "dog/palette.PNG", "emu/baseline.jpg", "emu/progressive.jpeg", "emu/cmyk.jpg"}) {
    const std::string whole = image(name);
    for (int round = 0; round < 150; ++round) {
      std::string bytes = whole;
      for (int k = 0; k <= round % 3; ++k) bytes[random() % bytes.size()] = static_cast<char>(random());
      folder.file("a.png", bytes);
      try {
        all_samples(folder.path());
      } catch (const Error& e) {
        EXPECT_TRUE(e.kind() == ErrorKind::Malformed || e.kind() == ErrorKind::Limit || e.kind() == ErrorKind::Unsupported) << e.what();
      }
    }
  }
}

TEST_F(BadImages, ListsOfLabelsAreJudgedLineByLine) {
  folder.file("a.png", image("cat/rgb.png"));
  const auto error_of_list = [&](const std::string& text) { return error_of_data(folder.file("labels.csv", text)); };
  EXPECT_THAT(error_of_list("a.png,1\na.png\n").what(), HasSubstr("labels.csv:2"));
  EXPECT_THAT(error_of_list("a.png,\n").what(), HasSubstr("labels.csv:1"));
  EXPECT_EQ(error_of_list("").kind(), ErrorKind::Malformed);
  EXPECT_EQ(error_of_list("file,label\n").kind(), ErrorKind::Malformed);
  const Error e = error_of_list("a.png,1\nb.png,2\n");
  EXPECT_EQ(e.kind(), ErrorKind::Io);
  EXPECT_THAT(e.what(), HasSubstr("b.png"));
}

TEST_F(BadImages, AModelWithAnotherInputIsToldSo) {
  folder.file("a.png", image("cat/rgb.png"));
  EXPECT_THAT(error_of_data(folder.path(), {.input_names = {"x", "mask"}, .required = {"x", "mask"}}).what(), HasSubstr("'mask'"));
}

}  // namespace
}  // namespace infopt::test

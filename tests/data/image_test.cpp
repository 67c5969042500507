// Fixtures and what is expected of them: tests/data/fixtures/make_fixtures.py (Pillow 13.0.0 with libjpeg-turbo).
#include "lib/data/image.h"

#include <cstring>
#include <filesystem>

#include "lib/data/npy.h"
#include "lib/data/zip_reader.h"
#include "tests/data/support.h"

namespace infopt::test {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;

Tensor expected(const std::string& name) {
  static const ZipReader zip(fixture("images_expected.npz"));
  for (const ZipMember& m : zip.members())
    if (m.name == name + ".npy") {
      ArrayReader reader(zip.open(m), name);
      return reader.read(reader.rows());
    }
  ADD_FAILURE() << "no " << name;
  return {};
}

Image decode(const std::string& name) { return decode_image(bytes_of_file(fixture("images/" + name)), name); }

/// The largest difference between an image and Pillow's.
int difference(const Image& image, const Tensor& other) {
  if (other.dim(0) != image.height || other.dim(1) != image.width || other.size() != static_cast<int64_t>(image.pixels.size())) return 256;
  int most = 0;
  for (size_t i = 0; i < image.pixels.size(); ++i) most = std::max(most, std::abs(image.pixels[i] - other.data<uint8_t>()[i]));
  return most;
}

TEST(Decode, GivesPillowsPixelsForPng) {
  for (const char* name : {"cat/rgb.png", "cat/alpha.png", "dog/gray.png", "dog/palette.PNG", "dog/bits.png"})
    EXPECT_EQ(difference(with_channels(decode(name), 3), expected(name)), 0) << name;
}

TEST(Decode, GivesPillowsPixelsForJpegWithinOneStep) {
  for (const char* name : {"emu/baseline.jpg", "emu/progressive.jpeg", "emu/gray.jpg", "emu/cmyk.jpg"})
    EXPECT_LE(difference(with_channels(decode(name), 3), expected(name)), 1) << name;
}

TEST(WithChannels, MakesPillowsLuma) { EXPECT_EQ(difference(with_channels(decode("cat/rgb.png"), 1), expected("luma")), 0); }

TEST(Resize, GivesPillowsBits) {
  const Image image = decode("cat/rgb.png");
  const std::map<std::string, ImageOptions::Filter> filters{
      {"nearest", ImageOptions::Filter::Nearest}, {"bilinear", ImageOptions::Filter::Bilinear}, {"bicubic", ImageOptions::Filter::Bicubic}};
  for (const auto& [name, filter] : filters)
    for (const auto& [w, h] : std::vector<std::pair<int64_t, int64_t>>{{10, 7}, {46, 34}, {23, 5}, {9, 17}, {31, 8}, {1, 1}, {64, 64}}) {
      const std::string key = name + "_" + std::to_string(w) + "x" + std::to_string(h);
      EXPECT_EQ(difference(resize(image, w, h, filter), expected(key)), 0) << key;
    }
}

/// The image that a tensor [H,W,3] of Pillow's is.
Image as_image(const Tensor& t) {
  return {.width = t.dim(1),
          .height = t.dim(0),
          .channels = 3,
          .pixels = std::vector<uint8_t>(t.data<uint8_t>(), t.data<uint8_t>() + t.size())};
}

TEST(Resize, TakesThePassesInPillowsOrder) {
  const Image wide = as_image(expected("emu/baseline.jpg")), upright = decode("cat/rgb.png");
  Image tall{.width = upright.height, .height = upright.width, .channels = 3, .pixels = {}};
  for (int64_t y = 0; y < tall.height; ++y)
    for (int64_t x = 0; x < tall.width; ++x)
      for (int64_t c = 0; c < 3; ++c) tall.pixels.push_back(upright.pixels[static_cast<size_t>((x * upright.width + y) * 3 + c)]);
  for (const auto& [w, h] : std::vector<std::pair<int64_t, int64_t>>{{10, 7}, {40, 20}, {49, 3}, {60, 38}}) {
    const std::string size = std::to_string(w) + "x" + std::to_string(h);
    EXPECT_EQ(difference(resize(wide, w, h, ImageOptions::Filter::Bilinear), expected("wide_" + size)), 0) << size;
    EXPECT_EQ(difference(resize(tall, w, h, ImageOptions::Filter::Bicubic), expected("tall_" + size)), 0) << size;
  }
}

ImageOptions imagenet() {
  ImageOptions o;
  o.resize = ImageOptions::Resize::ShortSide;
  o.resize_short = 12;
  o.crop_width = 9;
  o.crop_height = 10;
  o.mean = {0.485f, 0.456f, 0.406f};
  o.std = {0.229f, 0.224f, 0.225f};
  return o;
}

TEST(Preprocess, DoesWhatTorchvisionsTransformsDo) {
  const Tensor t = preprocess(decode("cat/rgb.png"), imagenet(), ""), e = expected("imagenet");
  ASSERT_EQ(t.shape(), e.shape());
  for (int64_t i = 0; i < t.size(); ++i) EXPECT_NEAR(t.data<float>()[i], e.data<float>()[i], 1e-6) << i;
}

TEST(Preprocess, LaysChannelsOutAsAsked) {
  const Image image{.width = 2, .height = 1, .channels = 3, .pixels = {10, 20, 30, 40, 50, 60}};
  ImageOptions o;
  o.scale = 1;
  o.dtype = DType::U8;
  const auto values = [&] { return to_vector<int64_t>(preprocess(image, o, "")); };
  EXPECT_THAT(values(), ElementsAre(10, 40, 20, 50, 30, 60));
  o.order = ImageOptions::Order::Bgr;
  EXPECT_THAT(values(), ElementsAre(30, 60, 20, 50, 10, 40));
  o.layout = ImageOptions::Layout::Nhwc;
  EXPECT_THAT(values(), ElementsAre(30, 20, 10, 60, 50, 40));
  EXPECT_EQ(preprocess(image, o, "").shape(), (Shape{1, 1, 2, 3}));
  o.mean = {0, 0, 100};
  o.dtype = DType::F16;
  EXPECT_THAT(values(), ElementsAre(30, 20, -90, 60, 50, -60));
  o.dtype = DType::I8;
  o.mean = {-100.5f};
  EXPECT_THAT(values(), ElementsAre(127, 120, 110, 127, 127, 127));
}

TEST(Preprocess, SaysWhichOptionsContradict) {
  const Image image{.width = 2, .height = 1, .channels = 3, .pixels = {10, 20, 30, 40, 50, 60}};
  ImageOptions o;
  o.mean = {1, 2};
  EXPECT_EQ(error_of([&] { preprocess(image, o, "i"); }).kind(), ErrorKind::Usage);
  o = {};
  o.std = {0};
  EXPECT_EQ(error_of([&] { preprocess(image, o, "i"); }).kind(), ErrorKind::Usage);
  o = {};
  o.crop_width = 3;
  const Error e = error_of([&] { preprocess(image, o, "small.png"); });
  EXPECT_EQ(e.kind(), ErrorKind::Malformed);
  EXPECT_THAT(e.what(), HasSubstr("small.png"));
}

TEST(ImageFolder, LabelsBySubfolderInTheOrderOfNames) {
  DataOptions options;
  options.image = imagenet();
  options.image.crop_width = options.image.crop_height = 8;
  auto data = open_dataset(fixture("images"), options);
  EXPECT_EQ(data->size(), 9);
  EXPECT_TRUE(data->has_label());
  std::vector<int64_t> labels;
  for (const Sample& s : all_samples(*data)) {
    labels.push_back(to_scalar<int64_t>(s.label));
    EXPECT_EQ(s.inputs.at("x").shape(), (Shape{1, 3, 8, 8}));
  }
  EXPECT_THAT(labels, ElementsAre(0, 0, 1, 1, 1, 2, 2, 2, 2));
}

TEST(ImageFolder, IsGatheredIntoTheModelsBatch) {
  DataOptions options;
  options.image = imagenet();
  options.image.crop_width = options.image.crop_height = 8;
  options.rows_per_sample = 4;
  options.input_names = {"pixels"};
  const auto samples = all_samples(fixture("images"), options);
  ASSERT_EQ(samples.size(), 3u);
  EXPECT_EQ(samples[2].inputs.at("pixels").shape(), (Shape{4, 3, 8, 8}));
  EXPECT_EQ(samples[2].valid_rows, 1);
}

TEST(ImageFolder, WithoutSubfoldersHasNoLabels) {
  auto data = open_dataset(fixture("images/cat"), {});
  EXPECT_FALSE(data->has_label());
  const auto samples = all_samples(*data);
  EXPECT_EQ(samples[0].inputs.at("x").shape(), (Shape{1, 3, 9, 8}));
  EXPECT_THAT(samples[1].where, EndsWith("rgb.png, sample 1"));
}

TEST(ImageList, TakesClassNumbersFromACsv) {
  const auto samples = all_samples(fixture("labels_numbers.csv"));
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_EQ(to_scalar<int64_t>(samples[0].label), 7);
  EXPECT_EQ(samples[0].inputs.at("x").shape(), (Shape{1, 3, 40, 50}));
  EXPECT_EQ(to_scalar<int64_t>(samples[1].label), 2);
}

TEST(ImageList, NumbersClassNamesOfACsvInTheirOrder) {
  const auto samples = all_samples(fixture("labels_names.csv"));
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_EQ(to_scalar<int64_t>(samples[0].label), 1);
  EXPECT_EQ(to_scalar<int64_t>(samples[1].label), 0);
}

TEST(ImageList, OfTheOptionsGoesWithAFolder) {
  DataOptions options;
  options.image.labels = fixture("labels_names.csv");
  EXPECT_EQ(open_dataset(fixture(""), options)->size(), 2);
}

}  // namespace
}  // namespace infopt::test

#include "recipes/recipe_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "lib/base/error.h"

namespace infopt {
namespace {

// In the order of the enumerations.
constexpr const char* kFilters[] = {"nearest", "bilinear", "bicubic"};
constexpr const char* kOrders[] = {"rgb", "bgr", "gray"};
constexpr const char* kLayouts[] = {"nchw", "nhwc"};

template <class Enum, size_t N>
void choose(const YamlNode& map, const char* key, const char* const (&names)[N], Enum& value) {
  if (const YamlNode* n = map.find(key)) value = static_cast<Enum>(std::find(names, names + N, n->scalar) - names);
}

void floats(const YamlNode& map, const char* key, size_t channels, const char* color, std::vector<float>& value) {
  const YamlNode* n = map.find(key);
  if (!n) return;
  for (double v : as_numbers(*n)) value.push_back(static_cast<float>(v));
  if (value.size() == 1 || value.size() == channels) return;
  throw Error(ErrorKind::Usage, fmt::format("'{}' has {} numbers, {} images have {} channels", key, value.size(), color, channels), n->where);
}

ImageOptions read_image(const YamlNode& map) {
  ImageOptions out;
  if (const YamlNode* n = map.find("input")) out.input = n->scalar;
  if (const YamlNode* n = map.find("resize")) {
    std::vector<int64_t> sides = as_ints(*n);
    out.resize = sides.size() == 1 ? ImageOptions::Resize::ShortSide : ImageOptions::Resize::Exact;
    if (sides.size() == 1) out.resize_short = sides[0];
    else std::tie(out.resize_height, out.resize_width) = std::tie(sides[0], sides[1]);
  }
  if (const YamlNode* n = map.find("crop")) {
    std::vector<int64_t> sides = as_ints(*n);
    out.crop_height = sides.front();
    out.crop_width = sides.back();
  }
  choose(map, "filter", kFilters, out.filter);
  choose(map, "color", kOrders, out.order);
  choose(map, "layout", kLayouts, out.layout);
  if (const YamlNode* n = map.find("scale")) out.scale = static_cast<float>(as_number(*n));
  size_t channels = out.order == ImageOptions::Order::Gray ? 1 : 3;
  floats(map, "mean", channels, kOrders[static_cast<size_t>(out.order)], out.mean);
  floats(map, "std", channels, kOrders[static_cast<size_t>(out.order)], out.std);
  if (const YamlNode* n = map.find("dtype")) out.dtype = dtype_from_name(n->scalar);
  if (const YamlNode* n = map.find("labels")) out.labels = n->scalar;
  return out;
}

}  // namespace

DataSpec read_data(const YamlNode& node) {
  DataSpec out;
  if (const YamlNode* n = node.find("label")) out.label = n->scalar;
  if (const YamlNode* n = node.find("image")) out.image = read_image(*n);
  return out;
}

void apply(const DataSpec& data, DataOptions& options) {
  options.label = data.label;
  if (data.image) options.image = *data.image;
}

ImageTexts texts_of(const ImageOptions& image) {
  ImageTexts out{.filter = kFilters[static_cast<size_t>(image.filter)],
                 .layout = kLayouts[static_cast<size_t>(image.layout)],
                 .color = kOrders[static_cast<size_t>(image.order)]};
  if (image.resize == ImageOptions::Resize::ShortSide) out.resize = {image.resize_short};
  if (image.resize == ImageOptions::Resize::Exact) out.resize = {image.resize_height, image.resize_width};
  if (image.crop_height) out.crop = {image.crop_height, image.crop_width};
  return out;
}

}  // namespace infopt

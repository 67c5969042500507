#include <algorithm>
#include <cmath>
#include <cstring>

#include "lib/base/error.h"
#include "lib/data/image.h"

namespace infopt {
namespace {

[[noreturn]] void usage(const std::string& message) { throw Error(ErrorKind::Usage, message, "image preprocessing"); }

Image resized(const Image& image, const ImageOptions& o) {
  if (o.resize == ImageOptions::Resize::None) return image;
  if (o.resize == ImageOptions::Resize::Exact) return resize(image, o.resize_width, o.resize_height, o.filter);
  if (o.resize_short < 1) usage("the shorter side must be at least 1 pixel");
  const int64_t shorter = std::min(image.width, image.height), longer = std::max(image.width, image.height);
  if (o.resize_short > 65535) usage("the shorter side must be at most 65535 pixels");
  const int64_t other = o.resize_short * longer / shorter;
  return image.width <= image.height ? resize(image, o.resize_short, other, o.filter) : resize(image, other, o.resize_short, o.filter);
}

Image cropped(const Image& image, const ImageOptions& o, const std::string& where) {
  const int64_t width = o.crop_width ? o.crop_width : image.width, height = o.crop_height ? o.crop_height : image.height;
  if (width < 1 || height < 1) usage("the crop must be at least 1 pixel wide and high");
  if (width > image.width || height > image.height)
    throw Error(ErrorKind::Malformed,
                "is " + std::to_string(image.width) + "x" + std::to_string(image.height) + " after resizing, smaller than the crop of " +
                    std::to_string(width) + "x" + std::to_string(height),
                where);
  if (width == image.width && height == image.height) return image;
  const int64_t left = std::llrint(static_cast<double>(image.width - width) / 2),
                top = std::llrint(static_cast<double>(image.height - height) / 2);
  Image out{.width = width, .height = height, .channels = image.channels};
  out.pixels.reserve(static_cast<size_t>(width * height * image.channels));
  for (int64_t y = top; y < top + height; ++y) {
    const auto row = image.pixels.begin() + (y * image.width + left) * image.channels;
    out.pixels.insert(out.pixels.end(), row, row + width * image.channels);
  }
  return out;
}

float of_channel(const std::vector<float>& values, int64_t c, int64_t channels, float otherwise, const char* name) {
  if (values.empty()) return otherwise;
  if (values.size() != 1 && static_cast<int64_t>(values.size()) != channels)
    usage(std::string(name) + " has " + std::to_string(values.size()) + " values for " + std::to_string(channels) + " channels");
  return values[values.size() == 1 ? 0 : static_cast<size_t>(c)];
}

/// The element for each of the 256 pixel values of a channel.
std::vector<float> table_of(const ImageOptions& o, int64_t c, int64_t channels) {
  const float mean = of_channel(o.mean, c, channels, 0.0f, "mean"), std = of_channel(o.std, c, channels, 1.0f, "std");
  if (!std::isfinite(o.scale) || !std::isfinite(mean) || !std::isfinite(std) || std == 0)
    usage("scale, mean and std must be finite, and std not 0");
  std::vector<float> table(256);
  for (int v = 0; v < 256; ++v) table[static_cast<size_t>(v)] = (static_cast<float>(v) * o.scale - mean) / std;
  return table;
}

/// The table in the bytes of `dtype`.
Tensor converted(const std::vector<float>& table, DType dtype) {
  const Tensor floats = Tensor::vector(table);
  if (is_float(dtype) && bits_of(dtype) >= 16) return cast(floats, dtype);
  if (dtype != DType::U8 && dtype != DType::I8 && dtype != DType::I32 && dtype != DType::I64)
    usage("images can't be made " + std::string(name_of(dtype)));
  const float low = dtype == DType::U8 ? 0.0f : dtype == DType::I8 ? -128.0f : -2147483648.0f;
  const float high = dtype == DType::U8 ? 255.0f : dtype == DType::I8 ? 127.0f : 2147483520.0f;
  std::vector<float> rounded;
  for (float v : table) rounded.push_back(std::clamp(std::nearbyint(v), low, high));
  return cast(Tensor::vector(rounded), dtype);
}

/// Element i · out_step of `out` = element in[i · in_step] of `table`, both of `Item` bytes.
template <size_t Item>
void look_up(const uint8_t* in, int64_t in_step, const std::byte* table, std::byte* out, int64_t out_step, int64_t count) {
  for (int64_t i = 0; i < count; ++i) std::memcpy(out + static_cast<size_t>(i * out_step) * Item, table + in[i * in_step] * Item, Item);
}

}  // namespace

Tensor preprocess(const Image& image, const ImageOptions& options, const std::string& where) {
  const int64_t channels = options.order == ImageOptions::Order::Gray ? 1 : 3;
  const Image ready = cropped(resized(with_channels(image, channels), options), options, where);
  const bool nchw = options.layout == ImageOptions::Layout::Nchw;
  const int64_t area = ready.width * ready.height;
  Tensor out(options.dtype, nchw ? Shape{1, channels, ready.height, ready.width} : Shape{1, ready.height, ready.width, channels});
  for (int64_t c = 0; c < channels; ++c) {
    const Tensor table = converted(table_of(options, c, channels), options.dtype);
    const int64_t from = options.order == ImageOptions::Order::Bgr ? 2 - c : c, step = nchw ? 1 : channels;
    const size_t item = bits_of(options.dtype) / 8;
    std::byte* to = out.mutable_raw() + static_cast<size_t>(nchw ? c * area : c) * item;
    switch (item) {
      case 1: look_up<1>(&ready.pixels[static_cast<size_t>(from)], channels, table.raw(), to, step, area); break;
      case 2: look_up<2>(&ready.pixels[static_cast<size_t>(from)], channels, table.raw(), to, step, area); break;
      case 4: look_up<4>(&ready.pixels[static_cast<size_t>(from)], channels, table.raw(), to, step, area); break;
      default: look_up<8>(&ready.pixels[static_cast<size_t>(from)], channels, table.raw(), to, step, area); break;
    }
  }
  return out;
}

}  // namespace infopt

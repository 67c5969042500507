// JPEG and PNG images, decoded and brought into the form that a model takes.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/tensor.h"

namespace infopt {

/// 8-bit samples, interleaved, rows from the top.
struct Image {
  int64_t width = 0, height = 0, channels = 0;  ///< channels: 1 gray, 3 RGB
  std::vector<uint8_t> pixels;                  ///< height · width · channels
};

/// What happens to an image, in this order: resize, crop, order of channels, scale, mean and standard deviation, layout, dtype.
/// element = (pixel · scale − mean[c]) / std[c], computed in float; c counts in `order`.
struct ImageOptions {
  enum class Resize {
    None,
    ShortSide,  ///< the shorter side becomes resize_short, the other floor(resize_short · long / short)
    Exact,      ///< to resize_width × resize_height
  };
  enum class Filter { Nearest, Bilinear, Bicubic };
  enum class Order { Rgb, Bgr, Gray };
  enum class Layout { Nchw, Nhwc };

  std::string input;  ///< the model's input that the images are; empty: its first
  Resize resize = Resize::None;
  int64_t resize_short = 0, resize_width = 0, resize_height = 0;
  Filter filter = Filter::Bilinear;
  int64_t crop_width = 0, crop_height = 0;  ///< around the centre, the odd pixel to even: top = rint((H − h) / 2); 0: no crop
  Layout layout = Layout::Nchw;
  Order order = Order::Rgb;
  float scale = 1.0f / 255.0f;
  std::vector<float> mean, std;  ///< empty: 0 and 1; one: for all channels; else one a channel
  DType dtype = DType::F32;      ///< integers: rounded to even and saturated
  std::string labels;            ///< a CSV file of "file,label" lines; empty: labels.csv in the folder, or subfolders
};

/// RGB or gray as the file has it (an alpha channel is dropped, palettes are resolved, 16-bit samples scaled to 8, CMYK converted);
/// the EXIF orientation isn't applied. `bytes` is the whole file.
/// Throws Error(Malformed) where it is truncated or broken, Error(Limit) above 2^27 pixels, both with `where`.
Image decode_image(std::string_view bytes, const std::string& where);

/// `channels` 1: ITU-R 601 luma, (19595 R + 38470 G + 7471 B + 32768) / 65536; 3: gray repeated.
Image with_channels(const Image& image, int64_t channels);

/// Resizes as Image.resize of Pillow 13 does, bit for bit: a separable filter whose support grows with the reduction (antialiased: triangle
/// of radius 1, cubic with a = −0.5 of radius 2), weights normalized and rounded to 22 bits, 8 bits between the two passes: across and then
/// down, but down first where more rows go than twice the columns that go (Pillow before 13: always across first). Nearest takes the pixel
/// under the output pixel's centre.
Image resize(const Image& image, int64_t width, int64_t height, ImageOptions::Filter filter);

/// The tensor [1,C,H,W] or [1,H,W,C]. Throws Error(Usage) for options that contradict themselves, Error(Malformed) where the image is
/// smaller than the crop.
Tensor preprocess(const Image& image, const ImageOptions& options, const std::string& where);

}  // namespace infopt

#include <algorithm>
#include <cmath>

#include "lib/base/error.h"
#include "lib/base/simd.h"
#include "lib/data/image.h"

namespace infopt {
namespace {

constexpr int kBits = 22;

double triangle(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

/// For each output position the first input that counts, and the weights from there on.
struct Taps {
  std::vector<int64_t> first;
  std::vector<std::vector<int32_t>> weights;
};

Taps make_taps(int64_t from, int64_t to, ImageOptions::Filter filter) {
  const bool bilinear = filter == ImageOptions::Filter::Bilinear;
  const double ratio = static_cast<double>(from) / static_cast<double>(to);
  const double stretch = std::max(1.0, ratio);
  const double support = (bilinear ? 1.0 : 2.0) * stretch;
  Taps taps;
  std::vector<double> w;
  for (int64_t i = 0; i < to; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * ratio;
    const int64_t begin = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
    const int64_t end = std::min(from, static_cast<int64_t>(center + support + 0.5));
    w.clear();
    double sum = 0;
    for (int64_t k = begin; k < end; ++k) {
      const double x = (static_cast<double>(k) - center + 0.5) * (1.0 / stretch);
      w.push_back(bilinear ? triangle(x) : cubic(x));
      sum += w.back();
    }
    std::vector<int32_t> fixed;
    for (double v : w) {
      if (sum != 0) v /= sum;
      fixed.push_back(static_cast<int32_t>((v < 0 ? -0.5 : 0.5) + v * (1 << kBits)));
    }
    taps.first.push_back(begin);
    taps.weights.push_back(std::move(fixed));
  }
  return taps;
}

uint8_t to_byte(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

void resize_row(const uint8_t* in, uint8_t* out, const Taps& taps, int64_t channels) {
  for (size_t x = 0; x < taps.first.size(); ++x) {
    const std::vector<int32_t>& w = taps.weights[x];
    for (int64_t c = 0; c < channels; ++c) {
      int32_t sum = 1 << (kBits - 1);
      const uint8_t* p = in + taps.first[x] * channels + c;
      for (size_t k = 0; k < w.size(); ++k, p += channels) sum += *p * w[k];
      *out++ = to_byte(sum);
    }
  }
}

INFOPT_SIMD void add_row(int32_t* sums, const uint8_t* row, int32_t weight, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sums[i] += row[i] * weight;
}

Image resize_across(const Image& image, int64_t width, ImageOptions::Filter filter) {
  Image out{.width = width, .height = image.height, .channels = image.channels};
  out.pixels.resize(static_cast<size_t>(width * image.height * image.channels));
  const Taps taps = make_taps(image.width, width, filter);
  for (int64_t y = 0; y < image.height; ++y)
    resize_row(&image.pixels[static_cast<size_t>(y * image.width * image.channels)],
               &out.pixels[static_cast<size_t>(y * width * image.channels)], taps, image.channels);
  return out;
}

Image resize_down(const Image& image, int64_t height, ImageOptions::Filter filter) {
  Image out{.width = image.width, .height = height, .channels = image.channels};
  const int64_t stride = image.width * image.channels;
  out.pixels.resize(static_cast<size_t>(stride * height));
  const Taps taps = make_taps(image.height, height, filter);
  std::vector<int32_t> sums(static_cast<size_t>(stride));
  for (size_t y = 0; y < taps.first.size(); ++y) {
    std::fill(sums.begin(), sums.end(), 1 << (kBits - 1));
    const uint8_t* row = &image.pixels[static_cast<size_t>(taps.first[y] * stride)];
    for (size_t k = 0; k < taps.weights[y].size(); ++k)
      add_row(sums.data(), row + static_cast<int64_t>(k) * stride, taps.weights[y][k], stride);
    std::transform(sums.begin(), sums.end(), out.pixels.begin() + static_cast<int64_t>(y) * stride, to_byte);
  }
  return out;
}

/// floor((i + 0.5) · from / to), the sum built up step by step as Pillow's affine transform does.
std::vector<int64_t> nearest_positions(int64_t from, int64_t to) {
  const double step = static_cast<double>(from) / static_cast<double>(to);
  std::vector<int64_t> at;
  double position = step * 0.5;
  for (int64_t i = 0; i < to; ++i, position += step) at.push_back(std::min(from - 1, static_cast<int64_t>(position)));
  return at;
}

Image resize_nearest(const Image& image, int64_t width, int64_t height) {
  Image out{.width = width, .height = height, .channels = image.channels};
  out.pixels.reserve(static_cast<size_t>(width * height * image.channels));
  const std::vector<int64_t> xs = nearest_positions(image.width, width), ys = nearest_positions(image.height, height);
  for (int64_t y : ys)
    for (int64_t x : xs) {
      const auto p = image.pixels.begin() + (y * image.width + x) * image.channels;
      out.pixels.insert(out.pixels.end(), p, p + image.channels);
    }
  return out;
}

}  // namespace

Image resize(const Image& image, int64_t width, int64_t height, ImageOptions::Filter filter) {
  if (width < 1 || height < 1 || width > 65535 || height > 65535)
    throw Error(ErrorKind::Usage, "an image can't be resized to " + std::to_string(width) + "x" + std::to_string(height));
  if (width == image.width && height == image.height) return image;
  if (filter == ImageOptions::Filter::Nearest) return resize_nearest(image, width, height);
  if (width == image.width) return resize_down(image, height, filter);
  if (height == image.height) return resize_across(image, width, filter);
  const int64_t fewer_rows = image.height - height, fewer_columns = image.width - width;
  const bool down_first = fewer_rows > std::max<int64_t>(0, 2 * fewer_columns);
  return down_first ? resize_across(resize_down(image, height, filter), width, filter)
                    : resize_down(resize_across(image, width, filter), height, filter);
}

}  // namespace infopt

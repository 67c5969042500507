#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>

// jpeglib.h needs FILE and size_t declared before it.
#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

#include "lib/base/error.h"
#include "lib/data/image.h"

namespace infopt {
namespace {

constexpr int64_t kMaxPixels = int64_t{1} << 27;

void check_size(uint64_t width, uint64_t height, const std::string& where) {
  if (width == 0 || height == 0) throw Error(ErrorKind::Malformed, "is an image without pixels", where);
  if (width > static_cast<uint64_t>(kMaxPixels) / height)
    throw Error(ErrorKind::Limit,
                "is an image of " + std::to_string(width) + "x" + std::to_string(height) + " pixels; at most 2^27 are read", where);
}

/// Both libraries report errors by leaving through longjmp. It crosses only their frames and the small functions below that hold
/// nothing with a destructor; what they fill lives in this struct, outside.
struct Jump {
  std::jmp_buf target;
  char message[JMSG_LENGTH_MAX] = "";
};

// JPEG

struct JpegError {
  jpeg_error_mgr manager;  // first: libjpeg hands back a pointer to it
  Jump jump;
};

[[noreturn]] void jpeg_fail(j_common_ptr info) {
  auto* error = reinterpret_cast<JpegError*>(info->err);
  info->err->format_message(info, error->jump.message);
  std::longjmp(error->jump.target, 1);
}

/// Warnings that mean lost pixels are errors; others, such as stray bytes between markers, are not.
void jpeg_message(j_common_ptr info, int level) {
  const int code = info->err->msg_code;
  if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE)) jpeg_fail(info);
}

struct JpegReader {
  jpeg_decompress_struct info{};
  JpegError error{};

  JpegReader() {
    info.err = jpeg_std_error(&error.manager);
    error.manager.error_exit = jpeg_fail;
    error.manager.emit_message = jpeg_message;
  }
  ~JpegReader() { jpeg_destroy_decompress(&info); }

  bool begin(const unsigned char* bytes, size_t size) {
    if (setjmp(error.jump.target)) return false;
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, bytes, size);
    jpeg_read_header(&info, TRUE);
    if (info.num_components == 1) info.out_color_space = JCS_GRAYSCALE;
    else info.out_color_space = info.num_components == 4 ? JCS_CMYK : JCS_RGB;
    return true;
  }
  bool read(unsigned char* out, size_t stride) {
    if (setjmp(error.jump.target)) return false;
    jpeg_start_decompress(&info);
    while (info.output_scanline < info.output_height) {
      JSAMPROW row = out + stride * info.output_scanline;
      jpeg_read_scanlines(&info, &row, 1);
    }
    jpeg_finish_decompress(&info);
    return true;
  }
};

/// `p` holds C, M, Y, K; Adobe's files hold them inverted.
void cmyk_to_rgb(const uint8_t* p, bool inverted, uint8_t* rgb) {
  const int k = inverted ? p[3] : 255 - p[3];
  for (int c = 0; c < 3; ++c) {
    const int ink = inverted ? 255 - p[c] : p[c];
    const int product = ink * k + 128;
    rgb[c] = static_cast<uint8_t>(k - ((product + (product >> 8)) >> 8));
  }
}

Image decode_jpeg(std::string_view bytes, const std::string& where) {
  JpegReader reader;
  const auto fail = [&] { throw Error(ErrorKind::Malformed, std::string("is a broken JPEG image: ") + reader.error.jump.message, where); };
  if (!reader.begin(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size())) fail();
  check_size(reader.info.image_width, reader.info.image_height, where);
  const bool cmyk = reader.info.out_color_space == JCS_CMYK;
  const int64_t channels = cmyk ? 4 : reader.info.out_color_space == JCS_GRAYSCALE ? 1 : 3;
  Image image{.width = reader.info.image_width, .height = reader.info.image_height, .channels = channels};
  image.pixels.resize(static_cast<size_t>(image.width * image.height * channels));
  if (!reader.read(image.pixels.data(), static_cast<size_t>(image.width * channels))) fail();
  if (!cmyk) return image;
  Image rgb{.width = image.width, .height = image.height, .channels = 3};
  rgb.pixels.resize(static_cast<size_t>(image.width * image.height * 3));
  for (size_t i = 0; i < rgb.pixels.size() / 3; ++i) cmyk_to_rgb(&image.pixels[4 * i], reader.info.saw_Adobe_marker, &rgb.pixels[3 * i]);
  return rgb;
}

// PNG

struct PngReader {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::string_view rest;
  Jump jump;

  explicit PngReader(std::string_view bytes) : rest(bytes) {
    png = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, fail, ignore);
    if (png) info = png_create_info_struct(png);
    if (!info) throw Error(ErrorKind::Limit, "out of memory for an image");
  }
  ~PngReader() { png_destroy_read_struct(&png, &info, nullptr); }

  [[noreturn]] static void fail(png_structp p, png_const_charp message) {
    auto* self = static_cast<PngReader*>(png_get_error_ptr(p));
    std::snprintf(self->jump.message, sizeof self->jump.message, "%s", message);
    std::longjmp(self->jump.target, 1);
  }
  static void ignore(png_structp, png_const_charp) {}
  static void take(png_structp p, png_bytep out, size_t n) {
    auto* self = static_cast<PngReader*>(png_get_io_ptr(p));
    if (n > self->rest.size()) png_error(p, "it is truncated");
    std::memcpy(out, self->rest.data(), n);
    self->rest.remove_prefix(n);
  }

  bool begin() {
    if (setjmp(jump.target)) return false;
    png_set_read_fn(png, this, take);
    png_set_user_limits(png, 0x7FFFFFFF, 0x7FFFFFFF);
    png_read_info(png, info);
    return true;
  }
  bool transform() {
    if (setjmp(jump.target)) return false;
    png_set_palette_to_rgb(png);
    png_set_expand_gray_1_2_4_to_8(png);
    png_set_scale_16(png);
    png_set_strip_alpha(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
    return true;
  }
  bool read(png_bytep* rows) {
    if (setjmp(jump.target)) return false;
    png_read_image(png, rows);
    png_read_end(png, nullptr);
    return true;
  }
};

Image decode_png(std::string_view bytes, const std::string& where) {
  PngReader reader(bytes);
  const auto fail = [&] { throw Error(ErrorKind::Malformed, std::string("is a broken PNG image: ") + reader.jump.message, where); };
  if (!reader.begin()) fail();
  check_size(png_get_image_width(reader.png, reader.info), png_get_image_height(reader.png, reader.info), where);
  if (!reader.transform()) fail();
  Image image{.width = png_get_image_width(reader.png, reader.info),
              .height = png_get_image_height(reader.png, reader.info),
              .channels = png_get_channels(reader.png, reader.info)};
  if (image.channels != 1 && image.channels != 3)
    throw Error(ErrorKind::Unsupported, "is a PNG image of " + std::to_string(image.channels) + " channels", where);
  const size_t stride = png_get_rowbytes(reader.png, reader.info);
  image.pixels.resize(stride * static_cast<size_t>(image.height));
  std::vector<png_bytep> rows;
  for (int64_t y = 0; y < image.height; ++y) rows.push_back(image.pixels.data() + stride * static_cast<size_t>(y));
  if (!reader.read(rows.data())) fail();
  return image;
}

}  // namespace

Image decode_image(std::string_view bytes, const std::string& where) {
  if (bytes.starts_with("\xFF\xD8")) return decode_jpeg(bytes, where);
  if (bytes.starts_with("\x89PNG\r\n\x1A\n")) return decode_png(bytes, where);
  throw Error(ErrorKind::Malformed, "is neither a JPEG nor a PNG image", where);
}

Image with_channels(const Image& image, int64_t channels) {
  if (image.channels == channels) return image;
  Image out{.width = image.width, .height = image.height, .channels = channels};
  const size_t count = static_cast<size_t>(image.width * image.height);
  out.pixels.resize(count * static_cast<size_t>(channels));
  for (size_t i = 0; i < count; ++i) {
    if (channels == 1) {
      const uint8_t* p = &image.pixels[3 * i];
      out.pixels[i] = static_cast<uint8_t>((p[0] * 19595u + p[1] * 38470u + p[2] * 7471u + 0x8000u) >> 16);
    } else {
      std::fill_n(&out.pixels[3 * i], 3, image.pixels[i]);
    }
  }
  return out;
}

}  // namespace infopt

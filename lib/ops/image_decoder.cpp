// ImageDecoder, for JPEG and PNG. https://onnx.ai/onnx/operators/onnx__ImageDecoder.html
#include <algorithm>

#include "lib/data/image.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

std::unique_ptr<Kernel> image_decoder(const KernelSpec& spec) {
  const std::string format = spec.node.s("pixel_format", "RGB");
  if (format != "RGB" && format != "BGR" && format != "Grayscale") malformed("ImageDecoder with the pixel_format '" + format + "'");
  return make_kernel([format](KernelContext& c) {
    const Tensor& x = c.in(0);
    if (x.dtype() != DType::U8 || x.rank() != 1) malformed("ImageDecoder takes a file's bytes, not " + std::string(name_of(x.dtype())) + to_string(x.shape()));
    const std::string_view bytes(reinterpret_cast<const char*>(x.raw()), x.bytes());
    if (!bytes.starts_with("\xFF\xD8") && !bytes.starts_with("\x89PNG")) unsupported("ImageDecoder of other files than JPEG and PNG");
    Image image = with_channels(decode_image(bytes, "the image"), format == "Grayscale" ? 1 : 3);
    if (format == "BGR")
      for (size_t i = 0; i + 2 < image.pixels.size(); i += 3) std::swap(image.pixels[i], image.pixels[i + 2]);
    Tensor& y = c.out(0, DType::U8, {image.height, image.width, image.channels});
    std::copy(image.pixels.begin(), image.pixels.end(), y.mutable_data<uint8_t>());
  });
}

}  // namespace

std::vector<OpDef> op_image_decoder() { return {{.name = "ImageDecoder", .since = 20, .cpu = &image_decoder}}; }

}  // namespace infopt

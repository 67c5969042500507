#include "lib/runtime/cpu/int8_conv.h"

#include <algorithm>
#include <optional>

#include "lib/base/error.h"
#include "lib/runtime/cpu/int8_centred.h"
#include "lib/runtime/cpu/int8_depthwise.h"
#include "lib/runtime/cpu/int8_panels.h"
#include "lib/runtime/cpu/int8_slab.h"

namespace infopt::cpu {
namespace {

constexpr int64_t kSlabBytes = 192 << 10, kMostPixels = 480, kLeastTasks = 16;

[[noreturn]] void misfit(const std::string& what) { throw Error(ErrorKind::Malformed, "Conv: " + what); }

/// A list of the spatial axes, put behind axes of size 1.
Int8Axes axes_of(const std::vector<int64_t>& list, size_t spatial, int64_t filler) {
  if (list.size() != spatial)
    misfit("a list has " + std::to_string(list.size()) + " entries for " + std::to_string(spatial) + " spatial axes");
  Int8Axes axes{filler, filler, filler};
  std::copy(list.begin(), list.end(), axes.end() - static_cast<std::ptrdiff_t>(spatial));
  return axes;
}

Int8Window window_of(const ConvGeometry& g, const Tensor& weights, DType src_dtype) {
  if (weights.rank() < 3 || weights.rank() > 5)
    throw Error(ErrorKind::Unsupported, "an 8-bit convolution has weights of rank 3 to 5, not " + to_string(weights.shape()));
  if (g.groups < 1 || weights.dim(0) % g.groups != 0) misfit("the weights " + to_string(weights.shape()) + " don't fit the groups");
  const size_t spatial = static_cast<size_t>(weights.rank() - 2);
  Int8Window w;
  w.kernel = axes_of({weights.shape().begin() + 2, weights.shape().end()}, spatial, 1);
  w.strides = axes_of(g.strides, spatial, 1);
  w.dilations = axes_of(g.dilations, spatial, 1);
  w.pads_begin = axes_of(g.pads_begin, spatial, 0);
  w.pads_end = axes_of(g.pads_end, spatial, 0);
  for (size_t i = 0; i < 3; ++i)
    if (w.strides[i] < 1 || w.dilations[i] < 1 || w.kernel[i] < 1) misfit("strides, dilations and kernel are at least 1");
  w.channels = weights.dim(1) * g.groups;
  w.flip = src_dtype == DType::I8 ? 0x80 : 0;
  return w;
}

/// Pointers to width pixels of each of some lines.
void point_at_pixels(const uint8_t* first, int64_t lines, int64_t line_stride, int64_t width, int64_t pixel, const uint8_t** rows) {
  if (line_stride == width * pixel) width *= lines, lines = 1;
  for (int64_t y = 0; y < lines; ++y, first += line_stride)
    for (int64_t x = 0; x < width; ++x) *rows++ = first + x * pixel;
}

/// Every tap's channels follow each other in memory along a line of the kernel.
bool lines_are_dense(const ConvGeometry& g, const Int8Window& w) { return g.groups == 1 && (w.dilations[2] == 1 || w.kernel[2] == 1); }

}  // namespace

struct Int8Convolution::Impl {
  Int8Window window;
  size_t spatial = 2;
  int64_t columns = 0, taps_in_run = 1;
  std::optional<Int8Panels> panels;
  std::optional<Int8Depthwise> depthwise;

  Int8Extent extent_of(const Shape& src) const;
  void make_panels(const ConvGeometry& geometry, const Tensor& weights, const std::vector<int32_t>& zeros);

  /// How the work is cut: chunks of lines of one plane of output, and within one the panels in parts.
  struct Cut {
    int64_t lines, chunks_of_plane, chunks, panels_of_part, parts;
  };
  Cut cut_of(const Int8Extent& extent) const;

  /// What one call of run works with.
  struct Job {
    Int8Window window;  ///< with the activations' zero point
    Int8Extent extent;
    const uint8_t* src;
    void* dst;
    const void* residual;
    Int8Finish finish;
  };
  /// A chunk of lines.
  struct Chunk {
    int64_t image, plane, first, last;
  };
  Chunk chunk_of(const Job& job, const Cut& cut, int64_t chunk) const;
  const uint8_t* image_of(const Job& job, const Chunk& chunk) const;
  Int8Slab slab_of(const Job& job, const Chunk& chunk) const;
  int64_t pixel_of(const Job& job, const Chunk& chunk) const;
  void run_panels(const Job& job, const Chunk& chunk, const Int8Panels::Prepared& prepared, size_t first, size_t last) const;
  void run_depthwise(const Job& job, const Chunk& chunk, const Int8Depthwise::Prepared& prepared) const;
};

Int8Extent Int8Convolution::Impl::extent_of(const Shape& src) const {
  if (src.size() != spatial + 2 || src[1] != window.channels) misfit("the input " + to_string(src) + " doesn't fit the weights");
  Int8Extent extent;
  extent.images = src[0];
  std::copy(src.begin() + 2, src.end(), extent.in.end() - static_cast<std::ptrdiff_t>(spatial));
  bool flat = !window.pads() && !window.flip && !window.slack;
  for (size_t i = 0; i < 3; ++i) {
    const int64_t room = extent.in[i] + window.pads_begin[i] + window.pads_end[i] - (window.kernel[i] - 1) * window.dilations[i] - 1;
    if (room < 0) misfit("the window doesn't fit the input " + to_string(src));
    extent.out[i] = room / window.strides[i] + 1;
    flat = flat && window.kernel[i] == 1 && window.strides[i] == 1;
  }
  if (flat) {  // each pixel by itself: they make one long image
    const int64_t pixels = extent.images * extent.in[0] * extent.in[1] * extent.in[2];
    extent = {1, {1, pixels, 1}, {1, pixels, 1}};
  }
  return extent;
}

Int8Convolution::Impl::Cut Int8Convolution::Impl::cut_of(const Int8Extent& extent) const {
  const int64_t height = extent.out[1], two = int8_slab_bytes(window, extent, 2), one = int8_slab_bytes(window, extent, 1);
  const int64_t in_cache = 1 + std::max<int64_t>(kSlabBytes - one, 0) / std::max<int64_t>(two - one, 1);
  int64_t lines =
      std::clamp<int64_t>(std::min(in_cache, kMostPixels / std::max<int64_t>(extent.out[2], 1)), 1, std::max<int64_t>(height, 1));
  Cut cut{};
  cut.chunks_of_plane = (height + lines - 1) / lines;
  cut.lines = cut.chunks_of_plane ? (height + cut.chunks_of_plane - 1) / cut.chunks_of_plane : 1;
  cut.chunks_of_plane = (height + cut.lines - 1) / cut.lines;
  cut.chunks = extent.images * extent.out[0] * cut.chunks_of_plane;
  cut.parts = cut.panels_of_part = 1;
  if (panels && !panels->panels().empty()) {
    const int64_t all = static_cast<int64_t>(panels->panels().size());
    const int64_t parts = cut.chunks >= kLeastTasks || cut.chunks == 0 ? 1 : std::min(all, (kLeastTasks + cut.chunks - 1) / cut.chunks);
    cut.panels_of_part = (all + parts - 1) / parts;
    cut.parts = (all + cut.panels_of_part - 1) / cut.panels_of_part;
  }
  return cut;
}

Int8Convolution::Impl::Chunk Int8Convolution::Impl::chunk_of(const Job& job, const Cut& cut, int64_t chunk) const {
  const int64_t plane = chunk / cut.chunks_of_plane, first = chunk % cut.chunks_of_plane * cut.lines;
  return {plane / job.extent.out[0], plane % job.extent.out[0], first, std::min(first + cut.lines, job.extent.out[1])};
}

const uint8_t* Int8Convolution::Impl::image_of(const Job& job, const Chunk& chunk) const {
  return job.src + chunk.image * job.extent.in[0] * job.extent.in[1] * job.extent.in[2] * window.channels;
}

Int8Slab Int8Convolution::Impl::slab_of(const Job& job, const Chunk& chunk) const {
  return int8_slab(job.window, job.extent, image_of(job, chunk), chunk.plane, chunk.first, chunk.last);
}

/// The chunk's first pixel in dst.
int64_t Int8Convolution::Impl::pixel_of(const Job& job, const Chunk& chunk) const {
  const Int8Axes& out = job.extent.out;
  return ((chunk.image * out[0] + chunk.plane) * out[1] + chunk.first) * out[2];
}

void Int8Convolution::Impl::run_panels(const Job& job, const Chunk& chunk, const Int8Panels::Prepared& prepared, size_t first,
                                       size_t last) const {
  const Int8Slab slab = slab_of(job, chunk);
  const int64_t width = job.extent.out[2], lines = chunk.last - chunk.first, pixel = window.strides[2] * window.channels;
  const size_t pixels = static_cast<size_t>(lines * width), runs = static_cast<size_t>(panels->runs());
  const uint8_t** rows = static_cast<const uint8_t**>(int8_scratch(Int8Slot::Pointers, pixels * sizeof(uint8_t*) + runs * sizeof(int64_t)));
  int64_t* taps = reinterpret_cast<int64_t*>(rows + pixels);
  point_at_pixels(slab.data, lines, window.strides[1] * slab.line_stride, width, pixel, rows);
  const int64_t runs_of_line = window.kernel[2] / taps_in_run, lines_of_window = window.kernel[0] * window.kernel[1];
  for (int64_t r = 0; r < panels->runs(); ++r) {  // several times through the window where the weights come in parts
    const int64_t line = r / runs_of_line % lines_of_window, z = line / window.kernel[1], y = line % window.kernel[1], x = r % runs_of_line;
    taps[r] = z * window.dilations[0] * slab.plane_stride + y * window.dilations[1] * slab.line_stride +
              x * window.dilations[2] * window.channels;
  }
  Int8Tile tile;
  tile.rows = rows;
  tile.count = lines * width;
  tile.taps = taps;
  tile.tap_count = panels->runs();
  tile.steps = panels->steps();
  tile.stride = columns;
  int64_t summed_group = -1;
  const int64_t place = pixel_of(job, chunk) * columns;
  for (size_t p = first; p < last; ++p) {
    const Int8Panel panel = prepared.panel(p);
    const int64_t group = panels->panels()[p].group;
    tile.shift = group * panels->group_channels();
    if (panels->has_zero_points() && group != summed_group) {
      int32_t* sums = static_cast<int32_t*>(int8_scratch(Int8Slot::Sums, pixels * sizeof(int32_t)));
      panels->sum_rows(tile, sums);
      tile.row_sums = sums;
      summed_group = group;
    }
    tile.dst = int8_place(job.dst, place + panel.first, job.finish);
    tile.residual = int8_place(job.residual, place + panel.first, job.finish);
    int8_kernels().product(tile, panel, job.finish);
  }
}

void Int8Convolution::Impl::run_depthwise(const Job& job, const Chunk& chunk, const Int8Depthwise::Prepared& prepared) const {
  const bool slides = depthwise->slides(window) && job.extent.in[0] == 1 && job.extent.out[0] == 1;
  Int8Slab slab = slides ? Int8Slab{} : slab_of(job, chunk);
  int64_t place = pixel_of(job, chunk) * columns;
  for (int64_t y = chunk.first; y < chunk.last; ++y) {
    void* dst = int8_place(job.dst, place, job.finish);
    const void* residual = int8_place(job.residual, place, job.finish);
    if (slides) {
      depthwise->sliding_line(job.window, job.extent, image_of(job, chunk), y, prepared, job.finish, dst, residual);
    } else {
      depthwise->line(job.window, slab, job.extent.out[2], prepared, job.finish, dst, residual);
      slab.data += window.strides[1] * slab.line_stride;
    }
    place += job.extent.out[2] * columns;
  }
}

void Int8Convolution::Impl::make_panels(const ConvGeometry& geometry, const Tensor& weights, const std::vector<int32_t>& zeros) {
  const int64_t taps = window.kernel[0] * window.kernel[1] * window.kernel[2];
  Int8WeightSource source;
  source.data = reinterpret_cast<const uint8_t*>(weights.raw());
  source.is_unsigned = weights.dtype() == DType::U8;
  source.columns = columns;
  source.channels = weights.dim(1);
  source.column_stride = source.channels * taps;
  source.channel_stride = taps;
  source.groups = geometry.groups;
  const int32_t* zero_points = zeros.empty() ? nullptr : zeros.data();
  std::vector<int8_t> centred;
  int64_t parts = 1;
  if (geometry.groups > 1 && columns / geometry.groups < kInt8Lanes) {  // such groups are joined, which rows' sums can't be
    for (const auto& part : centred_parts(source.data, source.is_unsigned, zero_points, columns, source.column_stride))
      centred.insert(centred.end(), part.begin(), part.end());
    parts = static_cast<int64_t>(centred.size()) / std::max<int64_t>(weights.size(), 1);
    source.data = reinterpret_cast<const uint8_t*>(centred.data());
    source.is_unsigned = false;
    zero_points = nullptr;
  }
  for (int64_t p = 0; p < parts; ++p)
    for (int64_t t = 0; t < taps; ++t) source.tap_offsets.push_back(p * weights.size() + t);
  if (lines_are_dense(geometry, window)) taps_in_run = window.kernel[2];
  panels.emplace(source, taps_in_run, zero_points);
  if (panels->run_bytes() % 4 != 0) window.slack = 4;
}

Int8Convolution::Int8Convolution(const ConvGeometry& geometry, const Tensor& weights, DType src_dtype, const int32_t* weight_zeros)
    : impl_(std::make_unique<Impl>()) {
  const auto is_byte = [](DType t) { return t == DType::U8 || t == DType::I8; };
  if (geometry.transposed || !is_byte(src_dtype) || !is_byte(weights.dtype())) throw Error(ErrorKind::Defect, "not an 8-bit convolution");
  impl_->window = window_of(geometry, weights, src_dtype);
  impl_->spatial = static_cast<size_t>(weights.rank() - 2);
  impl_->columns = weights.dim(0);
  std::vector<int32_t> zeros;
  if (weight_zeros) zeros.assign(weight_zeros, weight_zeros + impl_->columns);
  const bool depthwise = weights.dim(1) == 1 && impl_->columns == geometry.groups && impl_->window.kernel[0] == 1;
  if (depthwise)
    impl_->depthwise.emplace(reinterpret_cast<const uint8_t*>(weights.raw()), weights.dtype() == DType::U8, weight_zeros, impl_->window);
  else impl_->make_panels(geometry, weights, zeros);
}

Int8Convolution::~Int8Convolution() = default;
Int8Convolution::Int8Convolution(Int8Convolution&&) noexcept = default;

Shape Int8Convolution::output_shape(const Shape& src) const {
  impl_->extent_of(src);
  Shape shape{src[0], impl_->columns};
  for (size_t i = 2; i < src.size(); ++i) {
    const Int8Window& w = impl_->window;
    const size_t axis = i - 2 + 3 - impl_->spatial;
    shape.push_back((src[i] + w.pads_begin[axis] + w.pads_end[axis] - (w.kernel[axis] - 1) * w.dilations[axis] - 1) / w.strides[axis] + 1);
  }
  return shape;
}

int64_t Int8Convolution::tasks(const Shape& src) const {
  const Impl::Cut cut = impl_->cut_of(impl_->extent_of(src));
  return cut.chunks * cut.parts;
}

void Int8Convolution::run(const Tensor& src, int32_t zero, const Int8Epilogue& epilogue, const Tensor* residual, Tensor& dst, int64_t begin,
                          int64_t end) const {
  Impl::Job job{impl_->window, impl_->extent_of(src.shape()), reinterpret_cast<const uint8_t*>(src.raw()), dst.mutable_raw(),
                      epilogue.residual && residual ? residual->raw() : nullptr, Int8Finish(epilogue)};
  job.window.zero = zero + job.window.flip;
  if (dst.dtype() != epilogue.output || (epilogue.residual && !job.residual))
    throw Error(ErrorKind::Defect, "the epilogue doesn't fit its tensors");
  const Impl::Cut cut = impl_->cut_of(job.extent);
  if (impl_->depthwise) {
    const Int8Depthwise::Prepared prepared = impl_->depthwise->prepare(epilogue, job.window.zero);
    for (int64_t t = begin; t < end; ++t) impl_->run_depthwise(job, impl_->chunk_of(job, cut, t), prepared);
    return;
  }
  const size_t panels = impl_->panels->panels().size();
  const Int8Panels::Prepared prepared = impl_->panels->prepare(epilogue, job.window.zero, 0, panels);
  for (int64_t t = begin; t < end;) {  // the parts of one chunk together
    const int64_t chunk = t / cut.parts, first = t % cut.parts, last = std::min(cut.parts, first + end - t);
    impl_->run_panels(job, impl_->chunk_of(job, cut, chunk), prepared, static_cast<size_t>(first * cut.panels_of_part),
                      std::min(panels, static_cast<size_t>(last * cut.panels_of_part)));
    t += last - first;
  }
}

}  // namespace infopt::cpu

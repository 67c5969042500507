// NonMaxSuppression, RoiAlign, MaxRoiPool, MaxUnpool.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

struct Box {
  float x1, y1, x2, y2;
};

Box box_of(const float* b, bool center) {
  if (center) return {b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2};
  return {std::min(b[1], b[3]), std::min(b[0], b[2]), std::max(b[1], b[3]), std::max(b[0], b[2])};
}

bool overlaps(const Box& a, const Box& b, float threshold) {
  const float width = std::min(a.x2, b.x2) - std::max(a.x1, b.x1), height = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
  if (!(width > 0) || !(height > 0)) return false;
  const float area_a = (a.x2 - a.x1) * (a.y2 - a.y1), area_b = (b.x2 - b.x1) * (b.y2 - b.y1), both = width * height,
              all = area_a + area_b - both;
  return area_a > 0 && area_b > 0 && all > 0 && both / all > threshold;
}

std::unique_ptr<Kernel> non_max_suppression(const KernelSpec& spec) {
  const bool center = spec.node.i("center_point_box", 0) != 0;
  return make_kernel([center](KernelContext& c) {
    const Tensor &boxes = c.in(0), &scores = c.in(1);
    if (boxes.rank() != 3 || scores.rank() != 3 || boxes.dim(2) != 4 || boxes.dim(0) != scores.dim(0) || boxes.dim(1) != scores.dim(2) ||
        boxes.dtype() != DType::F32 || scores.dtype() != DType::F32)
      malformed("NonMaxSuppression of boxes of shape " + to_string(boxes.shape()) + " and scores of shape " + to_string(scores.shape()));
    const int64_t most = c.has(2) ? to_scalar<int64_t>(c.in(2)) : 0;
    const float iou = c.has(3) ? to_scalar<float>(c.in(3)) : 0;
    const bool limited = c.has(4);
    const float least = limited ? to_scalar<float>(c.in(4)) : 0;
    const int64_t batches = boxes.dim(0), classes = scores.dim(1), n = boxes.dim(1);
    std::vector<int64_t> chosen, order;
    std::vector<Box> all(at(n)), kept;
    for (int64_t b = 0; b < batches; ++b) {
      for (int64_t i = 0; i < n; ++i) all[at(i)] = box_of(boxes.data<float>() + (b * n + i) * 4, center);
      for (int64_t k = 0; k < classes; ++k) {
        const float* score = scores.data<float>() + (b * classes + k) * n;
        order.clear();
        kept.clear();
        for (int64_t i = 0; i < n; ++i)
          if (!std::isnan(score[i]) && (!limited || score[i] > least)) order.push_back(i);
        std::stable_sort(order.begin(), order.end(), [&](int64_t x, int64_t y) { return score[x] > score[y]; });
        for (const int64_t i : order) {
          if (static_cast<int64_t>(kept.size()) >= most) break;
          if (std::any_of(kept.begin(), kept.end(), [&](const Box& other) { return overlaps(all[at(i)], other, iou); })) continue;
          kept.push_back(all[at(i)]);
          chosen.insert(chosen.end(), {b, k, i});
        }
      }
    }
    c.set(0, Tensor::vector(chosen).reshaped({static_cast<int64_t>(chosen.size()) / 3, 3}));
  });
}

/// A bilinear sample of a feature map: four places and their weights, all zero outside.
struct Sample {
  int64_t place[4] = {0, 0, 0, 0};
  float weight[4] = {0, 0, 0, 0};
};

Sample sample_at(float y, float x, int64_t height, int64_t width) {
  Sample s;
  if (!(y >= -1 && y <= static_cast<float>(height) && x >= -1 && x <= static_cast<float>(width))) return s;
  y = std::max(y, 0.0F);
  x = std::max(x, 0.0F);
  const int64_t y0 = std::min(static_cast<int64_t>(y), height - 1), x0 = std::min(static_cast<int64_t>(x), width - 1);
  const int64_t y1 = std::min(y0 + 1, height - 1), x1 = std::min(x0 + 1, width - 1);
  const float fy = y0 == height - 1 ? 0 : y - static_cast<float>(y0), fx = x0 == width - 1 ? 0 : x - static_cast<float>(x0);
  const int64_t places[4] = {y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1};
  const float weights[4] = {(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx};
  std::copy_n(places, 4, s.place);
  std::copy_n(weights, 4, s.weight);
  return s;
}

struct RoiSpec {
  int64_t height, width, ratio;
  float scale;
  bool average, half_pixel;
};

/// The samples of every bin of a region, bin by bin: `count` each.
std::vector<Sample> region_samples(const RoiSpec& s, const float* roi, int64_t height, int64_t width, int64_t& count) {
  const float offset = s.half_pixel ? 0.5F : 0;
  const float x0 = roi[0] * s.scale - offset, y0 = roi[1] * s.scale - offset;
  float w = roi[2] * s.scale - offset - x0, h = roi[3] * s.scale - offset - y0;
  if (!s.half_pixel) {
    w = std::max(w, 1.0F);
    h = std::max(h, 1.0F);
  }
  const float bin_h = h / static_cast<float>(s.height), bin_w = w / static_cast<float>(s.width);
  if (!(std::abs(bin_h) < 1e6F && std::abs(bin_w) < 1e6F)) malformed("RoiAlign of a region that isn't finite, or too large");
  const int64_t grid_h = s.ratio > 0 ? s.ratio : std::max<int64_t>(0, static_cast<int64_t>(std::ceil(bin_h)));
  const int64_t grid_w = s.ratio > 0 ? s.ratio : std::max<int64_t>(0, static_cast<int64_t>(std::ceil(bin_w)));
  count = grid_h * grid_w;
  if (count > (int64_t{1} << 24) / (s.height * s.width)) throw Error(ErrorKind::Limit, "RoiAlign samples a region too densely");
  std::vector<Sample> samples;
  samples.reserve(at(count * s.height * s.width));
  for (int64_t ph = 0; ph < s.height; ++ph)
    for (int64_t pw = 0; pw < s.width; ++pw)
      for (int64_t iy = 0; iy < grid_h; ++iy)
        for (int64_t ix = 0; ix < grid_w; ++ix)
          samples.push_back(sample_at(
              y0 + static_cast<float>(ph) * bin_h + (static_cast<float>(iy) + 0.5F) * bin_h / static_cast<float>(grid_h),
              x0 + static_cast<float>(pw) * bin_w + (static_cast<float>(ix) + 0.5F) * bin_w / static_cast<float>(grid_w), height, width));
  return samples;
}

float pooled(const Sample* samples, int64_t count, const float* map, bool average) {
  float result = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Sample& s = samples[i];
    float v[4];
    for (int k = 0; k < 4; ++k) v[k] = s.weight[k] * map[s.place[k]];
    if (average) result += v[0] + v[1] + v[2] + v[3];
    else result = i ? std::max(result, *std::max_element(v, v + 4)) : *std::max_element(v, v + 4);
  }
  return average ? result / static_cast<float>(std::max<int64_t>(1, count)) : result;
}

void roi_align_run(KernelContext& c, const RoiSpec& s) {
  const Tensor x = cast(c.in(0), DType::F32), rois = cast(c.in(1), DType::F32);
  const std::vector<int64_t> batch = integers(c.in(2));
  const auto n = static_cast<int64_t>(batch.size());
  if (x.rank() != 4 || rois.rank() != 2 || rois.dim(0) != n || rois.dim(1) != 4 || x.dim(2) == 0 || x.dim(3) == 0)
    malformed("RoiAlign of a map of shape " + to_string(x.shape()) + " with regions of shape " + to_string(rois.shape()));
  const int64_t channels = x.dim(1), map = x.dim(2) * x.dim(3), bins = s.height * s.width;
  Tensor y(DType::F32, {n, channels, s.height, s.width});
  float* out = y.mutable_data<float>();
  for (int64_t r = 0; r < n; ++r) {
    const int64_t b = batch[at(r)];
    if (b < 0 || b >= x.dim(0)) malformed("index " + std::to_string(b) + " is out of range for a batch of " + std::to_string(x.dim(0)));
    int64_t count = 0;
    const std::vector<Sample> samples = region_samples(s, rois.data<float>() + r * 4, x.dim(2), x.dim(3), count);
    for (int64_t ch = 0; ch < channels; ++ch) {
      const float* in = x.data<float>() + (b * channels + ch) * map;
      for (int64_t k = 0; k < bins; ++k) *out++ = pooled(samples.data() + k * count, count, in, s.average);
    }
  }
  c.set(0, cast(y, c.in(0).dtype()));
}

std::unique_ptr<Kernel> roi_align(const KernelSpec& spec) {
  const Node& node = spec.node;
  const bool half_pixel = spec.opset >= 16 && node.s("coordinate_transformation_mode", "half_pixel") == "half_pixel";
  const RoiSpec s{node.i("output_height", 1), node.i("output_width", 1),      node.i("sampling_ratio", 0),
                  node.f("spatial_scale", 1), node.s("mode", "avg") == "avg", half_pixel};
  if (s.height < 1 || s.width < 1 || s.height > 1 << 15 || s.width > 1 << 15 || s.ratio < 0 || s.ratio > 1 << 15)
    malformed("RoiAlign's output size or sampling ratio is out of range");
  return make_kernel([s](KernelContext& c) { roi_align_run(c, s); });
}

/// [first, last) of bin `i` of `bins` over `length` pixels from `start`, cut to [0, limit).
std::pair<int64_t, int64_t> bin_range(int64_t i, int64_t bins, int64_t start, int64_t length, int64_t limit) {
  const float size = static_cast<float>(length) / static_cast<float>(bins);
  const auto a = static_cast<int64_t>(std::floor(static_cast<float>(i) * size)),
             b = static_cast<int64_t>(std::ceil(static_cast<float>(i + 1) * size));
  return {std::clamp<int64_t>(a + start, 0, limit), std::clamp<int64_t>(b + start, 0, limit)};
}

std::unique_ptr<Kernel> max_roi_pool(const KernelSpec& spec) {
  const std::vector<int64_t> size = spec.node.ints("pooled_shape");
  const float scale = spec.node.f("spatial_scale", 1);
  if (size.size() != 2 || size[0] < 1 || size[1] < 1) malformed("MaxRoiPool's pooled_shape should be two positive sizes");
  return make_kernel([=](KernelContext& c) {
    const Tensor x = cast(c.in(0), DType::F32), rois = cast(c.in(1), DType::F32);
    if (x.rank() != 4 || rois.rank() != 2 || rois.dim(1) != 5)
      malformed("MaxRoiPool of a map of shape " + to_string(x.shape()) + " with regions of shape " + to_string(rois.shape()));
    const int64_t channels = x.dim(1), height = x.dim(2), width = x.dim(3);
    Tensor y(DType::F32, {rois.dim(0), channels, size[0], size[1]});
    float* out = y.mutable_data<float>();
    for (int64_t r = 0; r < rois.dim(0); ++r) {
      const float* roi = rois.data<float>() + r * 5;
      for (int k = 0; k < 5; ++k)
        if (!(std::abs(roi[k]) < 1e9F)) malformed("MaxRoiPool of a region that isn't finite, or too large");
      const auto b = static_cast<int64_t>(roi[0]);
      if (b < 0 || b >= x.dim(0)) malformed("index " + std::to_string(b) + " is out of range for a batch of " + std::to_string(x.dim(0)));
      const auto place = [&](int k) { return static_cast<int64_t>(std::round(roi[k] * scale)); };
      const int64_t h = std::max<int64_t>(1, place(4) - place(2) + 1), w = std::max<int64_t>(1, place(3) - place(1) + 1);
      for (int64_t ch = 0; ch < channels; ++ch) {
        const float* in = x.data<float>() + (b * channels + ch) * height * width;
        for (int64_t ph = 0; ph < size[0]; ++ph) {
          for (int64_t pw = 0; pw < size[1]; ++pw) {
            const auto [y0, y1] = bin_range(ph, size[0], place(2), h, height);
            const auto [x0, x1] = bin_range(pw, size[1], place(1), w, width);
            float most = y0 < y1 && x0 < x1 ? in[y0 * width + x0] : 0;
            for (int64_t i = y0; i < y1; ++i)
              for (int64_t j = x0; j < x1; ++j) most = std::max(most, in[i * width + j]);
            *out++ = most;
          }
        }
      }
    }
    c.set(0, cast(y, c.in(0).dtype()));
  });
}

std::unique_ptr<Kernel> max_unpool(const KernelSpec& spec) {
  const std::vector<int64_t> kernel = spec.node.ints("kernel_shape");
  const std::vector<int64_t> strides = spec.node.ints("strides", std::vector<int64_t>(kernel.size(), 1));
  const std::vector<int64_t> pads = spec.node.ints("pads", std::vector<int64_t>(2 * kernel.size(), 0));
  if (strides.size() != kernel.size() || pads.size() != 2 * kernel.size())
    malformed("MaxUnpool's kernel_shape, strides and pads don't fit");
  return make_kernel([=](KernelContext& c) {
    const Tensor &x = c.in(0), &indices = c.in(1);
    if (x.shape().size() != kernel.size() + 2 || indices.shape() != x.shape())
      malformed("MaxUnpool of shape " + to_string(x.shape()) + " with indices of shape " + to_string(indices.shape()));
    Shape inferred = x.shape();
    for (size_t d = 0; d < kernel.size(); ++d) {
      int64_t n = 0;
      if (__builtin_mul_overflow(x.shape()[d + 2] - 1, strides[d], &n)) malformed("MaxUnpool's output overflows 64 bits");
      inferred[d + 2] = n - pads[d] - pads[d + kernel.size()] + kernel[d];
    }
    const Shape shape = c.inputs() > 2 && c.has(2) ? Shape(integers(c.in(2))) : inferred;
    if (shape.size() != inferred.size()) malformed("MaxUnpool's output shape " + to_string(shape) + " has another rank than its input");
    const int64_t count = element_count(inferred);
    Tensor y = Tensor::zeros(x.dtype(), shape);
    const size_t size = bits_of(x.dtype()) / 8;
    const std::vector<int64_t> places = integers(indices);
    for (size_t i = 0; i < places.size(); ++i) {
      if (places[i] < 0 || places[i] >= count)
        malformed("index " + std::to_string(places[i]) + " is out of range for " + to_string(inferred));
      int64_t rest = places[i], place = 0, step = 1;
      for (size_t d = shape.size(); d-- > 0;) {
        const int64_t at_axis = rest % inferred[d];
        if (at_axis >= shape[d]) malformed("index " + std::to_string(places[i]) + " lies outside the output shape " + to_string(shape));
        place += at_axis * step;
        step *= shape[d];
        rest /= inferred[d];
      }
      std::copy_n(x.raw() + size * i, size, y.mutable_raw() + size * at(place));
    }
    c.set(0, y);
  });
}

}  // namespace

std::vector<OpDef> op_detection() {
  return {{.name = "NonMaxSuppression", .since = 10, .cpu = &non_max_suppression},
          {.name = "RoiAlign", .since = 10, .cpu = &roi_align},
          {.name = "MaxRoiPool", .cpu = &max_roi_pool},
          {.name = "MaxUnpool", .since = 9, .cpu = &max_unpool}};
}

}  // namespace infopt

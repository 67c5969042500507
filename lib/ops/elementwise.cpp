#include "lib/ops/elementwise.h"

#include <algorithm>

#include "lib/base/share.h"
#include "lib/base/vector_math.h"

namespace infopt {
namespace {

constexpr int64_t kChunk = 1024, kLeastShare = 1 << 14;

void map_halves(const half* x, half* y, int64_t n, const FloatMap& map) {
  float buffer[kChunk];
  for (int64_t i = 0; i < n; i += kChunk) {
    const int64_t m = std::min(kChunk, n - i);
    to_floats(x + i, buffer, m);
    map.f32(buffer, buffer, m, map.a, map.b);
    to_halves(buffer, y + i, m);
  }
}

void map_bfloat16s(const bfloat16* x, bfloat16* y, int64_t n, const FloatMap& map) {
  float buffer[kChunk];
  for (int64_t i = 0; i < n; i += kChunk) {
    const int64_t m = std::min(kChunk, n - i);
    to_floats(x + i, buffer, m);
    map.f32(buffer, buffer, m, map.a, map.b);
    to_bfloat16s(buffer, y + i, m);
  }
}

}  // namespace

void refuse_type(DType dtype) { throw Error(ErrorKind::Unsupported, "the operator has no kernel for " + std::string(name_of(dtype))); }

void run_map(KernelContext& context, const FloatMap& map) {
  Layout layout;
  const Tensor& input = context.in_any(0, layout);
  const DType dtype = input.dtype();
  const int64_t n = input.size();
  const std::byte* x = input.raw();
  if (dtype != DType::F32 && dtype != DType::F64 && !is_16_bit_float(dtype)) refuse_type(dtype);
  Tensor& output = context.out_reusing(0, 0, dtype, Shape(input.shape()), layout);
  switch (dtype) {
    case DType::F32: {
      const float* from = reinterpret_cast<const float*>(x);
      float* to = output.mutable_data<float>();
      return share_work(n, kLeastShare, [&](int64_t begin, int64_t end) { map.f32(from + begin, to + begin, end - begin, map.a, map.b); });
    }
    case DType::F16: return map_halves(reinterpret_cast<const half*>(x), output.mutable_data<half>(), n, map);
    case DType::BF16: return map_bfloat16s(reinterpret_cast<const bfloat16*>(x), output.mutable_data<bfloat16>(), n, map);
    default: break;
  }
  const double* from = reinterpret_cast<const double*>(x);
  double* to = output.mutable_data<double>();
  for (int64_t i = 0; i < n; ++i) to[i] = map.f64(from[i], map.a, map.b);
}

std::unique_ptr<Kernel> make_map(FloatMap map, KernelFunction run) {
  class MapKernel : public Kernel {
   public:
    MapKernel(FloatMap map, KernelFunction run) : map_(map), run_(std::move(run)) {}
    void run(KernelContext& context) const override { run_(context); }
    const FloatMap* as_map() const override { return &map_; }
    ByItem by_item() const override { return ByItem::All; }

   private:
    FloatMap map_;
    KernelFunction run_;
  };
  return std::make_unique<MapKernel>(map, std::move(run));
}

std::unique_ptr<Kernel> make_map(FloatMap map) {
  return make_map(map, [map](KernelContext& context) { run_map(context, map); });
}

int64_t normalize_axis(int64_t axis, int64_t rank) {
  if (axis < -rank || axis >= rank)
    throw Error(ErrorKind::Malformed, "axis " + std::to_string(axis) + " is outside a tensor of rank " + std::to_string(rank));
  return axis < 0 ? axis + rank : axis;
}

}  // namespace infopt

// DFT and STFT on the device. Real frames in float32 are multiplied by the windowed roots, one product; everything else (complex signals, inverse and long
// transforms, float64) is summed straight from a table of roots in float64, a warp for each entry of the result.
#include "lib/ops/audio.h"

#include <cmath>
#include <map>
#include <mutex>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/element_memory.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/moves.h"
#include "lib/runtime/cuda/product.h"

namespace infopt::cuda {
namespace {

constexpr int kThreads = 128;

/// Lines of a signal; entry i of line (a, b) has its numbers at (a·line_step + b + i·stride)·parts.
struct Signal {
  const void* x;
  DType type;
  int64_t frames, frame_step, line_step, stride;  ///< line l: signal l / frames, from entry (l % frames)·frame_step on; `inner` lines are side by side
  int64_t inner, have, n, parts;                  ///< of n entries those below `have` are there
  const double *window, *roots;                   ///< null: none; cos and −sin of each n-th of a turn
  bool mirrored, inverse;
};

struct Spectrum {
  void* y;
  int64_t kept, parts, count;  ///< count: entries of all lines
  double scale;
};

struct Pair { double re, im; };

INFOPT_DEVICE Pair entry_of(const Signal& s, int64_t base, int64_t i) {
  const bool second = s.mirrored && i > s.n / 2;
  const int64_t at = second ? s.n - i : i;
  if (at >= s.have) return {0, 0};
  const int64_t place = (base + at * s.stride) * s.parts;
  Pair v{load_one<double>(s.type, s.x, place), s.parts == 2 ? load_one<double>(s.type, s.x, place + 1) : 0};
  if (s.mirrored && (at == 0 || at * 2 == s.n)) v.im = 0;
  if (second) v.im = -v.im;
  if (s.window) v.re *= s.window[i], v.im *= s.window[i];
  return v;
}

__global__ void __launch_bounds__(kThreads) transform(const __grid_constant__ Signal s, const __grid_constant__ Spectrum out) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t warps = kThreads / 32, e = blockIdx.x * warps + threadIdx.x / 32;
  if (e >= out.count) return;  // a whole warp
  const int64_t k = e / s.inner % out.kept, b = e % s.inner, line = e / (s.inner * out.kept);
  const int64_t base = line / s.frames * s.line_step + line % s.frames * s.frame_step + b;
  Pair sum{0, 0};
  int64_t turn = lane * k % s.n;
  const int64_t by = 32 * k % s.n;
  for (int64_t i = lane; i < s.n; i += 32) {
    const Pair v = entry_of(s, base, i);
    const double c = s.roots[2 * turn], m = s.inverse ? -s.roots[2 * turn + 1] : s.roots[2 * turn + 1];
    sum.re += v.re * c - v.im * m;
    sum.im += v.re * m + v.im * c;
    turn += by;
    if (turn >= s.n) turn -= s.n;
  }
  sum = {warp_sum(sum.re), warp_sum(sum.im)};
  if (lane == 0) store_one(s.type, out.y, e * out.parts, sum.re * out.scale);
  if (lane == 1 && out.parts == 2) store_one(s.type, out.y, e * 2 + 1, sum.im * out.scale);
}

/// (n, 2): cos and −sin.
Tensor roots_of(int64_t n) {
  Tensor t(DType::F64, {n, 2});
  double* p = t.mutable_data<double>();
  for (int64_t i = 0; i < n; ++i) {
    const double angle = 2 * M_PI * static_cast<double>(i) / static_cast<double>(n);
    *p++ = std::cos(angle), *p++ = -std::sin(angle);
  }
  return t;
}

/// Tables on the device, made when a length is first seen.
class Tables {
 public:
  /// `windowed`: for a product with frames; else plain roots.
  const Tensor& get(CudaRun& run, const std::vector<double>& window, int64_t n, int64_t kept, bool windowed) {
    std::lock_guard lock(mutex_);
    const auto [it, fresh] = tables_.try_emplace({window, n, windowed ? kept : 0});
    if (fresh) it->second.set(windowed ? windowed_roots(window, n, kept) : roots_of(n));
    return it->second.get(run);
  }

 private:
  std::mutex mutex_;
  std::map<std::tuple<std::vector<double>, int64_t, int64_t>, OnDevice> tables_;
};

void multiply_frames(CudaContext& c, Tables& tables, const Tensor& frames, const std::vector<double>& window, int64_t kept, Tensor& y) {
  const int64_t n = frames.dim(1);
  const MatrixProduct p{.type = DType::F32, .m = frames.dim(0), .n = 2 * kept, .k = n};
  multiply_floats(c.run(), p, {{}, {}, {}}, frames.raw(), tables.get(c.run(), window, n, kept, true).raw(), y.mutable_raw(), {});
}

void launch_transform(CudaContext& c, Tables& tables, Signal s, const Spectrum& out) {
  s.roots = reinterpret_cast<const double*>(tables.get(c.run(), {}, s.n, 0, false).raw());
  const int64_t blocks = blocks_for(out.count, kThreads / 32);
  if (blocks > std::numeric_limits<int32_t>::max()) unsupported("a transform of " + std::to_string(out.count) + " entries on CUDA");
  INFOPT_LAUNCH(c.stream(), transform, {blocks}, {kThreads}, 0, s, out);
}

void need_float(const Tensor& x) {
  if (!is_float(x.dtype()) || bits_of(x.dtype()) < 16) unsupported("a transform of " + std::string(name_of(x.dtype())) + " on CUDA");
}

void run_dft(CudaContext& c, const DftOptions& o, Tables& tables) {
  const Tensor& x = c.in(0);
  need_float(x);
  const int64_t given = o.axis_input ? (c.has(2) ? to_scalar<int64_t>(c.host(2)) : -2) : o.axis_attribute;
  const DftSizes d(x, o, given, c.has(1) ? std::optional(to_scalar<int64_t>(c.host(1))) : std::nullopt);
  Tensor& y = c.out(0, x.dtype(), d.shape);
  if (y.size() == 0) return;
  if (x.dtype() == DType::F32 && d.parts == 1 && !o.inverse && d.inner == 1 && d.n <= kLongestProduct && d.outer >= kFewestLines && d.length > 0) {
    const int64_t there = std::min(d.length, d.n);
    Tensor lines = c.scratch(DType::F32, {d.outer, d.n});
    if (there < d.n) c.stream().fill(lines.mutable_raw(), 0, lines.bytes());
    copy_box(c.stream(), sizeof(float), {d.outer, there}, lines.mutable_raw(), {d.n, 1}, x.raw(), {d.length, 1});
    return multiply_frames(c, tables, lines, {}, d.kept, y);
  }
  Signal s{x.raw(), x.dtype(), 1, 0, d.length * d.inner, d.inner, d.inner, std::min(d.length, d.to_real ? d.n / 2 + 1 : d.n), d.n, d.parts, nullptr, nullptr, d.to_real, o.inverse};
  launch_transform(c, tables, s, {y.mutable_raw(), d.kept, d.shape.back(), d.outer * d.inner * d.kept, d.scale});
}

/// `fixed`: the window's elements where it is constant.
void run_stft(CudaContext& c, bool onesided, const std::optional<std::vector<double>>& fixed, Tables& tables) {
  const Tensor& x = c.in(0);
  need_float(x);
  std::vector<double> window;
  if (c.has(2)) window = fixed ? *fixed : to_vector<double>(c.host(2));
  const StftSizes s(x, to_scalar<int64_t>(c.host(1)), c.has(2) ? static_cast<int64_t>(window.size()) : -1, c.has(3) ? std::optional(to_scalar<int64_t>(c.host(3))) : std::nullopt, onesided);
  Tensor& y = c.out(0, x.dtype(), {s.batch, s.frames, s.kept, 2});
  if (y.size() == 0) return;
  if (x.dtype() == DType::F32 && s.parts == 1 && s.n <= kLongestProduct) {
    Tensor frames = c.scratch(DType::F32, {s.batch * s.frames, s.n});
    copy_box(c.stream(), sizeof(float), {s.batch, s.frames, s.n}, frames.mutable_raw(), {s.frames * s.n, s.n, 1}, x.raw(), {s.length, s.step, 1});
    return multiply_frames(c, tables, frames, window, s.kept, y);
  }
  Tensor weights;
  if (!window.empty()) weights = c.run().to_device(Tensor::vector(window));
  const Signal signal{x.raw(), x.dtype(), s.frames, s.step, s.length, 1, 1, s.n, s.n, s.parts, weights.defined() ? weights.data<double>() : nullptr, nullptr, false, false};
  launch_transform(c, tables, signal, {y.mutable_raw(), s.kept, 2, s.batch * s.frames * s.kept, 1});
}

std::unique_ptr<Kernel> make_dft(const KernelSpec& spec) {
  need_type(spec, 0, {DType::F32, DType::F16, DType::BF16, DType::F64});
  return make_cuda_kernel([o = DftOptions::of(spec), tables = std::make_shared<Tables>()](CudaContext& c) { run_dft(c, o, *tables); }, "a product with the roots, or sums in float64");
}

std::unique_ptr<Kernel> make_stft(const KernelSpec& spec) {
  need_type(spec, 0, {DType::F32, DType::F16, DType::BF16, DType::F64});
  std::optional<std::vector<double>> window;
  if (const Tensor* t = spec.constant(2)) window = to_vector<double>(*t);
  return make_cuda_kernel([window, onesided = spec.node.i("onesided", 1) != 0, tables = std::make_shared<Tables>()](CudaContext& c) { run_stft(c, onesided, window, *tables); },
                          "frames as a product with the roots, or sums in float64");
}

}  // namespace

std::vector<CudaOp> cuda_audio() { return {{.name = "DFT", .since = 17, .make = &make_dft}, {.name = "STFT", .since = 17, .make = &make_stft}}; }

}  // namespace infopt::cuda

// DFT, STFT and MelWeightMatrix. Complex numbers are pairs along a last axis of 2. https://onnx.ai/onnx/operators/
#include "lib/ops/audio.h"

#include <algorithm>
#include <cmath>

#include "lib/base/fourier.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/cpu/dnnl_adapter.h"

namespace infopt {
namespace {

using Complex = std::complex<double>;

/// Lengths above this are refused: a table of that many roots is kept.
constexpr int64_t kLongest = int64_t{1} << 26;

void check_signal(const Tensor& x, int64_t rank_at_least) {
  if (!is_float(x.dtype()) || x.rank() < rank_at_least || (x.dim(-1) != 1 && x.dim(-1) != 2))
    malformed("a signal of " + std::string(name_of(x.dtype())) + to_string(x.shape()) + "; its last axis should be 1 (real) or 2 (complex)");
}

void check_length(int64_t n) {
  if (n < 1 || n > kLongest) malformed("a transform of length " + std::to_string(n));
}

/// n entries of a line of the signal, cut or followed by zeros; the second half of a one-sided spectrum is the conjugate of the first.
std::vector<Complex> line_of(const std::vector<double>& x, int64_t parts, int64_t start, int64_t stride, int64_t length, int64_t n, bool mirrored) {
  std::vector<Complex> line(at(n));
  const int64_t have = std::min(length, mirrored ? n / 2 + 1 : n);
  for (int64_t i = 0; i < have; ++i) {
    const double* p = x.data() + (start + i * stride) * parts;
    line[at(i)] = {p[0], parts == 2 ? p[1] : 0};
  }
  if (!mirrored) return line;
  line[0].imag(0);
  if (n % 2 == 0) line[at(n / 2)].imag(0);
  for (int64_t i = n / 2 + 1; i < n; ++i) line[at(i)] = std::conj(line[at(n - i)]);
  return line;
}

/// Lines of n samples to y: kept pairs of each.
void transform_lines(const cpu::Product& product, const Tensor& lines, const std::vector<double>& window, int64_t kept, Tensor& y) {
  Tensor spectrum = y.reshaped({lines.dim(0), 2 * kept});
  product.run(lines, false, windowed_roots(window, lines.dim(1), kept), false, false, nullptr, spectrum);
}

/// Real lines of a length, each cut or followed by zeros to n.
Tensor cut_to(const Tensor& x, int64_t lines, int64_t length, int64_t n) {
  Tensor cut = Tensor::zeros(DType::F32, {lines, n});
  for (int64_t l = 0; l < lines; ++l) std::copy_n(x.data<float>() + l * length, std::min(length, n), cut.mutable_data<float>() + l * n);
  return cut;
}

/// Of each signal of a batch, all of one length, so many frames of n samples.
Tensor cut_frames(const Tensor& x, int64_t batch, int64_t frames, int64_t n, int64_t step) {
  const int64_t length = x.size() / std::max<int64_t>(1, batch);
  Tensor cut(DType::F32, {batch * frames, n});
  for (int64_t f = 0; f < batch * frames; ++f) std::copy_n(x.data<float>() + f / frames * length + f % frames * step, n, cut.mutable_data<float>() + f * n);
  return cut;
}

void run_dft(KernelContext& c, const DftOptions& o, const cpu::Product& product_of_lines) {
  const Tensor& x = c.in(0);
  const int64_t given = o.axis_input ? (c.has(2) ? to_scalar<int64_t>(c.in(2)) : -2) : o.axis_attribute;
  const DftSizes d(x, o, given, c.has(1) ? std::optional(to_scalar<int64_t>(c.in(1))) : std::nullopt);
  const auto& [axis, length, parts, n, kept, outer, inner, to_real, scale, shape] = d;
  if (x.dtype() == DType::F32 && parts == 1 && !o.inverse && inner == 1 && n <= kLongestProduct && outer >= kFewestLines && length > 0)
    return transform_lines(product_of_lines, cut_to(x, outer, length, n), {}, kept, c.out(0, DType::F32, shape));
  const std::vector<double> values = to_vector<double>(x);
  Tensor y(DType::F64, shape);
  double* out = y.mutable_data<double>();
  const Fourier fourier(n);
  for (int64_t l = 0; l < outer * inner; ++l) {
    const int64_t a = l / inner, b = l % inner;
    const auto result = fourier.transform(line_of(values, parts, a * length * inner + b, inner, length, n, to_real), o.inverse);
    for (int64_t i = 0; i < kept; ++i) {
      double* p = out + ((a * kept + i) * inner + b) * shape.back();
      p[0] = result[at(i)].real() * scale;
      if (!to_real) p[1] = result[at(i)].imag() * scale;
    }
  }
  c.set(0, cast(y, x.dtype()));
}

std::unique_ptr<Kernel> dft(const KernelSpec& spec) {
  return make_kernel([o = DftOptions::of(spec), product = std::make_shared<cpu::Product>()](KernelContext& c) { run_dft(c, o, *product); });
}

std::unique_ptr<Kernel> stft(const KernelSpec& spec) {
  const bool onesided = spec.node.i("onesided", 1) != 0;
  return make_kernel([onesided, product = std::make_shared<cpu::Product>()](KernelContext& c) {
    const Tensor& x = c.in(0);
    const std::vector<double> window = c.has(2) ? to_vector<double>(c.in(2)) : std::vector<double>{};
    const StftSizes s(x, to_scalar<int64_t>(c.in(1)), c.has(2) ? static_cast<int64_t>(window.size()) : -1, c.has(3) ? std::optional(to_scalar<int64_t>(c.in(3))) : std::nullopt, onesided);
    const auto& [batch, length, parts, step, n, frames, kept] = s;
    if (x.dtype() == DType::F32 && parts == 1 && n <= kLongestProduct)
      return transform_lines(*product, cut_frames(x, batch, frames, n, step), window, kept, c.out(0, DType::F32, {batch, frames, kept, 2}));
    const std::vector<double> values = to_vector<double>(x);
    Tensor y(DType::F64, {batch, frames, kept, 2});
    double* out = y.mutable_data<double>();
    const Fourier fourier(n);
    for (int64_t f = 0; f < batch * frames; ++f) {
      std::vector<Complex> frame = line_of(values, parts, f / frames * length + f % frames * step, 1, n, n, false);
      for (size_t i = 0; i < window.size(); ++i) frame[i] *= window[i];
      const auto result = fourier.transform(frame, false);
      for (int64_t i = 0; i < kept; ++i) *out++ = result[at(i)].real(), *out++ = result[at(i)].imag();
    }
    c.set(0, cast(y, x.dtype()));
  });
}

/// Triangles over the bins of a spectrum, evenly spaced on the mel scale: 2595 · log10(1 + f / 700).
std::unique_ptr<Kernel> mel_weight_matrix(const KernelSpec& spec) {
  const auto dtype = static_cast<DType>(spec.node.i("output_datatype", static_cast<int64_t>(DType::F32)));
  return make_kernel([dtype](KernelContext& c) {
    const int64_t bins = to_scalar<int64_t>(c.in(0)), length = to_scalar<int64_t>(c.in(1)), rate = to_scalar<int64_t>(c.in(2));
    const double low = to_scalar<double>(c.in(3)), high = to_scalar<double>(c.in(4));
    if (bins < 0 || bins > kLongest || rate < 1 || !(low >= 0) || !(high >= low) || !std::isfinite(high))
      malformed("MelWeightMatrix with " + std::to_string(bins) + " bins and a sample rate of " + std::to_string(rate));
    check_length(length);
    const int64_t rows = length / 2 + 1;
    const auto mel = [](double hertz) { return 2595 * std::log1p(hertz / 700) / std::log(10.0); };
    const double from = mel(low), by = (mel(high) - from) / static_cast<double>(bins + 2);
    std::vector<int64_t> edge(at(bins + 2));
    for (size_t i = 0; i < edge.size(); ++i) {
      const double hertz = 700 * std::expm1((static_cast<double>(i) * by + from) / 2595 * std::log(10.0));
      const double place = std::floor(static_cast<double>(length + 1) * hertz / static_cast<double>(rate));
      if (place >= static_cast<double>(rows)) malformed("MelWeightMatrix's upper edge lies beyond half the sample rate");
      edge[i] = static_cast<int64_t>(place);
    }
    Tensor y = Tensor::zeros(DType::F64, {rows, bins});
    double* out = y.mutable_data<double>();
    for (int64_t i = 0; i < bins; ++i) {
      const int64_t left = edge[at(i)], centre = edge[at(i + 1)], right = edge[at(i + 2)];
      if (left == centre) out[centre * bins + i] = 1;
      else
        for (int64_t j = left; j <= centre; ++j) out[j * bins + i] = static_cast<double>(j - left) / static_cast<double>(centre - left);
      for (int64_t j = centre; j < right; ++j) out[j * bins + i] = static_cast<double>(right - j) / static_cast<double>(right - centre);
    }
    c.set(0, cast(y, dtype));
  });
}

}  // namespace

Tensor windowed_roots(const std::vector<double>& window, int64_t n, int64_t kept) {
  std::vector<Complex> roots(at(n));
  for (int64_t i = 0; i < n; ++i) roots[at(i)] = std::polar(1.0, -2 * M_PI * static_cast<double>(i) / static_cast<double>(n));
  Tensor out(DType::F32, {n, 2 * kept});
  float* p = out.mutable_data<float>();
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = 0, turn = 0; k < kept; ++k) {  // turn = i·k mod n
      const double scale = window.empty() ? 1.0 : window[at(i)];
      *p++ = static_cast<float>(roots[at(turn)].real() * scale), *p++ = static_cast<float>(roots[at(turn)].imag() * scale);
      turn += i;
      if (turn >= n) turn -= n;
    }
  return out;
}

DftOptions DftOptions::of(const KernelSpec& spec) {
  return {spec.node.i("axis", 1), spec.opset >= 20, spec.node.i("inverse", 0) != 0, spec.node.i("onesided", 0) != 0};
}

DftSizes::DftSizes(const Tensor& x, const DftOptions& o, int64_t given, std::optional<int64_t> wanted) {
  check_signal(x, 2);
  axis = normal_axis(given, x.rank());
  if (axis == x.rank() - 1) malformed("DFT along the axis of real and imaginary parts");
  length = x.dim(axis), parts = x.dim(-1);
  to_real = o.inverse && o.onesided;
  if (length > kLongest) check_length(length);
  if (o.onesided && !o.inverse && parts == 2) malformed("a one-sided DFT of a complex signal");
  n = wanted ? *wanted : to_real ? 2 * (length - 1) : length;
  check_length(n);
  shape = x.shape();
  shape[at(axis)] = kept = o.onesided && !o.inverse ? n / 2 + 1 : n;
  shape.back() = to_real ? 1 : 2;
  inner = product(x.shape(), at(axis) + 1, at(x.rank()) - 1), outer = product(x.shape(), 0, at(axis));
  scale = o.inverse ? 1.0 / static_cast<double>(n) : 1.0;
}

StftSizes::StftSizes(const Tensor& x, int64_t step_, int64_t window, std::optional<int64_t> wanted, bool onesided) {
  // The specification has a last axis for the parts; exporters leave it away for real signals, and ONNX Runtime takes that.
  if (!is_float(x.dtype()) || (x.rank() != 2 && x.rank() != 3)) malformed("STFT of a tensor of " + std::string(name_of(x.dtype())) + to_string(x.shape()));
  if (x.rank() == 3) check_signal(x, 3);
  step = step_, batch = x.dim(0), length = x.dim(1), parts = x.rank() == 3 ? x.dim(2) : 1;
  n = wanted ? *wanted : window > 0 ? window : length;
  check_length(n);
  if (step < 1 || n > length || (window >= 0 && window != n))
    malformed("STFT in steps of " + std::to_string(step) + " with frames of " + std::to_string(n) + " and a window of " + std::to_string(std::max<int64_t>(0, window)) + " over a signal of " +
              std::to_string(length));
  if (onesided && parts == 2) malformed("a one-sided STFT of a complex signal");
  frames = 1 + (length - n) / step, kept = onesided ? n / 2 + 1 : n;
}

std::vector<OpDef> op_audio() {
  return {{.name = "DFT", .since = 17, .cpu = &dft}, {.name = "STFT", .since = 17, .cpu = &stft}, {.name = "MelWeightMatrix", .since = 17, .cpu = &mel_weight_matrix}};
}

}  // namespace infopt

// QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear: one scale for the tensor, one for each place along an axis, or one a block.
#include "lib/ops/quantize_linear.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "lib/base/float_math.h"
#include "lib/base/share.h"
#include "lib/base/simd.h"
#include "lib/base/vector_math.h"
#include "lib/ops/elementwise.h"
#include "lib/ops/small_floats.h"

namespace infopt {
namespace {

constexpr int64_t kChunk = 1024;
constexpr int64_t kShared = 1 << 14;  // elements that are worth a thread

/// Input 0, channels-last where it lies so and the scales allow it.
const Tensor& take_input(KernelContext& context, const Tensor& scale, const QuantizeOptions& options, Layout& layout) {
  const Tensor& x = context.in_any(0, layout);
  if (layout == Layout::Plain || lies_well(x.rank(), scale.shape(), options)) return x;
  layout = Layout::Plain;
  return context.in(0);
}

/// The zero points as floats, one for each scale.
std::vector<float> zero_points(KernelContext& context, const Tensor& scale) {
  if (!context.has(2)) return std::vector<float>(static_cast<size_t>(scale.size()), 0.0f);
  const Tensor& zero = context.in(2);
  if (zero.size() != scale.size())
    throw Error(ErrorKind::Malformed, "the zero point's shape " + to_string(zero.shape()) + " isn't the scale's, " + to_string(scale.shape()));
  return to_vector<float>(zero);
}

struct Range {
  float low, high;
};
Range range_of(DType t) {
  const float steps = static_cast<float>(1u << bits_of(t));
  const bool is_signed = t == DType::I8 || t == DType::I16 || t == DType::I4 || t == DType::I2;
  return is_signed ? Range{-steps / 2, steps / 2 - 1} : Range{0, steps - 1};
}

/// q = saturate(round(x / scale) + zero): the quotient is cut to the range first, and then 1.5·2^23 rounds it half to even.
INFOPT_INLINE int32_t quantize_one(float x, float scale, float zero, const Range& range) {
  const float low = range.low - zero, high = range.high - zero;
  float v = x / scale;
  v = v > low ? v : low;  // NaN becomes the least
  v = v < high ? v : high;
  const uint32_t bits = std::bit_cast<uint32_t>((v + 12582912.0f) + zero);
  return static_cast<int32_t>(bits - 0x4B400000u);
}

INFOPT_SIMD void quantize(const float* x, int32_t* q, int64_t n, const float* scale, const float* zero, int64_t step, Range range) {
  if (step) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) q[i] = quantize_one(x[i], scale[i], zero[i], range);
  } else {
    const float s = *scale, z = *zero;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) q[i] = quantize_one(x[i], s, z, range);
  }
}

INFOPT_SIMD void narrow_bytes(const int32_t* q, uint8_t* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<uint8_t>(q[i]);
}
INFOPT_SIMD void narrow_words(const int32_t* q, uint16_t* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<uint16_t>(q[i]);
}

/// Codes of elements below a byte into their places; the memory was zero.
void put_packed(std::byte* y, size_t bits, int64_t start, int64_t n, const int32_t* codes) {
  const int64_t per_byte = static_cast<int64_t>(8 / bits);
  const uint32_t mask = (1u << bits) - 1;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = start + i;
    y[at / per_byte] |= static_cast<std::byte>((static_cast<uint32_t>(codes[i]) & mask) << (bits * static_cast<size_t>(at % per_byte)));
  }
}

/// Elements [start, start+n) of a tensor of floats or int32 as float32.
void load_floats(const Tensor& x, int64_t start, int64_t n, float* to) {
  switch (x.dtype()) {
    case DType::F32: std::copy_n(x.data<float>() + start, n, to); return;
    case DType::F16: return to_floats(x.data<half>() + start, to, n);
    case DType::BF16: return to_floats(x.data<bfloat16>() + start, to, n);
    case DType::F64: for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(x.data<double>()[start + i]); return;
    case DType::I32: for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(x.data<int32_t>()[start + i]); return;
    default: refuse_type(x.dtype());
  }
}

struct Parameters {
  std::vector<float> scale, zero;
  DType precision;  ///< of the quotient
};

/// A quotient rounded to a 16-bit precision before it is rounded to an integer, as the type of the scale asks for.
float quotient(float x, float scale, DType precision) {
  const float q = x / scale;
  return precision == DType::F16 ? to_float(to_half(q)) : precision == DType::BF16 ? to_float(to_bfloat16(q)) : q;
}

/// The codes of floats, with scales `step` apart.
void codes_of(const float* from, int32_t* codes, int64_t n, DType to, bool saturate, const float* scale, const float* zero, int64_t step, DType precision) {
  const float one = 1.0f;
  if (is_float(to)) {
    for (int64_t i = 0; i < n; ++i) codes[i] = encode_float8(to, quotient(from[i], scale[i * step], precision) + zero[i * step], saturate);
  } else if (is_16_bit_float(precision)) {
    for (int64_t i = 0; i < n; ++i) {
      const float value = quotient(from[i], scale[i * step], precision);
      quantize(&value, codes + i, 1, &one, zero + i * step, 0, range_of(to));
    }
  } else {
    quantize(from, codes, n, scale, zero, step, range_of(to));
  }
}

/// The codes of one chunk, at most kChunk elements.
void quantize_chunk(const Tensor& x, Tensor& y, const QuantizeOptions& options, const Parameters& p, int64_t start, int64_t n, int64_t at, int64_t step) {
  const DType to = y.dtype();
  float values[kChunk];
  int32_t codes[kChunk];
  const float* from = values;
  if (x.dtype() == DType::F32) from = x.data<float>() + start;
  else load_floats(x, start, n, values);
  codes_of(from, codes, n, to, options.saturate, p.scale.data() + at, p.zero.data() + at, step, p.precision);
  switch (bits_of(to)) {
    case 8: return narrow_bytes(codes, reinterpret_cast<uint8_t*>(y.mutable_raw()) + start, n);
    case 16: return narrow_words(codes, reinterpret_cast<uint16_t*>(y.mutable_raw()) + start, n);
    default: return put_packed(y.mutable_raw(), bits_of(to), start, n, codes);
  }
}

void run_quantize(KernelContext& context, const QuantizeOptions& options) {
  const Tensor& scale = context.in(1);
  Layout layout;
  const Tensor& x = take_input(context, scale, options, layout);
  DType to = options.output != DType::Undefined ? options.output : DType::U8;
  if (context.has(2)) to = context.in(2).dtype();
  if (!is_quantized(to)) refuse_type(to);
  const Parameters p{to_vector<float>(scale), zero_points(context, scale), options.precision == DType::Undefined ? scale.dtype() : options.precision};
  const QuantizeGrid grid = quantize_grid(x.shape(), scale.shape(), options, layout);
  Tensor& y = context.out(0, to, x.shape(), layout);
  if (bits_of(to) < 8) std::fill_n(y.mutable_raw(), y.bytes(), std::byte{0});
  grid.each_run([&](int64_t start, int64_t length, int64_t at, int64_t step) {
    for (int64_t i = 0; i < length; i += kChunk) quantize_chunk(x, y, options, p, start + i, std::min(kChunk, length - i), at + step * i, step);
  });
}

INFOPT_SIMD void widen_u8(const uint8_t* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(x[i]);
}
INFOPT_SIMD void widen_i8(const int8_t* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(x[i]);
}

INFOPT_SIMD void dequantize(float* x, int64_t n, const float* scale, const float* zero, int64_t step) {
  if (step) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) x[i] = (x[i] - zero[i]) * scale[i];
  } else {
    const float s = *scale, z = *zero;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) x[i] = (x[i] - z) * s;
  }
}

/// The values of all codes of a type of at most 8 bits.
std::vector<float> decode_table(DType dtype) {
  const size_t bits = bits_of(dtype);
  std::vector<float> table(size_t{1} << bits);
  for (size_t code = 0; code < table.size(); ++code) {
    const int value = static_cast<int>(code), half_way = 1 << (bits - 1);
    const bool is_signed = dtype == DType::I4 || dtype == DType::I2;
    table[code] = is_float(dtype) ? decode_small_float(dtype, static_cast<uint8_t>(code))
                                  : static_cast<float>(is_signed && value >= half_way ? value - 2 * half_way : value);
  }
  return table;
}

void load_codes(const Tensor& x, const std::vector<float>& table, int64_t start, int64_t n, float* to) {
  switch (x.dtype()) {
    case DType::U8: return widen_u8(x.data<uint8_t>() + start, to, n);
    case DType::I8: return widen_i8(x.data<int8_t>() + start, to, n);
    case DType::U16: for (int64_t i = 0; i < n; ++i) to[i] = x.data<uint16_t>()[start + i]; return;
    case DType::I16: for (int64_t i = 0; i < n; ++i) to[i] = x.data<int16_t>()[start + i]; return;
    case DType::I32: for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(x.data<int32_t>()[start + i]); return;
    default: break;
  }
  const size_t bits = bits_of(x.dtype());
  const int64_t per_byte = static_cast<int64_t>(8 / bits);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = start + i;
    const unsigned byte = static_cast<unsigned>(x.raw()[at / per_byte]);
    to[i] = table[(byte >> (bits * static_cast<size_t>(at % per_byte))) & (table.size() - 1)];
  }
}

void run_dequantize(KernelContext& context, const QuantizeOptions& options) {
  const Tensor& scale = context.in(1);
  Layout layout;
  const Tensor& x = take_input(context, scale, options, layout);
  if (!is_quantized(x.dtype()) && x.dtype() != DType::I32) refuse_type(x.dtype());
  const std::vector<float> scales = to_vector<float>(scale), zeros = zero_points(context, scale);
  const DType to = options.output != DType::Undefined ? options.output : scale.dtype();
  if (to != DType::F32 && !is_16_bit_float(to)) refuse_type(to);
  const QuantizeGrid grid = quantize_grid(x.shape(), scale.shape(), options, layout);
  const std::vector<float> table = bits_of(x.dtype()) <= 8 ? decode_table(x.dtype()) : std::vector<float>();
  Tensor& y = context.out(0, to, x.shape(), layout);
  grid.each_run([&](int64_t start, int64_t length, int64_t first, int64_t step) {
    for (int64_t i = 0; i < length; i += kChunk) {
      const int64_t n = std::min(kChunk, length - i), at = first + step * i;
      float buffer[kChunk];
      float* values = to == DType::F32 ? y.mutable_data<float>() + start + i : buffer;
      load_codes(x, table, start + i, n, values);
      dequantize(values, n, scales.data() + at, zeros.data() + at, step);
      if (to == DType::F16) to_halves(values, y.mutable_data<half>() + start + i, n);
      if (to == DType::BF16) to_bfloat16s(values, y.mutable_data<bfloat16>() + start + i, n);
    }
  });
}

/// The range from the data, stretched to hold 0; a range of zero width gives the scale 1.
void run_dynamic(KernelContext& context) {
  Layout layout;
  const Tensor& x = context.in_any(0, layout);
  if (x.dtype() != DType::F32) refuse_type(x.dtype());
  const float* data = x.data<float>();
  const int64_t blocks = (x.size() + kShared - 1) / kShared;
  std::vector<float> highs(static_cast<size_t>(blocks)), lows(highs.size());
  share_work(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t n = std::min(kShared, x.size() - b * kShared);
      highs[static_cast<size_t>(b)] = max_of(data + b * kShared, n);
      lows[static_cast<size_t>(b)] = min_of(data + b * kShared, n);
    }
  });
  const float high = std::fmax(max_of(highs.data(), blocks), 0.0f), low = std::fmin(min_of(lows.data(), blocks), 0.0f);
  const float scale = high == low ? 1.0f : (high - low) / 255.0f;
  const float cut = std::fmin(std::fmax(0.0f - low / scale, 0.0f), 255.0f);
  const uint8_t zero = static_cast<uint8_t>(round_even_f(cut));
  const float zero_float = zero;
  uint8_t* y = context.out(0, DType::U8, x.shape(), layout).mutable_data<uint8_t>();
  share_work(x.size(), kShared, [&](int64_t begin, int64_t end) {
    int32_t codes[kChunk];
    for (int64_t i = begin; i < end; i += kChunk) {
      const int64_t n = std::min(kChunk, end - i);
      quantize(data + i, codes, n, &scale, &zero_float, 0, {0, 255});
      narrow_bytes(codes, y + i, n);
    }
  });
  context.set(1, Tensor::scalar(scale));
  context.set(2, Tensor::scalar(zero));
}

ByItem by_item(const KernelSpec& spec) {
  const Tensor* scale = spec.node.inputs.size() > 1 ? spec.constant(1) : nullptr;
  return scale && scale->size() == 1 && scale->rank() <= 1 && spec.node.i("block_size", 0) == 0 ? ByItem::First : ByItem::No;
}
std::unique_ptr<Kernel> make_quantize(const KernelSpec& spec) {
  return make_kernel([options = QuantizeOptions::of(spec.node)](KernelContext& context) { run_quantize(context, options); }, by_item(spec));
}
std::unique_ptr<Kernel> make_dequantize(const KernelSpec& spec) {
  return make_kernel([options = QuantizeOptions::of(spec.node)](KernelContext& context) { run_dequantize(context, options); }, by_item(spec));
}
std::unique_ptr<Kernel> make_dynamic(const KernelSpec&) { return make_kernel(run_dynamic); }

}  // namespace

void quantize_floats(const float* x, uint8_t* codes, int64_t n, DType type, float scale, float zero, DType precision) {
  int32_t wide[kChunk];
  for (int64_t i = 0; i < n; i += kChunk) {
    const int64_t count = std::min(kChunk, n - i);
    codes_of(x + i, wide, count, type, true, &scale, &zero, 0, precision);
    narrow_bytes(wide, codes + i, count);
  }
}

QuantizeOptions QuantizeOptions::of(const Node& node) {
  const auto dtype = [&](const char* name) {
    const int64_t number = node.i(name, 0);
    if (number < 0 || number >= kDTypeCount) throw Error(ErrorKind::Unsupported, "the element type " + std::to_string(number) + " is unknown");
    return static_cast<DType>(number);
  };
  return {node.i("axis", 1), node.i("block_size", 0), node.i("saturate", 1) != 0, dtype("output_dtype"), dtype("precision")};
}

namespace {
bool one_scale(const Shape& scale, const QuantizeOptions& options) { return element_count(scale) == 1 && scale.size() <= 1 && options.block == 0; }
}  // namespace

QuantizeGrid quantize_grid(const Shape& x, const Shape& scale, const QuantizeOptions& options, Layout layout) {
  QuantizeGrid grid;
  if (one_scale(scale, options)) {
    grid.inner = element_count(x);
    return grid;
  }
  const auto rank = static_cast<int64_t>(x.size()), axis = rank == 1 ? 0 : normalize_axis(options.axis, rank);
  for (int64_t d = 0; d < rank; ++d) (d < axis ? grid.outer : d == axis ? grid.n : grid.inner) *= x[static_cast<size_t>(d)];
  if (layout == Layout::ChannelsLast) grid.outer *= grid.inner, grid.inner = 1;
  grid.block = options.block;
  Shape expected{grid.n};
  if (grid.block > 0) {
    expected = x;
    expected[static_cast<size_t>(axis)] = grid.blocks();
  }
  if (grid.block < 0 || scale != expected)
    throw Error(ErrorKind::Malformed, "the scale's shape " + to_string(scale) + " doesn't fit " + to_string(x) + " along axis " + std::to_string(axis) + ": " + to_string(expected) + " is expected");
  return grid;
}

bool lies_well(int64_t rank, const Shape& scale, const QuantizeOptions& options) {
  return options.block == 0 && (one_scale(scale, options) || normalize_axis(options.axis, rank) == 1);
}

bool is_quantized(DType t) {
  switch (t) {
    case DType::U8: case DType::I8: case DType::U16: case DType::I16: case DType::U4: case DType::I4: case DType::U2: case DType::I2:
    case DType::F8E4M3FN: case DType::F8E4M3FNUZ: case DType::F8E5M2: case DType::F8E5M2FNUZ: case DType::F4E2M1: return true;
    default: return false;
  }
}

std::vector<OpDef> op_quantize_linear() {
  return {{.name = "QuantizeLinear", .cpu = make_quantize},
          {.name = "DequantizeLinear", .cpu = make_dequantize},
          {.name = "DynamicQuantizeLinear", .cpu = make_dynamic}};
}

}  // namespace infopt

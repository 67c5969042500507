// Cast and CastLike.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>

#include "lib/base/vector_math.h"
#include "lib/ops/elementwise.h"
#include "lib/ops/small_floats.h"

namespace infopt {
namespace {

struct Options {
  DType to = DType::Undefined;  ///< Undefined: that of input 1
  bool saturate = true;
  ScaleRounding rounding = ScaleRounding::Up;
};

bool is_float8(DType t) { return t == DType::F8E4M3FN || t == DType::F8E4M3FNUZ || t == DType::F8E5M2 || t == DType::F8E5M2FNUZ; }

/// A decimal number with an optional sign, "inf" or "nan" in any case; blanks around it are passed over.
double parse_number(const std::string& text) {
  const char *begin = text.data(), *end = begin + text.size();
  while (begin < end && (*begin == ' ' || *begin == '\t')) ++begin;
  while (end > begin && (end[-1] == ' ' || end[-1] == '\t')) --end;
  if (begin < end && *begin == '+') ++begin;
  double value = 0;
  const auto [stop, error] = std::from_chars(begin, end, value);
  if (stop != end || begin == end || error == std::errc::invalid_argument) throw Error(ErrorKind::Malformed, "the string '" + text + "' is no number");
  if (error == std::errc::result_out_of_range) return std::strtod(text.c_str(), nullptr);  // 0 or infinity, with its sign
  return value;
}

Tensor from_strings(const Tensor& x, DType to) {
  const std::vector<std::string>& texts = x.strings();
  if (to == DType::I64) {  // exact where doubles aren't
    Tensor y(to, x.shape());
    for (size_t i = 0; i < texts.size(); ++i) {
      int64_t value = 0;
      const char *begin = texts[i].data(), *end = begin + texts[i].size();
      const auto [stop, error] = std::from_chars(begin, end, value);
      if (stop != end || error != std::errc()) value = to_scalar<int64_t>(Tensor::scalar(parse_number(texts[i])));
      y.mutable_data<int64_t>()[i] = value;
    }
    return y;
  }
  Tensor numbers(DType::F64, x.shape());
  for (size_t i = 0; i < texts.size(); ++i) numbers.mutable_data<double>()[i] = parse_number(texts[i]);
  return cast(numbers, to);
}

template <class T> std::string text_of(T value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value ? "1" : "0";
  } else {
    if constexpr (std::is_floating_point_v<T>) {
      if (std::isnan(value)) return "NaN";
      if (std::isinf(value)) return value < 0 ? "-INF" : "INF";
    }
    char buffer[64];
    return std::string(buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr);
  }
}

/// The shortest text that reads back as the same number.
Tensor to_strings(const Tensor& x) {
  Tensor y(DType::String, x.shape());
  std::vector<std::string>& texts = y.mutable_strings();
  if (is_float(x.dtype()) && x.dtype() != DType::F64) {
    const std::vector<float> values = to_vector<float>(x);
    for (size_t i = 0; i < values.size(); ++i) texts[i] = text_of(values[i]);
  } else if (x.dtype() == DType::F64) {
    for (size_t i = 0; i < texts.size(); ++i) texts[i] = text_of(x.data<double>()[i]);
  } else if (x.dtype() == DType::Bool) {
    for (size_t i = 0; i < texts.size(); ++i) texts[i] = text_of(x.data<bool>()[i]);
  } else if (x.dtype() == DType::U64) {
    for (size_t i = 0; i < texts.size(); ++i) texts[i] = text_of(x.data<uint64_t>()[i]);
  } else {
    const std::vector<int64_t> values = to_vector<int64_t>(x);
    for (size_t i = 0; i < values.size(); ++i) texts[i] = text_of(values[i]);
  }
  return y;
}

/// Conversions that models with 16-bit weights do in bulk.
bool cast_halves(const Tensor& x, Tensor& y) {
  const DType from = x.dtype(), to = y.dtype();
  const int64_t n = x.size();
  if (from == DType::F16 && to == DType::F32) to_floats(x.data<half>(), y.mutable_data<float>(), n);
  else if (from == DType::BF16 && to == DType::F32) to_floats(x.data<bfloat16>(), y.mutable_data<float>(), n);
  else if (from == DType::F32 && to == DType::F16) to_halves(x.data<float>(), y.mutable_data<half>(), n);
  else if (from == DType::F32 && to == DType::BF16) to_bfloat16s(x.data<float>(), y.mutable_data<bfloat16>(), n);
  else return false;
  return true;
}

Tensor convert(const Tensor& x, const Options& options) {
  const DType to = options.to;
  if (x.dtype() == to) return x;
  if (x.dtype() == DType::String) return from_strings(x, to);
  if (to == DType::String) return to_strings(x);
  const bool scales = to == DType::F8E8M0;
  if (scales || (is_float8(to) && !options.saturate)) {
    const std::vector<float> values = to_vector<float>(x);
    Tensor y(to, x.shape());
    for (size_t i = 0; i < values.size(); ++i)
      y.mutable_raw()[i] = static_cast<std::byte>(scales ? encode_e8m0(values[i], options.rounding, options.saturate)
                                                         : encode_float8(to, values[i], options.saturate));
    return y;
  }
  if ((x.dtype() == DType::F32 && is_16_bit_float(to)) || (is_16_bit_float(x.dtype()) && to == DType::F32)) {
    Tensor y(to, x.shape());
    if (cast_halves(x, y)) return y;
  }
  return cast(x, to);
}

Options options_of(const KernelSpec& spec) {
  Options options;
  options.saturate = spec.node.i("saturate", 1) != 0;
  const std::string rounding = spec.node.s("round_mode", "up");
  options.rounding = rounding == "down" ? ScaleRounding::Down : rounding == "nearest" ? ScaleRounding::Nearest : ScaleRounding::Up;
  return options;
}

DType dtype_attribute(const KernelSpec& spec) {
  const int64_t to = spec.node.i("to", 0);
  if (to <= 0 || to >= kDTypeCount) throw Error(ErrorKind::Unsupported, "the element type " + std::to_string(to) + " is unknown");
  return static_cast<DType>(to);
}

std::unique_ptr<Kernel> make_cast(const KernelSpec& spec) {
  Options options = options_of(spec);
  options.to = dtype_attribute(spec);
  return make_kernel([options](KernelContext& context) {
    Layout layout;
    const Tensor& x = context.in_any(0, layout);
    context.set(0, convert(x, options), layout);
  });
}

std::unique_ptr<Kernel> make_cast_like(const KernelSpec& spec) {
  return make_kernel([options = options_of(spec)](KernelContext& context) {
    Layout layout, ignored;
    Options resolved = options;
    resolved.to = context.in_any(1, ignored).dtype();
    const Tensor& x = context.in_any(0, layout);
    context.set(0, convert(x, resolved), layout);
  });
}

}  // namespace

std::vector<OpDef> op_cast() {
  return {{.name = "Cast", .since = 6, .cpu = make_cast}, {.name = "CastLike", .cpu = make_cast_like}};
}

}  // namespace infopt

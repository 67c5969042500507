// Conversions between element types: to_vector, to_scalar and cast of lib/base/tensor.h.
#include <cmath>
#include <cstring>
#include <limits>

#include "lib/base/error.h"
#include "lib/base/float8.h"
#include "lib/base/tensor.h"

namespace infopt {
namespace {

/// The i-th element of a type packed below 8 bits, as its unsigned bits.
uint8_t packed_bits(const std::byte* data, size_t bits, int64_t i) {
  const size_t per_byte = 8 / bits;
  const auto byte = static_cast<uint8_t>(data[static_cast<size_t>(i) / per_byte]);
  return static_cast<uint8_t>((byte >> (bits * (static_cast<size_t>(i) % per_byte))) & ((1u << bits) - 1));
}

/// Calls f(i, value) for every element, with the value in the widest type of its kind: double, int64_t or uint64_t.
template <class F> void each(const Tensor& t, F f) {
  const int64_t n = t.size();
  auto plain = [&]<class S>(const S* p) { for (int64_t i = 0; i < n; ++i) f(i, p[i]); };
  switch (t.dtype()) {
    case DType::F32: return plain(t.data<float>());
    case DType::F64: return plain(t.data<double>());
    case DType::U8: return plain(t.data<uint8_t>());
    case DType::I8: return plain(t.data<int8_t>());
    case DType::U16: return plain(t.data<uint16_t>());
    case DType::I16: return plain(t.data<int16_t>());
    case DType::I32: return plain(t.data<int32_t>());
    case DType::I64: return plain(t.data<int64_t>());
    case DType::U32: return plain(t.data<uint32_t>());
    case DType::U64: return plain(t.data<uint64_t>());
    case DType::Bool: return plain(t.data<bool>());
    case DType::F16: for (int64_t i = 0; i < n; ++i) f(i, to_float(t.data<half>()[i])); return;
    case DType::BF16: for (int64_t i = 0; i < n; ++i) f(i, to_float(t.data<bfloat16>()[i])); return;
    case DType::U4: for (int64_t i = 0; i < n; ++i) f(i, packed_bits(t.raw(), 4, i)); return;
    case DType::U2: for (int64_t i = 0; i < n; ++i) f(i, packed_bits(t.raw(), 2, i)); return;
    case DType::I4: for (int64_t i = 0; i < n; ++i) f(i, static_cast<int8_t>(static_cast<int8_t>(packed_bits(t.raw(), 4, i) << 4) >> 4)); return;
    case DType::I2: for (int64_t i = 0; i < n; ++i) f(i, static_cast<int8_t>(static_cast<int8_t>(packed_bits(t.raw(), 2, i) << 6) >> 6)); return;
    case DType::F4E2M1: for (int64_t i = 0; i < n; ++i) f(i, decode_small_float(DType::F4E2M1, packed_bits(t.raw(), 4, i))); return;
    case DType::F8E4M3FN: case DType::F8E4M3FNUZ: case DType::F8E5M2: case DType::F8E5M2FNUZ: case DType::F8E8M0:
      for (int64_t i = 0; i < n; ++i) f(i, decode_small_float(t.dtype(), static_cast<uint8_t>(t.raw()[i])));
      return;
    default: throw Error(ErrorKind::Unsupported, "can't convert from " + std::string(name_of(t.dtype())));
  }
}

/// float to integer as ONNX's Cast means it where it is defined (truncation); out of range it saturates and NaN gives 0,
/// so that the result doesn't depend on the instruction set.
template <class To, class From> To convert(From v) {
  if constexpr (std::is_same_v<To, bool>) {
    return v != From(0);
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    if (std::isnan(v)) return 0;
    if (v >= static_cast<double>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    if (v <= static_cast<double>(std::numeric_limits<To>::lowest())) return std::numeric_limits<To>::lowest();
    return static_cast<To>(v);
  } else {
    return static_cast<To>(v);
  }
}

template <class To> void fill(const Tensor& t, To* out) {
  each(t, [&](int64_t i, auto v) { out[i] = convert<To>(v); });
}

template <class T> Tensor cast_plain(const Tensor& t, DType dtype) {
  Tensor out(dtype, t.shape());
  fill(t, out.mutable_data<T>());
  return out;
}

Tensor cast_packed(const Tensor& t, DType dtype) {
  Tensor out = Tensor::zeros(dtype, t.shape());
  const size_t bits = bits_of(dtype), per_byte = 8 / bits;
  each(t, [&](int64_t i, auto v) {
    uint8_t code;
    if (is_float(dtype)) code = encode_small_float(dtype, static_cast<float>(v));
    else code = static_cast<uint8_t>(convert<int64_t>(v));
    code &= static_cast<uint8_t>((1u << bits) - 1);
    auto& byte = out.mutable_raw()[static_cast<size_t>(i) / per_byte];
    byte |= static_cast<std::byte>(code << (bits * (static_cast<size_t>(i) % per_byte)));
  });
  return out;
}

}  // namespace

template <class T> std::vector<T> to_vector(const Tensor& t) {
  std::vector<T> out(static_cast<size_t>(t.size()));
  each(t, [&](int64_t i, auto v) { out[static_cast<size_t>(i)] = convert<T>(v); });
  return out;
}
template std::vector<float> to_vector(const Tensor&);
template std::vector<double> to_vector(const Tensor&);
template std::vector<int64_t> to_vector(const Tensor&);

template <class T> T to_scalar(const Tensor& t) {
  if (t.size() != 1) throw Error(ErrorKind::Malformed, "a single number was expected, not a tensor of shape " + to_string(t.shape()));
  return to_vector<T>(t)[0];
}
template float to_scalar(const Tensor&);
template double to_scalar(const Tensor&);
template int64_t to_scalar(const Tensor&);

Tensor cast(const Tensor& t, DType dtype) {
  if (t.dtype() == dtype) return t;
  switch (dtype) {
    case DType::F32: return cast_plain<float>(t, dtype);
    case DType::F64: return cast_plain<double>(t, dtype);
    case DType::U8: return cast_plain<uint8_t>(t, dtype);
    case DType::I8: return cast_plain<int8_t>(t, dtype);
    case DType::U16: return cast_plain<uint16_t>(t, dtype);
    case DType::I16: return cast_plain<int16_t>(t, dtype);
    case DType::I32: return cast_plain<int32_t>(t, dtype);
    case DType::I64: return cast_plain<int64_t>(t, dtype);
    case DType::U32: return cast_plain<uint32_t>(t, dtype);
    case DType::U64: return cast_plain<uint64_t>(t, dtype);
    case DType::Bool: return cast_plain<bool>(t, dtype);
    case DType::F16: {
      Tensor out(dtype, t.shape());
      each(t, [p = out.mutable_data<half>()](int64_t i, auto v) { p[i] = to_half(static_cast<float>(v)); });
      return out;
    }
    case DType::BF16: {
      Tensor out(dtype, t.shape());
      each(t, [p = out.mutable_data<bfloat16>()](int64_t i, auto v) { p[i] = to_bfloat16(static_cast<float>(v)); });
      return out;
    }
    case DType::F8E4M3FN: case DType::F8E4M3FNUZ: case DType::F8E5M2: case DType::F8E5M2FNUZ: case DType::F8E8M0: {
      Tensor out(dtype, t.shape());
      each(t, [&, p = out.mutable_raw()](int64_t i, auto v) { p[i] = static_cast<std::byte>(encode_small_float(dtype, static_cast<float>(v))); });
      return out;
    }
    case DType::U4: case DType::I4: case DType::U2: case DType::I2: case DType::F4E2M1: return cast_packed(t, dtype);
    default: throw Error(ErrorKind::Unsupported, "can't convert to " + std::string(name_of(dtype)));
  }
}

}  // namespace infopt

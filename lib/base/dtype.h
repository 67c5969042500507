// Element types. The numbers are those of ONNX's TensorProto.DataType (IR version 13).
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace infopt {

enum class DType : uint8_t {
  Undefined = 0, F32 = 1, U8 = 2, I8 = 3, U16 = 4, I16 = 5, I32 = 6, I64 = 7, String = 8, Bool = 9, F16 = 10, F64 = 11,
  U32 = 12, U64 = 13, C64 = 14, C128 = 15, BF16 = 16, F8E4M3FN = 17, F8E4M3FNUZ = 18, F8E5M2 = 19, F8E5M2FNUZ = 20,
  U4 = 21, I4 = 22, F4E2M1 = 23, F8E8M0 = 24, U2 = 25, I2 = 26,
};
inline constexpr int kDTypeCount = 27;

/// Bits of one element; 0 for String and Undefined. Types below 8 bits are packed, lowest bits first.
size_t bits_of(DType t);
/// Bytes that `count` elements of type `t` take when packed densely. Throws Error(Malformed) on overflow.
size_t bytes_of(DType t, int64_t count);
/// "float32", "uint8", …: NumPy's name where it has one.
std::string_view name_of(DType t);
/// The type of that name, Undefined where there is none.
DType dtype_from_name(std::string_view name);
bool is_float(DType t);    ///< any real floating type, the 16-, 8- and 4-bit ones included
bool is_integer(DType t);  ///< any signed or unsigned integer, not Bool

// 16-bit floats, held as their bits.
struct half { uint16_t bits; };
struct bfloat16 { uint16_t bits; };
float to_float(half h);
float to_float(bfloat16 b);
half to_half(float f);          ///< round to nearest even, overflow to infinity
bfloat16 to_bfloat16(float f);  ///< round to nearest even; NaN stays NaN

template <class T> inline constexpr DType dtype_of = DType::Undefined;
template <> inline constexpr DType dtype_of<float> = DType::F32;
template <> inline constexpr DType dtype_of<double> = DType::F64;
template <> inline constexpr DType dtype_of<uint8_t> = DType::U8;
template <> inline constexpr DType dtype_of<int8_t> = DType::I8;
template <> inline constexpr DType dtype_of<uint16_t> = DType::U16;
template <> inline constexpr DType dtype_of<int16_t> = DType::I16;
template <> inline constexpr DType dtype_of<int32_t> = DType::I32;
template <> inline constexpr DType dtype_of<int64_t> = DType::I64;
template <> inline constexpr DType dtype_of<uint32_t> = DType::U32;
template <> inline constexpr DType dtype_of<uint64_t> = DType::U64;
template <> inline constexpr DType dtype_of<bool> = DType::Bool;
template <> inline constexpr DType dtype_of<half> = DType::F16;
template <> inline constexpr DType dtype_of<bfloat16> = DType::BF16;

}  // namespace infopt

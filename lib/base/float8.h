// 8- and 4-bit floats (OCP 8-bit Floating Point Specification 1.0, OCP Microscaling Formats 1.0, ONNX's FNUZ kinds).
#pragma once
#include <cstdint>

#include "lib/base/dtype.h"

namespace infopt {

float decode_small_float(DType dtype, uint8_t code);
/// Round to nearest even; beyond the largest value it saturates; NaN stays NaN where the type has one.
uint8_t encode_small_float(DType dtype, float value);

}  // namespace infopt

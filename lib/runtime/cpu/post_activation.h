// What products and convolutions of our own do to their result: oneDNN's end with the same functions.
#pragma once
#include <cstdint>

#include "lib/ops/op.h"

namespace infopt::cpu {

/// y[i] = post(y[i])
void activate(const PostActivation& post, float* y, int64_t n);
/// y[i] += by[i]
void add_floats(float* y, const float* by, int64_t n);

}  // namespace infopt::cpu

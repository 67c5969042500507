// Float32 vectors that every processor has.
#pragma once
#define INFOPT_TILE

namespace infopt::cpu {
namespace {
typedef float Vec __attribute__((vector_size(16)));
inline Vec fma_of(Vec a, Vec b, Vec c) { return a * b + c; }
}  // namespace
}  // namespace infopt::cpu

#include "lib/runtime/cpu/vector_memory.h"

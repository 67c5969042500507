// Float32 vectors of AVX-512, in files whose loops are compiled for it.
#pragma once
#include <immintrin.h>

#define INFOPT_TILE __attribute__((target("avx512f,fma")))

namespace infopt::cpu {
namespace {
typedef float Vec __attribute__((vector_size(64)));
INFOPT_TILE inline Vec fma_of(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
}  // namespace
}  // namespace infopt::cpu

#include "lib/runtime/cpu/vector_memory.h"

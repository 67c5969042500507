// Neighbouring elements that are loaded and stored together.
#pragma once
#include "lib/runtime/cuda/portable.h"

namespace infopt::cuda {

template <class T, int N> struct alignas(sizeof(T) * N) Pack { T v[N]; };

/// Whether 16 bytes may be read there at once.
inline bool aligned_16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace infopt::cuda

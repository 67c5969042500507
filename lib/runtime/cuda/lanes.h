// Neighbouring elements that a thread reads and writes at once: up to 16 bytes.
#pragma once
#include <cstring>
#include <type_traits>

#include "lib/runtime/cuda/portable.h"

namespace infopt::cuda {

template <class T, int V> struct alignas(sizeof(T) * V) Lanes { T v[V]; };

template <size_t bytes>
using LaneWord = std::conditional_t<bytes == 1, uint8_t, std::conditional_t<bytes == 2, uint16_t, std::conditional_t<bytes == 4, uint32_t, std::conditional_t<bytes == 8, uint2, uint4>>>>;

/// `p` is aligned to the lanes' bytes.
template <int V, class T> INFOPT_DEVICE Lanes<T, V> load_lanes(const T* p) {
  const auto word = *reinterpret_cast<const LaneWord<sizeof(T) * V>*>(p);
  Lanes<T, V> lanes;
  memcpy(&lanes, &word, sizeof lanes);
  return lanes;
}
template <int V, class T> INFOPT_DEVICE void store_lanes(T* p, const Lanes<T, V>& lanes) {
  LaneWord<sizeof(T) * V> word;
  memcpy(&word, &lanes, sizeof lanes);
  *reinterpret_cast<LaneWord<sizeof(T) * V>*>(p) = word;
}

}  // namespace infopt::cuda

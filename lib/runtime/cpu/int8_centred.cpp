#include "lib/runtime/cpu/int8_centred.h"

#include <algorithm>
#include <cstddef>

namespace infopt::cpu {

std::vector<std::vector<int8_t>> centred_parts(const uint8_t* weights, bool is_unsigned, const int32_t* zeros, int64_t columns,
                                               int64_t depth) {
  std::vector<int16_t> rest(static_cast<size_t>(columns * depth));
  for (size_t i = 0; i < rest.size(); ++i) {
    const int32_t value = is_unsigned ? weights[i] : static_cast<int8_t>(weights[i]);
    rest[i] = static_cast<int16_t>(value - (zeros ? zeros[i / static_cast<size_t>(depth)] : 0));
  }
  std::vector<std::vector<int8_t>> parts;
  do {
    std::vector<int8_t>& part = parts.emplace_back(rest.size());
    for (size_t i = 0; i < rest.size(); ++i) {
      part[i] = static_cast<int8_t>(std::clamp<int16_t>(rest[i], -128, 127));
      rest[i] = static_cast<int16_t>(rest[i] - part[i]);
    }
  } while (std::any_of(rest.begin(), rest.end(), [](int16_t r) { return r != 0; }));
  return parts;
}

}  // namespace infopt::cpu

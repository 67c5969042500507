// How the loops compiled for one instruction set read and write its vectors: the includer has defined Vec and INFOPT_TILE.
#include <cstdint>
#include <cstring>

namespace infopt::cpu {
namespace {

constexpr int64_t kLanes = sizeof(Vec) / sizeof(float);

INFOPT_TILE inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
INFOPT_TILE inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

}  // namespace
}  // namespace infopt::cpu

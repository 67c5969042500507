#include "lib/base/hash.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace infopt {
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87, kPrime2 = 0xC2B2AE3D27D4EB4F, kPrime3 = 0x165667B19E3779F9, kPrime4 = 0x85EBCA77C2B2AE63,
                   kPrime5 = 0x27D4EB2F165667C5;
constexpr uint64_t kSeeds[2] = {0, 0x9E3779B97F4A7C15};

uint64_t load64(const unsigned char* p) {
  uint64_t v = 0;
  std::memcpy(&v, p, sizeof v);
  return std::endian::native == std::endian::big ? __builtin_bswap64(v) : v;
}

uint32_t load32(const unsigned char* p) {
  uint32_t v = 0;
  std::memcpy(&v, p, sizeof v);
  return std::endian::native == std::endian::big ? __builtin_bswap32(v) : v;
}

uint64_t step(uint64_t state, uint64_t input) { return std::rotl(state + input * kPrime2, 31) * kPrime1; }

}  // namespace

Hasher::Hasher() {
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint64_t seed = kSeeds[lane];
    state_[lane][0] = seed + kPrime1 + kPrime2;
    state_[lane][1] = seed + kPrime2;
    state_[lane][2] = seed;
    state_[lane][3] = seed - kPrime1;
  }
}

void Hasher::blocks(const unsigned char* p, size_t count) {
  uint64_t s[kLanes][4];
  std::memcpy(s, state_, sizeof s);
  for (; count > 0; --count, p += 32) {
    for (int i = 0; i < 4; ++i) {
      const uint64_t word = load64(p + 8 * i);
      for (auto& lane : s) lane[i] = step(lane[i], word);
    }
  }
  std::memcpy(state_, s, sizeof s);
}

Hasher& Hasher::bytes(const void* data, size_t count) {
  const auto* p = static_cast<const unsigned char*>(data);
  total_ += count;
  if (rest_size_ > 0) {
    const size_t take = std::min(count, sizeof rest_ - rest_size_);
    if (take > 0) std::memcpy(rest_ + rest_size_, p, take);
    rest_size_ += take;
    p += take;
    count -= take;
    if (rest_size_ < sizeof rest_) return *this;
    blocks(rest_, 1);
    rest_size_ = 0;
  }
  blocks(p, count / 32);
  p += count / 32 * 32;
  count %= 32;
  if (count > 0) std::memcpy(rest_, p, count);
  rest_size_ = count;
  return *this;
}

Hasher& Hasher::text(std::string_view s) { return number(static_cast<int64_t>(s.size())).bytes(s.data(), s.size()); }

Hasher& Hasher::number(int64_t value) {
  unsigned char b[8];
  for (int i = 0; i < 8; ++i) b[i] = static_cast<unsigned char>(static_cast<uint64_t>(value) >> (8 * i));
  return bytes(b, sizeof b);
}

uint64_t Hasher::digest(int lane) const {
  const uint64_t* s = state_[lane];
  uint64_t h = kSeeds[lane] + kPrime5;
  if (total_ >= 32) {
    h = std::rotl(s[0], 1) + std::rotl(s[1], 7) + std::rotl(s[2], 12) + std::rotl(s[3], 18);
    for (int i = 0; i < 4; ++i) h = (h ^ step(0, s[i])) * kPrime1 + kPrime4;
  }
  h += total_;
  const unsigned char* p = rest_;
  size_t left = rest_size_;
  for (; left >= 8; left -= 8, p += 8) h = std::rotl(h ^ step(0, load64(p)), 27) * kPrime1 + kPrime4;
  if (left >= 4) {
    h = std::rotl(h ^ (load32(p) * kPrime1), 23) * kPrime2 + kPrime3;
    p += 4;
    left -= 4;
  }
  for (; left > 0; --left, ++p) h = std::rotl(h ^ (*p * kPrime5), 11) * kPrime1;
  h = (h ^ (h >> 33)) * kPrime2;
  h = (h ^ (h >> 29)) * kPrime3;
  return h ^ (h >> 32);
}

std::string Hasher::hex() const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint64_t h = digest(lane);
    for (int shift = 60; shift >= 0; shift -= 4) text += kDigits[(h >> shift) & 15];
  }
  return text;
}

}  // namespace infopt

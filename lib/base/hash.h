// A fingerprint of content: keys of caches and names of content, not a defence against forgery.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace infopt {

/// 128 bits: two XXH64 digests (xxHash specification 0.8, "XXH64") of the same bytes, with the seeds 0 and 0x9E3779B97F4A7C15, taken in
/// one pass. The same on every machine, however the bytes are cut into calls.
class Hasher {
 public:
  Hasher();
  Hasher& bytes(const void* data, size_t count);
  /// With its length first, so that ("ab","c") and ("a","bc") differ.
  Hasher& text(std::string_view s);
  Hasher& number(int64_t value);  ///< as 8 bytes, little end first
  /// The digest of all bytes so far, 32 hexadecimal digits: first the one with seed 0.
  std::string hex() const;

 private:
  static constexpr int kLanes = 2;
  uint64_t digest(int lane) const;
  void blocks(const unsigned char* p, size_t count);

  uint64_t state_[kLanes][4];
  unsigned char rest_[32];
  size_t rest_size_ = 0;
  uint64_t total_ = 0;
};

}  // namespace infopt

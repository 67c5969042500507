// UTF-8 to code points and back. Bytes that aren't UTF-8 are kept, as code points that no text has.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace infopt::utf8 {

/// What stands for a stray byte b is kStray + b.
inline constexpr char32_t kStray = 0x110000;

inline std::vector<char32_t> decode(std::string_view text) {
  std::vector<char32_t> out;
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t more = lead < 0x80 ? 0 : lead >= 0xF0 && lead < 0xF8 ? 3 : lead >= 0xE0 && lead < 0xF0 ? 2 : lead >= 0xC2 && lead < 0xE0 ? 1 : 9;
    char32_t code = more == 0 ? lead : lead & (0x3Fu >> more);
    bool good = more < 4 && i + more < text.size();
    for (size_t k = 1; good && k <= more; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      good = (next & 0xC0u) == 0x80u;
      code = code << 6 | (next & 0x3Fu);
    }
    constexpr char32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
    good = good && code >= kLeast[more] && code < kStray && (code < 0xD800 || code > 0xDFFF);
    out.push_back(good ? code : kStray + lead);
    i += good ? more + 1 : 1;
  }
  return out;
}

inline void append(std::string& out, char32_t code) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code >= kStray) return put(code - kStray);
  if (code < 0x80) return put(code);
  if (code < 0x800) put(0xC0 | code >> 6);
  else if (code < 0x10000) put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 0x3F));
  else put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 0x3F)), put(0x80 | (code >> 6 & 0x3F));
  put(0x80 | (code & 0x3F));
}

}  // namespace infopt::utf8

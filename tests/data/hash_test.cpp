// Expected digests: python -c "import xxhash; print(xxhash.xxh64(b'abc', seed=S).hexdigest())" for S = 0 and 0x9E3779B97F4A7C15, xxhash 3.
#include "lib/base/hash.h"

#include <gtest/gtest.h>

namespace infopt {
namespace {

std::string mixed() {
  std::string s;
  for (int i = 0; i < 3 * 256; ++i) s += static_cast<char>(i);
  return s + "tail!";
}

TEST(Hasher, IsXxh64WithTwoSeeds) {
  const auto digest = [](const std::string& s) { return Hasher().bytes(s.data(), s.size()).hex(); };
  EXPECT_EQ(digest(""), "ef46db3751d8e999c4349fc93c010000");
  EXPECT_EQ(digest("a"), "d24ec4f1a98c6e5b9a7c6d2ea45568c9");
  EXPECT_EQ(digest("abc"), "44bc2cf5ad7709992ed0f59d6b43ac8b");
  EXPECT_EQ(digest("0123456789abcdefghijklmnopqrstuv"), "bf7c9dbe16b5c6e2506cb12bb087732d");
  EXPECT_EQ(digest(mixed()), "26bbff34e506dafffa94ef5799e942a2");
}

TEST(Hasher, DoesntSeeHowTheBytesWereCut) {
  const std::string s = mixed();
  for (const size_t step : {1u, 7u, 31u, 32u, 33u, 500u}) {
    Hasher h;
    for (size_t i = 0; i < s.size(); i += step) h.bytes(s.data() + i, std::min(step, s.size() - i));
    EXPECT_EQ(h.hex(), Hasher().bytes(s.data(), s.size()).hex()) << step;
  }
}

TEST(Hasher, TellsTextsApart) { EXPECT_NE(Hasher().text("ab").text("c").hex(), Hasher().text("a").text("bc").hex()); }

}  // namespace
}  // namespace infopt

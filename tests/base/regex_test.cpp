// Full matches of regular expressions. Expected values: Python's re.fullmatch, where its syntax is RE2's; else RE2's documentation.
#include "lib/base/regex.h"

#include <gtest/gtest.h>

#include "lib/base/error.h"

namespace infopt {
namespace {

struct Case {
  const char *pattern, *text;
  bool matches;
};

TEST(Regex, MatchesTheWholeText) {
  const Case cases[] = {
      {"", "", true}, {"", "a", false}, {"abc", "abc", true}, {"abc", "abcd", false}, {"a|b|", "", true}, {"a|bc", "bc", true},
      {"a*", "aaaa", true}, {"a+", "", false}, {"a?b", "b", true}, {"a+?", "aa", true}, {"(ab)*c", "ababc", true}, {"(?:ab){2,3}", "ababab", true},
      {"(ab){2,3}", "ab", false}, {"a{2}", "aa", true}, {"a{2}", "aaa", false}, {"a{2,}", "aaaaa", true}, {"a{,3}", "a{,3}", true}, {"a{x", "a{x", true},
      {".", "\n", false}, {".", "\xC3\xA9", true}, {"..", "\xC3\xA9", false}, {".", "\xFF", true}, {"[a-c]+", "abcab", true}, {"[^a-c]", "d", true},
      {"[^a-c]", "b", false}, {"[]a]+", "]a", true}, {"[a-]+", "a-a", true}, {"[\\d_-]+", "12_-", true}, {"[[:alpha:]]+", "aZ", true},
      {"[[:^digit:]]", "5", false}, {"\\d+\\.\\d*", "12.", true}, {"\\w+\\s\\W", "a_1 !", true}, {"\\x41\\x{1F600}", "A\xF0\x9F\x98\x80", true},
      {"^ab$", "ab", true}, {"a^b", "ab", false}, {"\\Aab\\z", "ab", true}, {"\\bab\\b", "ab", true}, {"a\\bb", "ab", false}, {"a\\Bb", "ab", true},
      {"(?P<name>a)b", "ab", true}, {"(a*)*", "aaa", true}, {"(|a)+", "aa", true}, {"((a)|(b))*(?:c|d)", "abbad", true}, {"a{0}b", "b", true},
      {"(\\W|^)[\\w.\\-]{0,25}@(yahoo|gmail)\\.com(\\W|$)", "account@gmail.com", true}};
  for (const Case& c : cases) EXPECT_EQ(Regex(c.pattern).full_match(c.text), c.matches) << c.pattern << " on " << c.text;
}

/// Backtracking would take 2^40 steps.
TEST(Regex, TakesLinearTime) {
  const std::string text(40, 'a');
  EXPECT_FALSE(Regex("(a*)*b").full_match(text));
  EXPECT_TRUE(Regex("(a?){40}a{40}").full_match(text));
  EXPECT_TRUE(Regex("a*").full_match(std::string(300000, 'a')));
}

ErrorKind kind_of(const std::string& pattern) {
  try {
    Regex regex(pattern);
  } catch (const Error& e) {
    return e.kind();
  }
  ADD_FAILURE() << pattern.substr(0, 60) << " is taken";
  return ErrorKind::Defect;
}

TEST(Regex, RefusesWhatIsNone) {
  for (const char* pattern : {"(", ")", "a)", "(a", "[a", "[b-a]", "*", "a**", "a{2,1}", "{2}", "\\", "[[:none:]]", "\\xZZ", "\\x{110000}", "(?P", "a{1001}"})
    EXPECT_EQ(kind_of(pattern), ErrorKind::Malformed) << pattern;
  for (const char* pattern : {"(?i)a", "\\pL", "\\Qa\\E", "\\C"}) EXPECT_EQ(kind_of(pattern), ErrorKind::Unsupported) << pattern;
}

TEST(Regex, RefusesWhatGrowsWithoutBound) {
  EXPECT_EQ(kind_of("((((a{1000}){1000}){1000}){1000}){1000}"), ErrorKind::Limit);
  EXPECT_EQ(kind_of("((((){1000}){1000}){1000}){1000}"), ErrorKind::Limit);
  EXPECT_EQ(kind_of(std::string(100000, '(')), ErrorKind::Limit);
}

}  // namespace
}  // namespace infopt

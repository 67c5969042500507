// Regular expressions in RE2's syntax (https://github.com/google/re2/wiki/Syntax), matched in time linear in the text: no backtracking.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace infopt {

/// Literals, ., classes, groups, alternatives, repetitions, ^ $ \A \z \b \B. Not: flags, \p{…}, \Q…\E, \C.
class Regex {
 public:
  /// Throws Error(Malformed) where the pattern is none, Error(Unsupported) for syntax that isn't known here, Error(Limit) where it is
  /// too large: more than kMaxProgram instructions or kMaxDepth nested groups.
  explicit Regex(std::string_view pattern);
  /// Whether the whole text, UTF-8, matches.
  bool full_match(std::string_view text) const;

  static constexpr size_t kMaxProgram = 100000;
  static constexpr int kMaxDepth = 200, kMaxRepeat = 1000;

  using Ranges = std::vector<std::pair<char32_t, char32_t>>;  ///< of code points, inclusive
  struct Step {
    enum Kind : uint8_t { Class, Fork, Jump, Begin, End, Boundary, NoBoundary, Match } kind;
    size_t a = 0, b = 0;  ///< Class: number of the class; Fork, Jump: where to
  };

 private:
  std::vector<Step> program_;
  std::vector<Ranges> classes_;
};

}  // namespace infopt

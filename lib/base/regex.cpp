#include "lib/base/regex.h"

#include <algorithm>
#include <optional>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace infopt {
namespace {

constexpr char32_t kLast = utf8::kStray + 0xFF;  // the largest code point that a text can have, stray bytes included

struct Expression {
  enum Kind { Empty, Class, Cat, Alternatives, Repeat, Assertion } kind = Empty;
  Regex::Ranges ranges = {};
  std::vector<Expression> parts = {};
  int least = 0, most = -1;  ///< Repeat; -1: any number
  Regex::Step::Kind assertion = Regex::Step::Begin;
  std::optional<size_t> number = {};  ///< of a Class in the program, once it is there: repetitions share it
};

Regex::Ranges inverted(Regex::Ranges ranges) {
  std::sort(ranges.begin(), ranges.end());
  Regex::Ranges out;
  char32_t next = 0;
  for (const auto& [low, high] : ranges) {
    if (low > next) out.emplace_back(next, low - 1);
    next = std::max<char32_t>(next, high + 1);
  }
  if (next <= kLast) out.emplace_back(next, kLast);
  return out;
}

const Regex::Ranges kDigit{{'0', '9'}}, kWord{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}, kSpace{{'\t', '\n'}, {'\f', '\r'}, {' ', ' '}};

bool is_word(char32_t c) {
  return std::any_of(kWord.begin(), kWord.end(), [c](const auto& r) { return c >= r.first && c <= r.second; });
}

/// The ranges of [:name:].
const Regex::Ranges* posix_class(std::string_view name) {
  static const std::pair<std::string_view, Regex::Ranges> kAll[] = {
      {"alnum", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}}, {"alpha", {{'A', 'Z'}, {'a', 'z'}}}, {"ascii", {{0, 127}}},
      {"blank", {{'\t', '\t'}, {' ', ' '}}}, {"cntrl", {{0, 31}, {127, 127}}}, {"digit", kDigit}, {"graph", {{'!', '~'}}},
      {"lower", {{'a', 'z'}}}, {"print", {{' ', '~'}}}, {"punct", {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}}},
      {"space", {{'\t', '\r'}, {' ', ' '}}}, {"upper", {{'A', 'Z'}}}, {"word", kWord}, {"xdigit", {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}}};
  for (const auto& [known, ranges] : kAll)
    if (known == name) return &ranges;
  return nullptr;
}

class Parser {
 public:
  explicit Parser(std::string_view pattern) : text_(utf8::decode(pattern)), pattern_(pattern) {}

  Expression parse() {
    Expression e = alternatives(0);
    if (at_ < text_.size()) bad("a ')' without its '('");
    return e;
  }

 private:
  [[noreturn]] void bad(const std::string& why) const { throw Error(ErrorKind::Malformed, "the pattern '" + pattern_ + "' has " + why); }
  [[noreturn]] void unknown(const std::string& what) const { throw Error(ErrorKind::Unsupported, "the pattern '" + pattern_ + "' has " + what); }

  bool more() const { return at_ < text_.size(); }
  bool next_is(char32_t c) const { return more() && text_[at_] == c; }
  bool take(char32_t c) { return next_is(c) && ++at_; }
  char32_t get() {
    if (!more()) bad("an end where something should follow");
    return text_[at_++];
  }

  Expression alternatives(int depth) {
    if (depth > Regex::kMaxDepth) throw Error(ErrorKind::Limit, "the pattern '" + pattern_.substr(0, 40) + "…' nests groups too deep");
    Expression all{Expression::Alternatives};
    do {
      Expression cat{Expression::Cat};
      while (more() && !next_is('|') && !next_is(')')) cat.parts.push_back(repeated(depth));
      all.parts.push_back(std::move(cat));
    } while (take('|'));
    return all;
  }

  Expression repeated(int depth) {
    Expression e = single(depth);
    int least = 0, most = 0;
    bool repeats = false;
    while (repetition(least, most)) {
      if (repeats) bad("a repetition of a repetition");
      take('?');  // lazy or greedy, a full match is the same
      repeats = true;
      Expression outer{Expression::Repeat, {}, {}, least, most};
      outer.parts.push_back(std::move(e));
      e = std::move(outer);
    }
    return e;
  }

  bool repetition(int& least, int& most) {
    if (take('*')) return least = 0, most = -1, true;
    if (take('+')) return least = 1, most = -1, true;
    if (take('?')) return least = 0, most = 1, true;
    const size_t start = at_;
    if (!take('{')) return false;
    int from = 0, to = -1;
    bool good = number(from);
    if (good && !take(',')) to = from;
    else if (good && !next_is('}')) good = number(to);
    if (!good || !take('}')) {  // a brace that is no repetition stands for itself
      at_ = start;
      return false;
    }
    if (from > Regex::kMaxRepeat || to > Regex::kMaxRepeat || (to >= 0 && to < from)) bad("a repetition out of range");
    least = from, most = to;
    return true;
  }

  bool number(int& value) {
    const size_t start = at_;
    for (value = 0; more() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) value = std::min(value * 10 + static_cast<int>(text_[at_] - '0'), 1 << 20);
    return at_ > start;
  }

  static Expression of(Regex::Ranges ranges) { return {Expression::Class, std::move(ranges)}; }
  static Expression assertion(Regex::Step::Kind kind) { return {.kind = Expression::Assertion, .assertion = kind}; }

  Expression single(int depth) {
    const char32_t c = get();
    switch (c) {
      case '(': return group(depth);
      case '[': return of(bracket());
      case '.': return of(inverted({{'\n', '\n'}}));
      case '^': return assertion(Regex::Step::Begin);
      case '$': return assertion(Regex::Step::End);
      case '\\': return escape();
      case '*': case '+': case '?': bad("a repetition of nothing");
      default: {
        if (c == '{') {
          --at_;
          int least, most;
          if (repetition(least, most)) bad("a repetition of nothing");
          ++at_;
        }
        return of({{c, c}});
      }
    }
  }

  Expression group(int depth) {
    if (take('?')) {
      if (take('P') || next_is('<')) {
        if (!take('<')) bad("a group that isn't known");
        while (get() != '>') {}
      } else if (!take(':')) {
        unknown("flags, which aren't known here");
      }
    }
    Expression e = alternatives(depth + 1);
    if (!take(')')) bad("a '(' without its ')'");
    return e;
  }

  Expression escape() {
    if (take('A')) return assertion(Regex::Step::Begin);
    if (take('z')) return assertion(Regex::Step::End);
    if (take('b')) return assertion(Regex::Step::Boundary);
    if (take('B')) return assertion(Regex::Step::NoBoundary);
    return of(escaped());
  }

  /// What follows a backslash, in or outside of brackets.
  Regex::Ranges escaped() {
    const char32_t c = get();
    switch (c) {
      case 'd': return kDigit;
      case 'D': return inverted(kDigit);
      case 'w': return kWord;
      case 'W': return inverted(kWord);
      case 's': return kSpace;
      case 'S': return inverted(kSpace);
      case 'a': return {{7, 7}};
      case 'f': return {{'\f', '\f'}};
      case 'n': return {{'\n', '\n'}};
      case 'r': return {{'\r', '\r'}};
      case 't': return {{'\t', '\t'}};
      case 'v': return {{'\v', '\v'}};
      case 'x': return hexadecimal();
      default: break;
    }
    if (c >= 128 || is_word(c)) unknown("an escape that isn't known here: \\" + std::string(1, static_cast<char>(c < 128 ? c : '?')));
    return {{c, c}};
  }

  Regex::Ranges hexadecimal() {
    const bool braced = take('{');
    char32_t value = 0;
    int digits = 0;
    for (; braced ? !next_is('}') : digits < 2; ++digits) {
      const char32_t c = get();
      const int digit = c >= '0' && c <= '9' ? static_cast<int>(c - '0') : (c | 32) >= 'a' && (c | 32) <= 'f' ? static_cast<int>(c | 32) - 'a' + 10 : -1;
      if (digit < 0 || digits > 6) bad("an escape \\x that is no number");
      value = value * 16 + static_cast<char32_t>(digit);
    }
    if (braced) take('}');
    if (digits == 0 || value >= utf8::kStray) bad("an escape \\x that is no code point");
    return {{value, value}};
  }

  Regex::Ranges bracket() {
    const bool invert = take('^');
    Regex::Ranges all;
    bool first = true;
    while (first || !next_is(']')) {
      first = false;
      if (!more()) bad("a '[' without its ']'");
      if (next_is('[') && at_ + 1 < text_.size() && text_[at_ + 1] == ':') {
        named(all);
        continue;
      }
      const Regex::Ranges low = member();
      const bool range = next_is('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
      if (!range) {
        all.insert(all.end(), low.begin(), low.end());
        continue;
      }
      ++at_;
      const Regex::Ranges high = member();
      if (!is_one(low) || !is_one(high) || low[0].first > high[0].first) bad("a range that isn't one");
      all.emplace_back(low[0].first, high[0].first);
    }
    take(']');
    return invert ? inverted(std::move(all)) : all;
  }

  static bool is_one(const Regex::Ranges& r) { return r.size() == 1 && r[0].first == r[0].second; }

  Regex::Ranges member() {
    const char32_t c = get();
    return c == '\\' ? escaped() : Regex::Ranges{{c, c}};
  }

  /// [:alpha:] or [:^alpha:]
  void named(Regex::Ranges& all) {
    at_ += 2;
    const bool invert = take('^');
    std::string name;
    while (more() && !next_is(':')) utf8::append(name, get());
    const Regex::Ranges* known = posix_class(name);
    if (!known || !take(':') || !take(']')) bad("the class '" + name + "', which isn't known");
    const Regex::Ranges ranges = invert ? inverted(*known) : *known;
    all.insert(all.end(), ranges.begin(), ranges.end());
  }

  std::vector<char32_t> text_;
  std::string pattern_;
  size_t at_ = 0;
};

class Compiler {
 public:
  Compiler(std::vector<Regex::Step>& program, std::vector<Regex::Ranges>& classes) : program_(program), classes_(classes) {}

  void emit(Expression& e) {
    if (++emitted_ > 4 * Regex::kMaxProgram) too_large();
    switch (e.kind) {
      case Expression::Empty: return;
      case Expression::Class:
        if (!e.number) e.number = classes_.size(), classes_.push_back(std::move(e.ranges));
        add({Regex::Step::Class, *e.number});
        return;
      case Expression::Assertion: add({e.assertion}); return;
      case Expression::Cat:
        for (Expression& part : e.parts) emit(part);
        return;
      case Expression::Alternatives: return alternatives(e);
      case Expression::Repeat: return repeat(e);
    }
  }

  size_t add(Regex::Step step) {
    if (program_.size() >= Regex::kMaxProgram) too_large();
    program_.push_back(step);
    return program_.size() - 1;
  }

 private:
  [[noreturn]] static void too_large() { throw Error(ErrorKind::Limit, "a regular expression of more than " + std::to_string(Regex::kMaxProgram) + " steps"); }

  void alternatives(Expression& e) {
    std::vector<size_t> ends;
    for (size_t i = 0; i < e.parts.size(); ++i) {
      const bool last = i + 1 == e.parts.size();
      const size_t fork = last ? 0 : add({Regex::Step::Fork});
      if (!last) program_[fork].a = fork + 1;
      emit(e.parts[i]);
      if (last) break;
      ends.push_back(add({Regex::Step::Jump}));
      program_[fork].b = program_.size();
    }
    for (size_t end : ends) program_[end].a = program_.size();
  }

  void repeat(Expression& e) {
    for (int i = 0; i < e.least; ++i) emit(e.parts[0]);
    if (e.most < 0) {
      const size_t fork = add({Regex::Step::Fork});
      emit(e.parts[0]);
      add({Regex::Step::Jump, fork});
      program_[fork].a = fork + 1;
      program_[fork].b = program_.size();
      return;
    }
    std::vector<size_t> forks;
    for (int i = e.least; i < e.most; ++i) {
      forks.push_back(add({Regex::Step::Fork}));
      program_[forks.back()].a = forks.back() + 1;
      emit(e.parts[0]);
    }
    for (size_t fork : forks) program_[fork].b = program_.size();
  }

  std::vector<Regex::Step>& program_;
  std::vector<Regex::Ranges>& classes_;
  size_t emitted_ = 0;
};

/// The places in a program that a match may be at, each once.
class Places {
 public:
  explicit Places(size_t n) : mark_(n, 0) {}
  void clear() { list.clear(), ++round_; }
  bool add(size_t place) {
    if (mark_[place] == round_) return false;
    mark_[place] = round_;
    return true;
  }
  std::vector<size_t> list;  ///< those at a Class or the Match

 private:
  std::vector<uint64_t> mark_;
  uint64_t round_ = 1;
};

}  // namespace

Regex::Regex(std::string_view pattern) {
  Compiler compiler(program_, classes_);
  Expression parsed = Parser(pattern).parse();
  compiler.emit(parsed);
  compiler.add({Step::Match});
}

bool Regex::full_match(std::string_view text) const {
  const std::vector<char32_t> codes = utf8::decode(text);
  Places now(program_.size()), next(program_.size());
  std::vector<size_t> open;
  // Follows all steps that read nothing, before the code point at `i`.
  const auto reach = [&](Places& places, size_t from, size_t i) {
    open.push_back(from);
    while (!open.empty()) {
      const size_t place = open.back();
      open.pop_back();
      if (!places.add(place)) continue;
      const Step& step = program_[place];
      const bool boundary = (i > 0 && is_word(codes[i - 1])) != (i < codes.size() && is_word(codes[i]));
      switch (step.kind) {
        case Step::Class: case Step::Match: places.list.push_back(place); break;
        case Step::Jump: open.push_back(step.a); break;
        case Step::Fork: open.push_back(step.b), open.push_back(step.a); break;
        case Step::Begin: if (i == 0) open.push_back(place + 1); break;
        case Step::End: if (i == codes.size()) open.push_back(place + 1); break;
        case Step::Boundary: if (boundary) open.push_back(place + 1); break;
        case Step::NoBoundary: if (!boundary) open.push_back(place + 1); break;
      }
    }
  };
  reach(now, 0, 0);
  for (size_t i = 0; i < codes.size() && !now.list.empty(); ++i) {
    next.clear();
    for (size_t place : now.list) {
      const Step& step = program_[place];
      if (step.kind != Step::Class) continue;
      const Ranges& ranges = classes_[step.a];
      if (std::any_of(ranges.begin(), ranges.end(), [c = codes[i]](const auto& r) { return c >= r.first && c <= r.second; })) reach(next, place + 1, i + 1);
    }
    std::swap(now, next);
  }
  return std::any_of(now.list.begin(), now.list.end(), [&](size_t place) { return program_[place].kind == Step::Match; });
}

}  // namespace infopt

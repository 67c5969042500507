#include "lib/base/nearest.h"

#include <algorithm>

namespace infopt {
namespace {

constexpr size_t kLongestName = 128, kMostListed = 24, kLeastPrefix = 4;

char folded(char c) {
  if (c == '-') return '_';
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

}  // namespace

// Optimal string alignment: three rows of the usual table are enough.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    before.swap(last);
    last.swap(row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t differs = folded(a[i - 1]) != folded(b[j - 1]);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + differs});
      bool swapped = i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) && folded(a[i - 2]) == folded(b[j - 1]);
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

std::string nearest(std::string_view name, const std::vector<std::string>& candidates) {
  if (name.size() > kLongestName) return {};
  if (name.size() >= kLeastPrefix) {
    for (const std::string& candidate : candidates) {
      if (candidate.size() > name.size() && edit_distance(name, std::string_view(candidate).substr(0, name.size())) == 0) return candidate;
    }
  }
  std::string best;
  size_t least = std::max<size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    size_t distance = edit_distance(name, candidate);
    bool nothing_alike = distance >= std::max(name.size(), candidate.size());
    if (distance < least && !nothing_alike) {
      least = distance;
      best = candidate;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates) {
  if (candidates.empty()) return {};
  if (std::string best = nearest(name, candidates); !best.empty()) return "; did you mean '" + best + "'?";
  std::string list = "; there are: ";
  for (size_t i = 0; i < candidates.size() && i < kMostListed; ++i) list += (i ? ", " : "") + candidates[i];
  return list + (candidates.size() > kMostListed ? ", …" : "");
}

}  // namespace infopt

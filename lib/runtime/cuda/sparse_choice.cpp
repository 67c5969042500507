#include "lib/runtime/cuda/sparse_choice.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>

#include "lib/base/error.h"

namespace infopt::cuda {
namespace {

constexpr int kRounds = 3, kCalls = 3;
constexpr float kWorthIt = 0.97f;

/// Milliseconds of a call; infinite where there is no memory for it.
float time_of(CudaRun& run, const Candidate& candidate, bool warm) {
  try {
    if (!warm) candidate.run();
    Event start, end;
    start.record(run.stream());
    for (int i = 0; i < kCalls; ++i) candidate.run();
    end.record(run.stream());
    run.wait();
    return Event::milliseconds(start, end) / kCalls;
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::Limit && e.kind() != ErrorKind::Unsupported) throw;
    return std::numeric_limits<float>::infinity();
  }
}

std::string times_text(float ratio) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2fx", static_cast<double>(ratio));
  return text;
}

}  // namespace

size_t fastest(const std::vector<float>& ms) {
  const auto least = static_cast<size_t>(std::min_element(ms.begin(), ms.end()) - ms.begin());
  return ms[least] < kWorthIt * ms[0] ? least : 0;
}

SparseChoice::Decision SparseChoice::measure(CudaRun& run, int64_t rows, const std::vector<Candidate>& candidates) const {
  std::vector<float> ms(candidates.size(), std::numeric_limits<float>::infinity());
  candidates[0].run();  // what fails here would fail without a choice, too
  for (int round = 0; round < kRounds; ++round)
    for (size_t i = 0; i < candidates.size(); ++i)
      if (round == 0 || std::isfinite(ms[i])) ms[i] = std::min(ms[i], time_of(run, candidates[i], round > 0 || i == 0));
  Decision d{rows, fastest(ms), {}, {}};
  d.name = candidates[d.chosen].name;
  const size_t best = d.chosen > 0 ? d.chosen : static_cast<size_t>(std::min_element(ms.begin() + 1, ms.end()) - ms.begin());
  const std::string at = " (" + std::to_string(rows) + " rows)";
  if (!std::isfinite(ms[best])) d.text = candidates[best].name + ", dense: there is no memory or no kernel for it" + at;
  else d.text = candidates[best].name + (d.chosen > 0 ? ", sparse " : ", dense is faster: sparse ") + times_text(ms[0] / ms[best]) + at;
  return d;
}

size_t SparseChoice::choose(CudaRun& run, int64_t rows, const std::vector<Candidate>& candidates) const {
  if (candidates.size() < 2) return 0;
  if (use_ == SparseUse::Always) return 1;
  if (use_ == SparseUse::Never || !events_have_times()) return 0;
  std::string names;
  for (const Candidate& c : candidates) names += c.name + " ";
  std::lock_guard lock(mutex_);
  const auto key = std::make_pair(std::bit_ceil(static_cast<uint64_t>(rows)), names);
  if (const auto it = decisions_.find(key); it != decisions_.end()) return it->second.chosen;
  if (run.stream().capturing()) return 0;
  const size_t chosen = decisions_.emplace(key, measure(run, rows, candidates)).first->second.chosen;
  for (const Candidate& c : candidates)
    if (c.drop && std::none_of(decisions_.begin(), decisions_.end(), [&](const auto& d) { return d.second.name == c.name; })) c.drop();
  return chosen;
}

void SparseChoice::note(const std::string& why) const {
  std::lock_guard lock(mutex_);
  if (notes_.size() < 4) notes_.insert(why);
}

std::string SparseChoice::describe(const std::string& zeros) const {
  std::lock_guard lock(mutex_);
  std::string text;
  const auto add = [&](const std::string& piece) { text += (text.empty() ? "" : "; ") + piece; };
  for (const auto& [key, decision] : decisions_) add(decision.text);
  if (use_ == SparseUse::Always) add("zeros " + zeros + ": sparse, as was asked for");
  else if (!events_have_times()) add("zeros " + zeros + ": dense, as an emulated device has no times to choose by");
  else if (text.empty()) add("zeros " + zeros + ": " + kTimedInFirstRun);
  for (const std::string& why : notes_) add(why);
  return text;
}

}  // namespace infopt::cuda

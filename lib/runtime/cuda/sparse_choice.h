// Dense or sparse: the ways to multiply by the same constant weights are timed on the device, and the fastest is kept.
#pragma once
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "lib/runtime/cuda/context.h"

namespace infopt::cuda {

/// A way to multiply: gives its work to the run's stream. It may run several times over.
struct Candidate {
  std::string name;  ///< what is left out: "2:4", "blocks"
  std::function<void()> run;
  std::function<void()> drop = {};  ///< gives back what only this way needs, where no run will go it
};

/// The place of the least time; the first, dense, unless another takes less than 0.97 of it.
size_t fastest(const std::vector<float>& milliseconds);

/// Kept by a kernel; any thread. Auto times the candidates at the first run of so many rows, in steps of powers of two, and never while a run is
/// recorded. The emulation, whose times mean nothing, chooses the first.
class SparseChoice {
 public:
  explicit SparseChoice(SparseUse use) : use_(use) {}
  /// Which to use. The first is dense; a candidate without memory loses, but where sparse is wanted always.
  size_t choose(CudaRun& run, int64_t rows, const std::vector<Candidate>& candidates) const;
  /// Why something isn't a candidate in some runs.
  void note(const std::string& why) const;
  /// What was chosen, and why; `zeros` says how they lie: "2:4".
  std::string describe(const std::string& zeros) const;
  bool always() const { return use_ == SparseUse::Always; }

 private:
  struct Decision {
    int64_t rows = 0;
    size_t chosen = 0;
    std::string name, text;
  };
  Decision measure(CudaRun& run, int64_t rows, const std::vector<Candidate>& candidates) const;

  SparseUse use_;
  mutable std::mutex mutex_;
  mutable std::map<std::pair<uint64_t, std::string>, Decision> decisions_;
  mutable std::set<std::string> notes_;
};

}  // namespace infopt::cuda

// The trials of `infopt tune` on disk: one line of JSON each, so that an interrupted search goes on where it was.
#pragma once
#include <string>
#include <vector>

#include "recipes/tune.h"

namespace infopt {

class TuneLog {
 public:
  /// Reads what stands at `path`, or begins a file there. `key` tells what the trials are of.
  /// Throws Error(Usage) where it holds trials of another key, Error(Malformed) where a line but the last can't be read.
  TuneLog(std::string path, std::string key);
  const std::vector<Trial>& trials() const { return trials_; }
  void add(const Trial& trial);

 private:
  std::string path_, text_;
  std::vector<Trial> trials_;
};

}  // namespace infopt

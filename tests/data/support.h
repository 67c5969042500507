// What the tests of the data readers share.
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "lib/base/atomic_file.h"
#include "lib/base/error.h"
#include "lib/data/dataset.h"

namespace infopt::test {

/// A file of tests/data/fixtures, which make_fixtures.py there makes.
inline std::string fixture(const std::string& name) { return std::string(INFOPT_SOURCE_DIR) + "/tests/data/fixtures/" + name; }

inline std::string bytes_of_file(const std::string& path) { return read_file(path); }

/// A folder that goes away with the test.
class TempFolder {
 public:
  TempFolder() {
    static std::atomic<int> count{0};
    path_ = std::filesystem::temp_directory_path() / ("infopt-data-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  std::string path(const std::string& name = {}) const { return (path_ / name).string(); }
  /// Writes `bytes` and returns the path.
  std::string file(const std::string& name, const std::string& bytes) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }

 private:
  std::filesystem::path path_;
};

inline std::vector<Sample> all_samples(DataSet& data) {
  std::vector<Sample> samples;
  for (Sample s; data.next(s);) samples.push_back(s);
  return samples;
}

inline std::vector<Sample> all_samples(const std::string& path, const DataOptions& options = {}) {
  return all_samples(*open_dataset(path, options));
}

template <class T>
std::vector<T> ramp(T from, int64_t count, T step = T(1)) {
  std::vector<T> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<T>(from + static_cast<T>(i) * step));
  return values;
}

/// The error that `body` ends with; a failure where it ends with none.
template <class Body>
Error error_of(Body body) {
  try {
    body();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error";
  return {ErrorKind::Defect, "no error"};
}

/// Opening the data and reading all of it.
inline Error error_of_data(const std::string& path, const DataOptions& options = {}) {
  return error_of([&] { all_samples(path, options); });
}

}  // namespace infopt::test

// Calibration data of a single sample, held in memory.
#pragma once
#include <string>
#include <vector>

#include "lib/data/dataset.h"

namespace infopt::test {

/// One sample, for an input x.
class OneSample : public DataSet {
 public:
  explicit OneSample(Tensor x) : x_(std::move(x)) {}
  int64_t size() const override { return 1; }
  const std::vector<std::string>& names() const override { return names_; }
  const std::vector<std::string>& unused() const override { return none_; }
  bool has_label() const override { return false; }
  bool next(Sample& sample) override {
    if (given_) return false;
    sample.inputs = {{"x", x_}};
    return given_ = true;
  }
  void reset() override { given_ = false; }
  std::string content_key() const override { return "one"; }

 private:
  Tensor x_;
  std::vector<std::string> names_{"x"}, none_;
  bool given_ = false;
};

}  // namespace infopt::test

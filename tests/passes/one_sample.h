// Calibration data of a few samples, held in memory.
#pragma once
#include <string>
#include <vector>

#include "lib/data/dataset.h"

namespace infopt::test {

/// Samples for an input x.
class HeldSamples : public DataSet {
 public:
  explicit HeldSamples(std::vector<Tensor> samples) : samples_(std::move(samples)) {}
  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  const std::vector<std::string>& names() const override { return names_; }
  const std::vector<std::string>& unused() const override { return none_; }
  bool has_label() const override { return false; }
  bool next(Sample& sample) override {
    if (at_ == samples_.size()) return false;
    sample.index = static_cast<int64_t>(at_);
    sample.inputs = {{"x", samples_[at_++]}};
    return true;
  }
  void reset() override { at_ = 0; }
  std::string content_key() const override { return "held"; }

 private:
  std::vector<Tensor> samples_;
  size_t at_ = 0;
  std::vector<std::string> names_{"x"}, none_;
};

class OneSample : public HeldSamples {
 public:
  explicit OneSample(Tensor x) : HeldSamples({std::move(x)}) {}
};

}  // namespace infopt::test

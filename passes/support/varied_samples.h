// More inputs than calibration data has, made from it without labels, for what is fitted to a model's own outputs.
#pragma once
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "lib/data/dataset.h"
#include "lib/ir/graph.h"

namespace infopt {

/// The data's samples, and behind them `each` variations of every one that isn't held out:
/// - ids that a constant table of floats is looked up by: half of them become one of the 32 ids whose rows lie nearest by angle. Ids that more than half of
///   the samples hold (marks of beginning, end and padding) stay where they are;
/// - other float32 inputs: a mixture with one of the samples before, a·x + (1−a)·x′ with a from ½ to 1; inputs of two values (masks) stay. Images are
///   shifted, too, by up to an eighth of their sides;
/// - everything else, shapes included, is as it was.
/// The same in every run. `data` must outlive this. Memory: a few samples.
class VariedSamples : public DataSet {
 public:
  VariedSamples(DataSet& data, const Graph& graph, int64_t each);
  /// Samples that no variation is made of: each eighth, where there are at least 16.
  bool held_out(int64_t index) const;
  /// The number, in the data, of what next()'s sample of that number is or was made of.
  int64_t origin(int64_t sample) const;
  /// Whether next() gives those, too; it does from the start.
  void give_held(bool give) { give_held_ = give, reset(); }

  int64_t originals() const { return data_.size(); }
  int64_t size() const override { return data_.size() + each_ * (data_.size() - held_) - (give_held_ ? 0 : held_); }
  const std::vector<std::string>& names() const override { return data_.names(); }
  const std::vector<std::string>& unused() const override { return data_.unused(); }
  bool has_label() const override { return data_.has_label(); }
  bool next(Sample& sample) override;
  void reset() override;
  std::string content_key() const override { return data_.content_key() + "+" + std::to_string(each_); }

 private:
  struct Ids {
    std::set<int64_t> fixed;
    std::map<int64_t, std::vector<int64_t>> near;
  };
  void find_ids(const Graph& graph);
  Tensor vary_ids(const Ids& ids, const Tensor& t, uint64_t seed) const;
  void vary(Sample& sample, uint64_t seed) const;

  DataSet& data_;
  bool give_held_ = true;
  int64_t each_, held_ = 0, round_ = 0, at_ = 0, given_ = 0;
  std::vector<int64_t> free_;       ///< those of the data that aren't held out
  std::map<std::string, Ids> ids_;  ///< by input
  std::deque<Sample> before_;       ///< originals that came last
};

}  // namespace infopt

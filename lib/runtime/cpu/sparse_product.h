// Products with constant float32 weights of which many are zero: the zeros are neither kept nor multiplied. Sums have an order of their own,
// the same for any number of rows and threads. An activation that isn't finite meets only the weights that are there.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "lib/base/tensor.h"
#include "lib/ops/op.h"
#include "lib/runtime/cpu/sparse_weights.h"

namespace infopt::cpu {

enum class SparseForm { Panels, Lists, Tables };

/// What a product without zeros takes is 1, memory and arithmetic alike: the share that a form takes for so many rows (docs/pruning.md,
/// "Time"). Nothing where the instruction set in use has no loop for it. `gathered`: the channels of an input whose windows are gathered first (sparse_conv.h),
/// 0 where rows lie as they are.
std::optional<double> sparse_cost(SparseForm form, const SparseCounts& counts, int64_t rows, int64_t depth, int64_t columns, int64_t gathered = 0);

/// Whether a look at some of these float32 weights says that many are zero: dense ones are known without reading all.
bool many_zeros(const Tensor& weights);

class SparseProduct {
 public:
  /// Weights [k,n], or [n,k] where they are transposed (axes of 1 behind them may follow). Null where oneDNN is as fast for any number of rows;
  /// `why` then says so where many weights are zero.
  static std::unique_ptr<SparseProduct> make(const Tensor& weights, bool transposed, std::string* why, int64_t gathered = 0);

  int64_t depth() const { return shape_.depth; }
  int64_t columns() const { return shape_.columns; }
  /// Whether this is faster than oneDNN for so many rows.
  bool wins(int64_t rows) const { return form_for(rows).has_value(); }
  /// y = post(x·W + bias), or with `adds` post(y + x·W + bias); x rows × depth, y rows × columns, dense; bias may be null. Shared among the run's
  /// threads. Only where it wins.
  void run(const float* x, int64_t rows, const float* bias, const PostActivation& post, bool adds, float* y) const;
  /// As they were given. Memory that was this object's alone is given back at the first run, and made again here.
  Tensor weights() const;
  /// "80 % zeros left out, …"
  std::string describe() const;

  /// The form that is fastest for so many rows; none where oneDNN is.
  std::optional<SparseForm> form_for(int64_t rows) const;
  /// For tests and measurements: the form, whether it wins or not.
  void run_as(SparseForm form, const float* x, int64_t rows, const float* bias, const PostActivation& post, bool adds, float* y) const;
  SparseProduct(const Tensor& weights, bool transposed, SparseCounts counts, int64_t gathered = 0);

 private:
  WeightView view(const Tensor& dense) const;
  Tensor dense() const;
  template <class Form, class Pack> std::shared_ptr<const Form> form(std::shared_ptr<const Form>& kept, Pack pack) const;

  Shape given_;
  WeightView shape_;  ///< without data
  SparseCounts counts_;
  int64_t gathered_ = 0;
  mutable std::mutex mutex_;
  mutable Tensor weights_;  ///< undefined once a form holds them
  mutable std::shared_ptr<const SparseLists> lists_;
  mutable std::shared_ptr<const SparsePanels> panels_;
  mutable std::shared_ptr<const SparseTables> tables_;
};

}  // namespace infopt::cpu

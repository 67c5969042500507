// How far two tensors, or two models' outputs over many samples, are apart.
#pragma once
#include "lib/base/tensor.h"
#include "lib/report/report.h"

namespace infopt {

/// Largest |difference| over the reference's largest magnitude; 0 where both are equal, infinity where types or shapes differ
/// or one alone is NaN. Strings count as equal or not.
double relative_error(const Tensor& reference, const Tensor& other);

/// Sums over samples from which SQNR, cosine and largest error follow. Samples may differ in shape.
class OutputComparison {
 public:
  /// Where the two differ in size (outputs whose length the values decide), what one lacks counts as zeros. Throws Error(Malformed) where they differ in rank.
  void add(const Tensor& reference, const Tensor& other);
  OutputReport result(const std::string& name) const;
  /// A sentence on the samples whose two shapes differed; empty where none did.
  std::string differing(const std::string& name) const;

 private:
  int64_t samples_ = 0, differing_ = 0;
  double signal_ = 0, noise_ = 0, other_ = 0, product_ = 0, max_error_ = 0;
};

}  // namespace infopt

// Samples put together for a run forwards and backwards, and sums over what comes out.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lib/base/tensor.h"

namespace infopt {

/// Tensors one behind the other along the first axis.
Tensor stack(const std::vector<Tensor>& parts);
bool stackable(const Tensor& a, const Tensor& b);
bool same_bytes(const Tensor& a, const Tensor& b);
/// Σ v², and a − b, of float32 tensors of one shape; `sum` += t, undefined counting as zeros.
double energy(const Tensor& t);
Tensor minus(const Tensor& a, const Tensor& b);
void add_to(Tensor& sum, const Tensor& t);
/// t · by, in place.
void scale_by(Tensor& t, float by);

/// Orders of the samples that look random, one behind the other.
class Shuffle {
 public:
  explicit Shuffle(size_t count);
  std::vector<size_t> next(size_t count);

 private:
  std::vector<size_t> order_;
  size_t at_ = 0;
  uint64_t state_ = 1;
};

}  // namespace infopt

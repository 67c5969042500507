// Adam (arXiv 1412.6980).
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace infopt {

class Adam {
 public:
  explicit Adam(size_t count, float beta1 = 0.9f, float beta2 = 0.999f, float epsilon = 1e-8f) : beta1_(beta1), beta2_(beta2), epsilon_(epsilon), first_(count), second_(count) {}

  /// parameters −= rate·m̂/(√v̂ + ε), one step along `gradient`; both have `count` elements.
  void step(float* parameters, const float* gradient, float rate);

 private:
  float beta1_, beta2_, epsilon_;
  int64_t steps_ = 0;
  std::vector<float> first_, second_;
};

}  // namespace infopt

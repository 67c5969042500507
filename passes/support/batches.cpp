#include "passes/support/batches.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "lib/autodiff/fake_quantize.h"
#include "lib/base/simd.h"

namespace infopt {
namespace {

/// Σ v², in eight lanes of doubles.
INFOPT_SIMD double energy_of(const float* v, int64_t n) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t l = 0; l < 8; ++l) lanes[l] += static_cast<double>(v[i + l]) * static_cast<double>(v[i + l]);
  for (; i < n; ++i) lanes[i % 8] += static_cast<double>(v[i]) * static_cast<double>(v[i]);
  double sum = 0;
  for (double l : lanes) sum += l;
  return sum;
}

INFOPT_SIMD void subtract(const float* a, const float* b, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = a[i] - b[i];
}

INFOPT_SIMD void multiply(float* a, float by, int64_t n) {
  for (int64_t i = 0; i < n; ++i) a[i] *= by;
}

}  // namespace

Tensor stack(const std::vector<Tensor>& parts) {
  if (parts.size() == 1) return parts[0];
  Shape shape = parts[0].shape();
  shape[0] = 0;
  for (const Tensor& t : parts) shape[0] += t.dim(0);
  Tensor out(parts[0].dtype(), shape);
  std::byte* to = out.mutable_raw();
  for (const Tensor& t : parts) to = std::copy_n(t.raw(), t.bytes(), to);
  return out;
}

bool same_bytes(const Tensor& a, const Tensor& b) { return a.dtype() == b.dtype() && a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0; }

bool stackable(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.rank() > 0 && bits_of(a.dtype()) >= 8 && a.shape() == b.shape();
}

double energy(const Tensor& t) { return energy_of(t.data<float>(), t.size()); }

Tensor minus(const Tensor& a, const Tensor& b) {
  Tensor d(DType::F32, a.shape());
  subtract(a.data<float>(), b.data<float>(), d.mutable_data<float>(), d.size());
  return d;
}

void add_to(Tensor& sum, const Tensor& t) {
  if (!sum.defined()) {
    sum = t;
    return;
  }
  const float* from = t.data<float>();
  float* to = sum.mutable_data<float>();
  for (int64_t i = 0; i < sum.size(); ++i) to[i] += from[i];
}

void scale_by(Tensor& t, float by) { multiply(t.mutable_data<float>(), by, t.size()); }

Shuffle::Shuffle(size_t count) : order_(count) { std::iota(order_.begin(), order_.end(), 0); }

std::vector<size_t> Shuffle::next(size_t count) {
  std::vector<size_t> out;
  while (out.size() < count) {
    if (at_ == 0)
      for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[static_cast<size_t>(mix_bits(++state_) % i)]);
    out.push_back(order_[at_]);
    at_ = (at_ + 1) % order_.size();
  }
  return out;
}

}  // namespace infopt

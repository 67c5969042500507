#include "lib/report/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/base/error.h"

namespace infopt {

double relative_error(const Tensor& reference, const Tensor& other) {
  constexpr double kFar = std::numeric_limits<double>::infinity();
  if (reference.dtype() != other.dtype() || reference.shape() != other.shape()) return kFar;
  if (reference.dtype() == DType::String) return reference.strings() == other.strings() ? 0 : kFar;
  const auto a = to_vector<double>(reference), b = to_vector<double>(other);
  double largest = 0, error = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) != std::isnan(b[i])) return kFar;
    if (std::isnan(a[i]) || a[i] == b[i]) continue;
    if (std::isinf(a[i]) || std::isinf(b[i])) return kFar;
    error = std::max(error, std::fabs(a[i] - b[i]));
  }
  for (double v : a)
    if (std::isfinite(v)) largest = std::max(largest, std::fabs(v));
  return error == 0 ? 0 : error / std::max(largest, 1e-30);
}

namespace {

/// The elements, with zeros behind each axis up to `to`, of the same rank.
std::vector<double> padded(const Tensor& t, const Shape& to) {
  const std::vector<double> values = to_vector<double>(t);
  if (t.shape() == to) return values;
  std::vector<double> out(static_cast<size_t>(element_count(to)));
  std::vector<int64_t> at(to.size(), 0);
  for (double v : values) {
    int64_t place = 0;
    for (size_t axis = 0; axis < to.size(); ++axis) place = place * to[axis] + at[axis];
    out[static_cast<size_t>(place)] = v;
    for (size_t axis = to.size(); axis-- > 0;) {
      if (++at[axis] < t.shape()[axis]) break;
      at[axis] = 0;
    }
  }
  return out;
}

}  // namespace

void OutputComparison::add(const Tensor& reference, const Tensor& other) {
  ++samples_;
  Shape both = reference.shape();
  if (reference.shape() != other.shape()) {
    if (reference.rank() != other.rank()) throw Error(ErrorKind::Malformed, "outputs of shapes " + to_string(reference.shape()) + " and " + to_string(other.shape()) + " can't be compared");
    ++differing_;
    for (size_t axis = 0; axis < both.size(); ++axis) both[axis] = std::max(both[axis], other.shape()[axis]);
  }
  const auto a = padded(reference, both), b = padded(other, both);
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = a[i] == b[i] ? 0 : b[i] - a[i];
    if (!std::isfinite(a[i]) && d == 0) continue;
    signal_ += a[i] * a[i];
    other_ += b[i] * b[i];
    product_ += a[i] * b[i];
    noise_ += d * d;
    max_error_ = std::max(max_error_, std::isnan(d) ? std::numeric_limits<double>::infinity() : std::fabs(d));
  }
}

OutputReport OutputComparison::result(const std::string& name) const {
  OutputReport r;
  r.name = name;
  r.max_abs_error = max_error_;
  const bool equal = noise_ == 0 && max_error_ == 0;
  r.sqnr_db = equal ? std::numeric_limits<double>::infinity() : std::isfinite(noise_) && signal_ > 0 ? 10 * std::log10(signal_ / noise_) : -std::numeric_limits<double>::infinity();
  r.cosine = equal ? 1 : signal_ > 0 && other_ > 0 ? product_ / std::sqrt(signal_ * other_) : 0;
  return r;
}

std::string OutputComparison::differing(const std::string& name) const {
  if (differing_ == 0) return {};
  return "output '" + name + "' has another shape than the original's on " + std::to_string(differing_) + " of " + std::to_string(samples_) + " samples: what one of them lacks counts as zeros";
}

}  // namespace infopt

#include "lib/base/fourier.h"

#include <cmath>
#include <numbers>

namespace infopt {

Fourier::Fourier(int64_t n) : n_(n), roots_(static_cast<size_t>(n)) {
  int64_t rest = n;
  for (int64_t p = 2; p * p <= rest; ++p)
    for (; rest % p == 0; rest /= p) factors_.push_back(p);
  if (rest > 1) factors_.push_back(rest);
  for (int64_t k = 0; k < n; ++k) {
    const double angle = -2 * std::numbers::pi * static_cast<double>(k) / static_cast<double>(n);
    roots_[static_cast<size_t>(k)] = {std::cos(angle), std::sin(angle)};
  }
}

void Fourier::pass(const std::complex<double>* x, std::complex<double>* out, int64_t n, int64_t step, size_t factor, bool inverse) const {
  if (n == 1) {
    out[0] = x[0];
    return;
  }
  const int64_t p = factors_[factor], m = n / p;
  for (int64_t r = 0; r < p; ++r) pass(x + r * step, out + r * m, m, step * p, factor + 1, inverse);
  std::vector<std::complex<double>> parts(static_cast<size_t>(p));
  for (int64_t k = 0; k < m; ++k) {
    for (int64_t r = 0; r < p; ++r) parts[static_cast<size_t>(r)] = out[r * m + k];
    for (int64_t q = 0; q < p; ++q) {
      std::complex<double> sum = parts[0];
      int64_t turn = 0;  // r · (k + q·m) · step mod n_
      const int64_t by = (k + q * m) * step % n_;
      for (int64_t r = 1; r < p; ++r) {
        turn += by;
        if (turn >= n_) turn -= n_;
        const std::complex<double> root = roots_[static_cast<size_t>(turn)], part = parts[static_cast<size_t>(r)];
        const double i = inverse ? -root.imag() : root.imag();
        sum += std::complex<double>(part.real() * root.real() - part.imag() * i, part.real() * i + part.imag() * root.real());
      }
      out[q * m + k] = sum;
    }
  }
}

std::vector<std::complex<double>> Fourier::transform(const std::vector<std::complex<double>>& x, bool inverse) const {
  std::vector<std::complex<double>> out(x.size());
  pass(x.data(), out.data(), n_, 1, 0, inverse);
  return out;
}

}  // namespace infopt

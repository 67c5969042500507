// The discrete Fourier transform of any length, in double precision.
#pragma once
#include <complex>
#include <vector>

namespace infopt {

/// Plans for one length; transforms are const and may run on many threads.
class Fourier {
 public:
  /// n > 0.
  explicit Fourier(int64_t n);
  /// X[k] = Σ x[j] · exp(∓2πi·j·k/n), minus forward, plus inverse; nothing is divided. x has n elements.
  std::vector<std::complex<double>> transform(const std::vector<std::complex<double>>& x, bool inverse) const;

 private:
  /// Of the n / step elements x[0], x[step]…, into `out`.
  void pass(const std::complex<double>* x, std::complex<double>* out, int64_t n, int64_t step, size_t factor, bool inverse) const;

  int64_t n_;
  std::vector<int64_t> factors_;             ///< primes, ascending
  std::vector<std::complex<double>> roots_;  ///< exp(-2πi·k/n)
};

}  // namespace infopt

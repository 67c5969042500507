// The Fourier transform. Expected values: numpy.fft.fft(z) of z = arange(n) * 0.5 - 1 + 1j * cos(arange(n)), NumPy 2.
#include "lib/base/fourier.h"

#include <gtest/gtest.h>

namespace infopt {
namespace {

using Complex = std::complex<double>;

std::vector<Complex> signal(int64_t n) {
  std::vector<Complex> z;
  for (int64_t i = 0; i < n; ++i) z.emplace_back(static_cast<double>(i) * 0.5 - 1, std::cos(static_cast<double>(i)));
  return z;
}

TEST(Fourier, TransformsAnyLength) {
  struct Case {
    int64_t n;
    Complex first, middle, last;
  };
  const Case cases[] = {{1, {-1, 1}, {-1, 1}, {-1, 1}},
                        {2, {-1.5, 1.540302306}, {-0.5, 0.459697694}, {-0.5, 0.459697694}},
                        {7, {3.5, 0.724351824}, {-1.712957072, 0.330687602}, {-0.593534338, -0.188037504}},
                        {12, {21, -0.413022048}, {-3, 0.224638581}, {-2.880154307, -11.811168938}},
                        {30, {187.5, -0.481415603}, {-7.5, 0.692756343}, {-7.299197327, -71.884281169}}};
  for (const Case& c : cases) {
    const auto f = Fourier(c.n).transform(signal(c.n), false);
    ASSERT_EQ(f.size(), static_cast<size_t>(c.n));
    EXPECT_LT(std::abs(f.front() - c.first), 1e-8) << c.n;
    EXPECT_LT(std::abs(f[static_cast<size_t>(c.n / 2)] - c.middle), 1e-8) << c.n;
    EXPECT_LT(std::abs(f.back() - c.last), 1e-8) << c.n;
  }
}

TEST(Fourier, InvertsItself) {
  for (int64_t n : {1, 2, 3, 16, 97, 360, 1001}) {
    const auto z = signal(n), back = Fourier(n).transform(Fourier(n).transform(z, false), true);
    for (size_t i = 0; i < z.size(); ++i) EXPECT_LT(std::abs(back[i] / static_cast<double>(n) - z[i]), 1e-10) << n;
  }
}

}  // namespace
}  // namespace infopt

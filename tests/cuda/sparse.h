// Weights with zeros in patterns, and devices that leave them out or not.
#pragma once
#include "tests/cuda/harness.h"

namespace infopt::test {

enum class Zeros { TwoOfFour, Blocks, Anywhere, None };

inline std::shared_ptr<const Device> sparse_device(SparseUse use) {
  install_cuda();
  return open_cuda({.sparse = use});
}

/// Which of W[n,k]'s weights stay: at most two of each four along k, about `share` of the inputs of each 16 outputs, or that share anywhere.
inline std::vector<bool> random_mask(Random& r, int64_t n, int64_t k, Zeros zeros, int64_t percent = 50) {
  std::vector<bool> kept(static_cast<size_t>(n * k), true);
  const auto at = [&](int64_t j, int64_t i) { return static_cast<size_t>(j * k + i); };
  if (zeros == Zeros::Anywhere)
    for (size_t i = 0; i < kept.size(); ++i) kept[i] = r.in(1, 100) <= percent;
  if (zeros == Zeros::TwoOfFour)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t i = 0; i + 4 <= k; i += 4) {
        const int64_t one = r.in(0, 3), other = (one + r.in(1, 3)) % 4;
        for (int64_t q = 0; q < 4; ++q) kept[at(j, i + q)] = (q == one || q == other) && !r.chance(9);
      }
  if (zeros == Zeros::Blocks)
    for (int64_t first = 0; first < n; first += 16)
      for (int64_t i = 0; i < k; ++i) {
        const bool stays = r.in(1, 100) <= percent;
        for (int64_t j = first; j < std::min(n, first + 16); ++j) kept[at(j, i)] = stays;
      }
  return kept;
}

/// [n,k], or [k,n] where they aren't `turned`, with the mask of [n,k].
inline Tensor masked(Random& r, DType type, int64_t n, int64_t k, const std::vector<bool>& kept, bool turned) {
  Tensor t = Tensor::zeros(DType::F32, turned ? Shape{n, k} : Shape{k, n});
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = 0; i < k; ++i)
      if (kept[static_cast<size_t>(j * k + i)]) {
        const float v = is_integer(type) ? static_cast<float>(r.in(1, 127)) * (r.chance(2) ? -1.0f : 1.0f) : r.real(0.1f, 1) * (r.chance(2) ? -1.0f : 1.0f);
        t.mutable_data<float>()[turned ? j * k + i : i * n + j] = v;
      }
  return cast(t, type);
}

inline Tensor random_reals(Random& r, DType type, const Shape& shape) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(-1, 1);
  return cast(t, type);
}

/// What 16-bit results may differ by, relative to the largest: a rounding of each.
inline double rounding_of(DType type) { return type == DType::F16 ? 2e-3 : type == DType::BF16 ? 1.6e-2 : 1e-5; }

inline std::vector<Tensor> run_on(const std::shared_ptr<const Device>& device, const Graph& graph, const Feeds& feeds, std::string* kernel = nullptr) {
  SessionOptions options;
  options.device = device;
  options.fallback = false;
  const Session session(graph, options);
  auto out = session.run(feeds);
  for (const auto& line : session.plan())
    if (kernel && (line.kernel.find("product") != std::string::npos || line.kernel.find("convolution") != std::string::npos)) *kernel = line.kernel;
  return out;
}

}  // namespace infopt::test

// The sizes of DFT and STFT, and the roots that a product with frames of them takes.
#pragma once
#include <optional>
#include <vector>

#include "lib/ops/op.h"

namespace infopt {

struct DftOptions {
  int64_t axis_attribute;
  bool axis_input, inverse, onesided;
  static DftOptions of(const KernelSpec& spec);
};

/// What a DFT of a tensor is to do: `outer`·`inner` lines of `length` entries of `parts` numbers, cut or followed by zeros to n, to `kept` entries of the result.
struct DftSizes {
  int64_t axis, length, parts, n, kept, outer, inner;
  bool to_real;  ///< the second half of a one-sided spectrum is the conjugate of the first; the result is real
  double scale;  ///< of the result
  Shape shape;
  /// Throws Error(Malformed) where the sizes don't fit. `given`: the axis; `wanted`: the length, where it is said.
  DftSizes(const Tensor& x, const DftOptions& o, int64_t given, std::optional<int64_t> wanted);
};

struct StftSizes {
  int64_t batch, length, parts, step, n, frames, kept;
  /// `x`: [batch, length] or [batch, length, parts]; `window`: its length, -1 where there is none; `wanted`: the frames' length, where it is said.
  StftSizes(const Tensor& x, int64_t step, int64_t window, std::optional<int64_t> wanted, bool onesided);
};

/// Frames up to that length are transformed by one product with the windowed roots: faster, if longer in operations.
inline constexpr int64_t kLongestProduct = 2048;
inline constexpr int64_t kFewestLines = 8;  ///< of a DFT: fewer aren't worth the roots

/// cos and −sin of each kept bin in turn, as columns, a row for each sample of the frame: (n, 2·kept). The window may be empty.
Tensor windowed_roots(const std::vector<double>& window, int64_t n, int64_t kept);

}  // namespace infopt

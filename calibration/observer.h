// Observers: pure functions from statistics to a range. One file each, calibration/observers/<stem>.cpp, which defines
// `infopt::ObserverDef observer_<stem>()`; CMake makes the table from the file names.
#pragma once
#include <string>
#include <vector>

#include "calibration/statistics.h"

namespace infopt {

struct Range {
  double low = 0, high = 0;  ///< low ≤ 0 ≤ high is not promised; quantization_of() sees to it
};

struct ObserverOptions {
  double percentile = 99.99;  ///< of the values, for percentile
  int levels = 256;           ///< of the quantizer, for entropy and mse
  bool symmetric = false;
};

struct ObserverDef {
  std::string name, summary;
  Range (*range)(const TensorStatistics&, const ObserverOptions&) = nullptr;
};

const std::vector<ObserverDef>& all_observers();
/// Throws Error(Usage) naming those there are.
const ObserverDef& find_observer(const std::string& name);

/// Scale and zero point of a quantizer of 8 bits (or 16) over a range. Rounds half to even; zero is exactly representable; a range
/// of zero width has scale 1.
struct Quantization {
  float scale = 1;
  int32_t zero_point = 0;
};
/// Unsigned: [0, 255], asymmetric. Signed: [-128, 127] asymmetric, or [-127, 127] with zero point 0 where symmetric.
Quantization quantization_of(Range range, bool is_signed, bool symmetric, int bits = 8);

/// Mean squared error of quantizing what the histogram holds.
double histogram_mse(const Histogram& histogram, const Quantization& q, int low_code, int high_code);

}  // namespace infopt

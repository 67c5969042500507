// A target profile: static data on what an engine has integer kernels for and what they cost beside its float ones.
// Never measured while quantizing: the same choices everywhere.
#pragma once
#include <string>
#include <vector>

#include "lib/base/dtype.h"

namespace infopt {

struct Profile {
  std::string name, summary;
  bool activations_signed = false;      ///< s8, else u8
  bool activations_symmetric = false;   ///< zero point 0 (s8) only
  bool weights_per_channel = true;
  bool dynamic_products = true;         ///< has DynamicQuantizeLinear + MatMulInteger kernels that gain
  bool storage_form = true;             ///< folds int8 initializer → Cast → Mul when it loads
  bool negative_scales = false;         ///< of weights' codes: it multiplies by them as they are
  bool folds_transposes = true;         ///< of constants, when it loads, before it looks for integer patterns
  /// Names of the operators that run in integers between Q/DQ, the weighted ones apart.
  std::vector<std::string> integer_ops;
  int64_t channels_at_once = 8;         ///< how many its convolutions and products take at once: other counts run as the next multiple does
  bool weigh_cost = true;               ///< integer regions only where the cost model says that they gain
};

/// ort-cpu, tensorrt, generic. Throws Error(Usage) naming those there are.
const Profile& find_profile(const std::string& name);
const std::vector<Profile>& all_profiles();

}  // namespace infopt

#include "passes/profile.h"

#include "lib/base/error.h"

namespace infopt {

const std::vector<Profile>& all_profiles() {
  static const std::vector<Profile> all{
      {.name = "ort-cpu",
       .summary = "ONNX Runtime on x86-64 CPUs: u8 activations, s8 weights per channel, integer where its kernels gain",
       .negative_scales = true,
       .integer_ops = {"Add", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu", "Resize", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"},
       .channels_at_once = 16},
      {.name = "tensorrt",
       .summary = "TensorRT: s8 symmetric activations and weights, static ranges, integer wherever it can",
       .activations_signed = true,
       .activations_symmetric = true,
       .dynamic_products = false,
       .storage_form = false,
       .folds_transposes = false,
       .integer_ops = {"Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"},
       .channels_at_once = 32,
       .weigh_cost = false},
      {.name = "generic",
       .summary = "any engine that reads QuantizeLinear/DequantizeLinear: u8 activations, s8 weights, integer wherever it can",
       .dynamic_products = false,
       .storage_form = false,
       .integer_ops = {"Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"},
       .weigh_cost = false},
  };
  return all;
}

const Profile& find_profile(const std::string& name) {
  std::string names;
  for (const Profile& p : all_profiles()) {
    if (p.name == name) return p;
    names += (names.empty() ? "" : ", ") + p.name;
  }
  throw Error(ErrorKind::Usage, "there is no target '" + name + "'; there are " + names);
}

}  // namespace infopt

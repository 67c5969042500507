// Passes that only tests know, with an option of each type.
#pragma once
#include "lib/base/error.h"
#include "recipes/recipe.h"

namespace infopt::test {

inline Vocabulary test_vocabulary() {
  using Texts = std::vector<std::string>;
  std::vector<OptionDef> options{
      {"enabled", "A switch.", true},
      {"rounds", "A count.", int64_t{3}, {}, 1, 10},
      {"threshold", "A limit.", 0.5, {}, 0, 1},
      {"mode", "A choice.", std::string("auto"), {"auto", "static", "dynamic"}},
      {"keep", "Names.", Texts{}},
      {"kinds", "Choices.", Texts{"conv"}, {"conv", "gemm"}},
  };
  return {.passes = {{.name = "fold_constants", .summary = "Folds."}, {.name = "quantize_int8", .summary = "Quantizes.", .options = options},
                     {.name = "remove_dead", .summary = "Removes."}},
          .targets = {"ort-cpu", "tensorrt", "generic"},
          .methods = {"minmax", "percentile", "entropy", "mse"}};
}

inline Recipe read(const std::string& text, const std::vector<std::string>& sets = {}) {
  return read_recipe(text, "r.yaml", test_vocabulary(), sets);
}


/// The text of the Error that reading ends with; "none" where it doesn't. Only errors of usage are expected.
inline std::string error_of(const std::string& text, const std::vector<std::string>& sets = {}) {
  try {
    read(text, sets);
  } catch (const Error& e) {
    return e.kind() == ErrorKind::Usage ? e.what() : std::string("another kind: ") + e.what();
  }
  return "none";
}

/// Every key of a recipe.
inline const char* const kFullRecipe = R"(version: 1
name: full
description: "with: a colon, \"quotes\"\nand two lines"
target: tensorrt
calibrate:
  method: percentile
  percentile: 99.9
  samples: 64
data:
  label: "7"
  image:
    input: pixels
    resize: [256]
    filter: bicubic
    crop: [224, 192]
    layout: nhwc
    color: bgr
    scale: 0.0078125
    mean: [0.5, 0.25, 0.125]
    std: [2.0]
    dtype: float16
    labels: "a, b.csv"
steps:
  - fold_constants
  - quantize_int8:
      enabled: false
      rounds: 7
      threshold: 1e-3
      mode: static
      keep: [a, "b c", "*"]
      kinds: [gemm, conv]
  - remove_dead
  - fold_constants
groups:
  - name: attention
    nodes: ["*/attn/*"]
    ops: [MatMul, Gemm]
    roles: [attention]
    depth_from: 0.25
    depth_to: 0.75
    weights: float16
    activations: int8
    form: dynamic
  - name: rest
    weights: float32
gates:
  min_integer_macs: 0.5
  max_metric_drop: 0.005
  min_sqnr_db: 20
eval:
  metric: command
  command: "python3 score.py {outputs}"
  name: f1
  output: logits
  higher_is_better: false
output:
  external_data: always
)";

}  // namespace infopt::test

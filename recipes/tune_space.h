// What `infopt tune` may choose: a point of its search space, and the plain recipe that it stands for.
#pragma once
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "passes/support/sensitivity.h"
#include "recipes/recipe.h"

namespace infopt {

struct TunePoint {
  /// int8, w4a8, int4, fp8 or fp16: the built-in recipe that it changes; half: weights alone in float16; float: only what doesn't quantize.
  std::string base = "int8";
  std::string method = "minmax";    ///< an observer
  std::string activations = "auto"; ///< of int8
  std::string rounding = "nearest"; ///< int8, w4a8: nearest, adaround, reconstruct; int4: nearest, gptq, awq
  int64_t block = 32;               ///< of int4
  bool smooth = false;              ///< smooth_activations before
  /// Places that keep float (weights of int4 and w4a8: 8 bits), the most sensitive first; of all weights and of all activations.
  int64_t kept_weights = 0, kept_activations = 0;
  bool equalize = false;            ///< equalize_layers before
  bool measured_bias = false;       ///< of int8: quantize_int8.measured_bias
  double floor_db = 0;              ///< int8: quantize_int8.min_sqnr_db, where it isn't 0
  std::vector<std::string> in_float;  ///< kinds of layers that keep float arithmetic, see TuneSites::kinds

  bool operator==(const TunePoint&) const = default;
};

/// Names of the layers' weights and activations, the most sensitive first, and what each costs.
struct TuneSites {
  struct Place {
    std::vector<std::string> patterns;
    double noise8 = 0, noise4 = 0;  ///< over the signal of the worst output, rounded alone
  };
  std::vector<Place> weights, activations;
  std::map<std::string, std::vector<std::string>> kinds;  ///< names of layers, by what engines have kernels for
};
TuneSites rank_sites(const std::vector<Site>& sites);
/// "depthwise", "pointwise", "spatial", "grouped", "few_channels" (of input), "one_pixel" (of output) and "product".
std::map<std::string, std::vector<std::string>> layer_kinds(const Graph& graph, Calibration& calibration);

/// Points to begin with for a target, the cheapest to make first.
std::vector<TunePoint> first_points(const std::string& target);
/// One knob of a point turned, by chance.
TunePoint mutated(const TunePoint& point, const TuneSites& sites, const std::string& target, std::mt19937_64& random);
/// Each knob from one of two.
TunePoint crossed(const TunePoint& a, const TunePoint& b, std::mt19937_64& random);
/// The noise that the sites' damage adds up to; to compare points of one base with.
double predicted_noise(const TunePoint& point, const TuneSites& sites);

/// `settings` gives data, evaluation, gates, groups, target and output; the steps are the base's, or where it is one to search from and the base
/// is int8, half or float, its own.
Recipe recipe_of(const TunePoint& point, const TuneSites& sites, const Recipe& settings);
/// A few words: "int8, entropy, 3 weights kept".
std::string words(const TunePoint& point);

}  // namespace infopt

// A recipe: what to do to a model, in which order, with which data and limits. It is the only authority on the order of passes.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/data/dataset.h"
#include "passes/group.h"
#include "passes/pass.h"
#include "recipes/gates.h"
#include "recipes/schema.h"

namespace infopt {

inline constexpr int64_t kRecipeVersion = 1;

struct CalibrateSpec {
  std::string method = "minmax";  ///< an observer
  double percentile = 99.99;      ///< of the values, for method percentile
  std::optional<int64_t> samples; ///< at most so many; empty: all that the data has
};

struct DataSpec {
  std::string label;  ///< the array of an npz that holds the labels; empty: "label" or "labels" where there is one
  std::optional<ImageOptions> image;
};
/// Sets the label and the image's preprocessing of `options`.
void apply(const DataSpec& data, DataOptions& options);

/// A pass, with the options that are in force: those of the recipe, the pass's defaults for the rest, in the pass's order.
struct Step {
  std::string pass;
  std::vector<std::pair<std::string, OptionValue>> options;
};

struct EvalSpec {
  std::string metric;   ///< top1, top5, command; empty: none
  std::string command;  ///< with metric command: what to run; "{outputs}" and "{data}" in it become paths
  std::string name;     ///< what reports call the command's figure
  std::string output;   ///< the model's output with the scores; empty: its first
  bool higher_is_better = true;
};

struct OutputSpec {
  std::string external_data = "auto";  ///< auto (where the file would pass 2 GB), always
  bool sparse_initializers = false;    ///< constants of few elements that aren't 0 are stored as such
};

struct Recipe {
  int64_t version = kRecipeVersion;
  std::string name, description;
  std::string target = "ort-cpu";
  std::string search = "none";    ///< auto: the steps are the first of those that `infopt quantize` tries until the gates are met
  CalibrateSpec calibrate;
  DataSpec data;
  std::vector<Step> steps;
  std::vector<GroupRule> groups;
  std::vector<GateLimit> gates;  ///< in the order of all_gates()
  EvalSpec eval;
  OutputSpec output;
};

/// The names that a recipe may use.
struct Vocabulary {
  std::vector<PassDef> passes;
  std::vector<std::string> targets, methods;
};
/// Those of this binary.
const Vocabulary& vocabulary();

/// Reads a recipe. `file` is what errors call it; `sets` are "path=value" changes, see apply_set(), made before it is checked.
/// Throws Error(Usage) with "file:line:column" for anything that doesn't belong, naming what was probably meant.
Recipe read_recipe(std::string_view text, const std::string& file, const Vocabulary& names, const std::vector<std::string>& sets = {});
/// The same of a built-in recipe's name, or of a path. A recipe without a name takes the file's.
Recipe load_recipe(const std::string& name_or_path, const Vocabulary& names, const std::vector<std::string>& sets = {});

/// Applies one "path=value": keys joined by dots, an entry of a list by its number (from 0) or by name (a step's pass, a
/// group's name); a path that begins with a step's pass needs no "steps." before it. The value is YAML; `null` removes.
/// Throws Error(Usage) whose place is "--set path=value".
void apply_set(YamlNode& recipe, const std::string& assignment, const Vocabulary& names);

/// Canonical YAML with every default written out; reads back to the same recipe. Two recipes are equal where this is.
std::string to_yaml(const Recipe& recipe);
/// The options of a step, as its pass gets them.
Options options_of(const Step& step);

Schema recipe_schema(const Vocabulary& names);
/// The same as a JSON Schema (draft 2020-12), for editors and other tools.
std::string recipe_json_schema(const Vocabulary& names);

struct BuiltinRecipe { std::string name, text; };
/// recipes/*.yaml, sorted by file name.
const std::vector<BuiltinRecipe>& builtin_recipes();

}  // namespace infopt

// What a recipe may hold, as one description of which reading, the errors and the published JSON Schema all follow.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "passes/pass.h"
#include "recipes/yaml_tree.h"

namespace infopt {

struct SchemaField;

struct Schema {
  enum class Kind {
    Bool, Int, Number, Text, List, Map,
    Step,  ///< one of the fields' names, or a map of exactly one of them to its options
  };
  Kind kind = Kind::Map;
  std::string help;
  std::vector<std::string> choices = {};    ///< of a text; empty: any
  std::string choice = "value";             ///< what the choices are called in messages
  std::optional<double> least = {}, most = {};  ///< of a number; of a list, of its length
  bool above_least = false;                 ///< `least` itself is too small
  std::vector<Schema> item = {};            ///< of a list: one
  bool or_one = false;                      ///< a list of one may be written without brackets
  std::vector<SchemaField> fields = {};     ///< of a map, of a step
  std::string field = "key";                ///< what the fields are called in messages
  std::optional<OptionValue> otherwise = {};///< the default, for documentation
};

struct SchemaField {
  std::string name;
  Schema schema;
  bool required = false;
};

/// Throws Error(Usage) at the first place in `node` that doesn't fit, saying what is wanted there, or the nearest name.
/// `path` is what the node is called: "calibrate.samples".
void check(const YamlNode& node, const Schema& schema, const std::string& path = {});

/// The schema of a pass's options.
Schema options_schema(const PassDef& pass);

// Reading nodes that were checked.
bool as_bool(const YamlNode& node);
int64_t as_int(const YamlNode& node);
double as_number(const YamlNode& node);
std::vector<std::string> as_texts(const YamlNode& node);
std::vector<double> as_numbers(const YamlNode& node);
std::vector<int64_t> as_ints(const YamlNode& node);

}  // namespace infopt

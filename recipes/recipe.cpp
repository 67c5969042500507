// Reading: parse, apply the command line's changes, check against the schema, then decode what is known to fit.
#include "recipes/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "lib/base/atomic_file.h"
#include "lib/base/error.h"
#include "lib/base/nearest.h"
#include "recipes/recipe_data.h"

namespace infopt {
namespace {

[[noreturn]] void fail(const YamlNode& node, const std::string& message) { throw Error(ErrorKind::Usage, message, node.where); }

void get(const YamlNode& map, const char* key, std::string& value) {
  if (const YamlNode* n = map.find(key)) value = n->scalar;
}
void get(const YamlNode& map, const char* key, double& value) {
  if (const YamlNode* n = map.find(key)) value = as_number(*n);
}
void get(const YamlNode& map, const char* key, bool& value) {
  if (const YamlNode* n = map.find(key)) value = as_bool(*n);
}
void get(const YamlNode& map, const char* key, std::vector<std::string>& value) {
  if (const YamlNode* n = map.find(key)) value = as_texts(*n);
}
void get(const YamlNode& map, const char* key, std::optional<double>& value) {
  if (const YamlNode* n = map.find(key)) value = as_number(*n);
}

void read_calibrate(const YamlNode& node, CalibrateSpec& out) {
  get(node, "method", out.method);
  get(node, "percentile", out.percentile);
  if (const YamlNode* n = node.find("samples")) out.samples = as_int(*n);
}

OptionValue read_option(const YamlNode& node, const OptionValue& otherwise) {
  switch (otherwise.index()) {
    case 0: return as_bool(node);
    case 1: return as_int(node);
    case 2: return as_number(node);
    case 3: return node.scalar;
    default: return as_texts(node);
  }
}

Step read_step(const YamlNode& node, const Vocabulary& names) {
  bool bare = node.kind == YamlNode::Kind::Scalar;
  Step out{.pass = bare ? node.scalar : node.entries.front().first.name};
  const YamlNode* given = bare ? nullptr : &node.entries.front().second;
  auto pass = std::find_if(names.passes.begin(), names.passes.end(), [&](const PassDef& p) { return p.name == out.pass; });
  for (const OptionDef& o : pass->options) {
    const YamlNode* value = given ? given->find(o.name) : nullptr;
    out.options.emplace_back(o.name, value ? read_option(*value, o.otherwise) : o.otherwise);
  }
  return out;
}

GroupRule read_group(const YamlNode& node) {
  GroupRule out;
  get(node, "name", out.name);
  get(node, "nodes", out.nodes);
  get(node, "ops", out.ops);
  get(node, "roles", out.roles);
  get(node, "depth_from", out.depth_from);
  get(node, "depth_to", out.depth_to);
  get(node, "weights", out.weights);
  get(node, "activations", out.activations);
  get(node, "form", out.form);
  get(node, "sparsity", out.sparsity);
  if (out.depth_from && out.depth_to && *out.depth_from > *out.depth_to) {
    fail(*node.find("depth_to"), fmt::format("the group ends at {}, before it begins at {}", *out.depth_to, *out.depth_from));
  }
  return out;
}

std::vector<GroupRule> read_groups(const YamlNode& node) {
  std::vector<GroupRule> out;
  for (const YamlNode& item : node.items) {
    GroupRule rule = read_group(item);
    bool taken = std::any_of(out.begin(), out.end(), [&](const GroupRule& g) { return g.name == rule.name; });
    if (taken) fail(*item.find("name"), fmt::format("there is a group '{}' already", rule.name));
    out.push_back(std::move(rule));
  }
  return out;
}

void read_eval(const YamlNode& node, EvalSpec& out) {
  get(node, "metric", out.metric);
  get(node, "command", out.command);
  get(node, "name", out.name);
  get(node, "output", out.output);
  get(node, "higher_is_better", out.higher_is_better);
  bool command = out.metric == "command";
  if (command && out.command.empty()) fail(*node.find("metric"), "metric command wants a 'command' beside it: what to run");
  if (command) return;
  for (const char* key : {"command", "name", "higher_is_better"}) {
    if (const YamlNode* n = node.find(key)) fail(*n, fmt::format("'{}' belongs to metric command", key));
  }
}

Recipe decode(const YamlNode& root, const Vocabulary& names) {
  Recipe out;
  get(root, "name", out.name);
  get(root, "description", out.description);
  get(root, "target", out.target);
  get(root, "search", out.search);
  if (const YamlNode* n = root.find("calibrate")) read_calibrate(*n, out.calibrate);
  if (const YamlNode* n = root.find("data")) out.data = read_data(*n);
  for (const YamlNode& step : root.find("steps")->items) out.steps.push_back(read_step(step, names));
  if (const YamlNode* n = root.find("groups")) out.groups = read_groups(*n);
  if (const YamlNode* n = root.find("gates")) {
    for (const GateDef& g : all_gates()) {
      if (const YamlNode* limit = n->find(g.name)) out.gates.push_back({g.name, as_number(*limit)});
    }
  }
  if (const YamlNode* n = root.find("eval")) read_eval(*n, out.eval);
  if (const YamlNode* n = root.find("output")) get(*n, "external_data", out.output.external_data), get(*n, "sparse_initializers", out.output.sparse_initializers);
  return out;
}

const BuiltinRecipe* find_builtin(const std::string& name) {
  for (const BuiltinRecipe& b : builtin_recipes()) {
    if (b.name == name) return &b;
  }
  return nullptr;
}

}  // namespace

Recipe read_recipe(std::string_view text, const std::string& file, const Vocabulary& names, const std::vector<std::string>& sets) {
  YamlNode root = parse_yaml(text, file);
  if (root.kind == YamlNode::Kind::Null) throw Error(ErrorKind::Usage, "the recipe is empty", file);
  for (const std::string& set : sets) apply_set(root, set, names);
  check(root, recipe_schema(names));
  return decode(root, names);
}

Recipe load_recipe(const std::string& name_or_path, const Vocabulary& names, const std::vector<std::string>& sets) {
  const BuiltinRecipe* builtin = find_builtin(name_or_path);
  std::error_code ignored;
  if (!builtin && !std::filesystem::exists(name_or_path, ignored)) {
    std::vector<std::string> all;
    for (const BuiltinRecipe& b : builtin_recipes()) all.push_back(b.name);
    throw Error(ErrorKind::Usage, "there is no such file, and no built-in recipe of that name" + did_you_mean(name_or_path, all), name_or_path);
  }
  Recipe out = builtin ? read_recipe(builtin->text, builtin->name + " (built in)", names, sets)
                       : read_recipe(read_file(name_or_path, kMaxRecipeBytes), name_or_path, names, sets);
  if (out.name.empty()) out.name = std::filesystem::path(name_or_path).stem().string();
  return out;
}

Options options_of(const Step& step) {
  Options out;
  for (const auto& [name, value] : step.options) out.set(name, value);
  return out;
}

}  // namespace infopt

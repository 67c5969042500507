#include "recipes/schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "lib/base/error.h"
#include "lib/base/nearest.h"

namespace infopt {
namespace {

[[noreturn]] void fail(const YamlNode& node, const std::string& message) { throw Error(ErrorKind::Usage, message, node.where); }

template <class T>
bool parse(std::string_view text, T& value) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

std::string shown(const YamlNode& node) {
  constexpr size_t kMostShown = 60;
  switch (node.kind) {
    case YamlNode::Kind::Null: return "nothing";
    case YamlNode::Kind::List: return "a list";
    case YamlNode::Kind::Map: return "a map";
    case YamlNode::Kind::Scalar: break;
  }
  std::string text = node.scalar.substr(0, kMostShown) + (node.scalar.size() > kMostShown ? "…" : "");
  return node.quoted ? '"' + text + '"' : "'" + text + "'";
}

std::string wanted(const Schema& schema) {
  switch (schema.kind) {
    case Schema::Kind::Bool: return "true or false";
    case Schema::Kind::Int: return "a whole number";
    case Schema::Kind::Number: return "a number";
    case Schema::Kind::Text: return schema.choices.empty() ? "a text" : fmt::format("one of {}", fmt::join(schema.choices, ", "));
    case Schema::Kind::List: return schema.or_one ? wanted(schema.item.front()) + ", or a list of them" : "a list";
    case Schema::Kind::Map: return "a map (`key: value` lines)";
    case Schema::Kind::Step: return "the name of a pass, or a map from one to its options";
  }
  return {};
}

std::string child(const std::string& path, const std::string& name) { return path.empty() ? name : path + "." + name; }

std::vector<std::string> names_of(const Schema& schema) {
  std::vector<std::string> names;
  for (const SchemaField& f : schema.fields) names.push_back(f.name);
  return names;
}

const SchemaField& field_named(const Schema& schema, const std::string& name, const std::string& where) {
  for (const SchemaField& f : schema.fields) {
    if (f.name == name) return f;
  }
  throw Error(ErrorKind::Usage, fmt::format("unknown {} '{}'{}", schema.field, name, did_you_mean(name, names_of(schema))), where);
}

std::string bounds(const Schema& schema) {
  std::string low = schema.least ? fmt::format("{} {}", schema.above_least ? "more than" : "at least", *schema.least) : "";
  std::string high = schema.most ? fmt::format("at most {}", *schema.most) : "";
  return low + (low.empty() || high.empty() ? "" : " and ") + high;
}

bool inside(const Schema& schema, double v) {
  if (schema.least && (schema.above_least ? v <= *schema.least : v < *schema.least)) return false;
  return !schema.most || v <= *schema.most;
}

void check_scalar(const YamlNode& node, const Schema& schema, const std::string& path) {
  std::string complaint = fmt::format("'{}' wants {}, here is {}", path, wanted(schema), shown(node));
  if (node.kind != YamlNode::Kind::Scalar) fail(node, complaint);
  if (schema.kind == Schema::Kind::Text) {
    const auto& all = schema.choices;
    if (all.empty() || std::find(all.begin(), all.end(), node.scalar) != all.end()) return;
    fail(node, fmt::format("'{}': unknown {} {}{}", path, schema.choice, shown(node), did_you_mean(node.scalar, all)));
  }
  if (node.quoted) fail(node, complaint + " (without the quotes)");
  if (schema.kind == Schema::Kind::Bool) {
    if (node.scalar != "true" && node.scalar != "false") fail(node, complaint);
    return;
  }
  double value = 0;
  int64_t whole = 0;
  bool fits = schema.kind == Schema::Kind::Int ? parse(node.scalar, whole) : parse(node.scalar, value) && std::isfinite(value);
  if (!fits) fail(node, complaint);
  if (schema.kind == Schema::Kind::Int) value = static_cast<double>(whole);
  if (!inside(schema, value)) fail(node, fmt::format("'{}' must be {}, here is {}", path, bounds(schema), node.scalar));
}

void check_list(const YamlNode& node, const Schema& schema, const std::string& path) {
  if (schema.or_one && node.kind == YamlNode::Kind::Scalar) return check(node, schema.item.front(), path);
  if (node.kind == YamlNode::Kind::Null && !schema.least) return;
  if (node.kind != YamlNode::Kind::List) fail(node, fmt::format("'{}' wants {}, here is {}", path, wanted(schema), shown(node)));
  if (!inside(schema, static_cast<double>(node.items.size()))) {
    fail(node, fmt::format("'{}' is a list of {} entries, here are {}", path, bounds(schema), node.items.size()));
  }
  for (size_t i = 0; i < node.items.size(); ++i) check(node.items[i], schema.item.front(), child(path, std::to_string(i)));
}

void check_map(const YamlNode& node, const Schema& schema, const std::string& path) {
  bool whole = path.empty();
  if (node.kind != YamlNode::Kind::Map && node.kind != YamlNode::Kind::Null) {
    fail(node, fmt::format("{} wants {}, here is {}", whole ? "a recipe" : "'" + path + "'", wanted(schema), shown(node)));
  }
  for (const auto& [key, value] : node.entries) check(value, field_named(schema, key.name, key.where).schema, child(path, key.name));
  for (const SchemaField& f : schema.fields) {
    if (f.required && !node.find(f.name)) fail(node, fmt::format("'{}' is missing: {}", child(path, f.name), f.schema.help));
  }
}

void check_step(const YamlNode& node, const Schema& schema, const std::string& path) {
  if (node.kind == YamlNode::Kind::Scalar) {
    field_named(schema, node.scalar, node.where);
    return;
  }
  if (node.kind != YamlNode::Kind::Map) fail(node, fmt::format("'{}' wants {}, here is {}", path, wanted(schema), shown(node)));
  if (node.entries.size() != 1) {
    fail(node, fmt::format("a step names one pass, here are {}: put a '-' before each, and indent options below their pass",
                           node.entries.size()));
  }
  const auto& [key, options] = node.entries.front();
  check(options, field_named(schema, key.name, key.where).schema, key.name);
}

Schema::Kind kind_of(const OptionValue& value) {
  constexpr Schema::Kind kinds[] = {Schema::Kind::Bool, Schema::Kind::Int, Schema::Kind::Number, Schema::Kind::Text, Schema::Kind::List};
  return kinds[value.index()];
}

template <class F>
auto each(const YamlNode& node, F read) {
  std::vector<decltype(read(node))> out;
  if (node.kind == YamlNode::Kind::Scalar) out.push_back(read(node));
  for (const YamlNode& item : node.items) out.push_back(read(item));
  return out;
}

}  // namespace

void check(const YamlNode& node, const Schema& schema, const std::string& path) {
  switch (schema.kind) {
    case Schema::Kind::List: return check_list(node, schema, path);
    case Schema::Kind::Map: return check_map(node, schema, path);
    case Schema::Kind::Step: return check_step(node, schema, path);
    default: return check_scalar(node, schema, path);
  }
}

Schema options_schema(const PassDef& pass) {
  Schema out{.kind = Schema::Kind::Map, .help = pass.summary};
  out.field = "option of " + pass.name;
  for (const OptionDef& o : pass.options) {
    Schema value{.kind = kind_of(o.otherwise), .help = o.help, .otherwise = o.otherwise};
    if (value.kind == Schema::Kind::List) {
      value.item = {Schema{.kind = Schema::Kind::Text, .choices = o.choices}};
      value.or_one = true;
    } else {
      value.choices = o.choices;
      value.least = o.least;
      value.most = o.most;
    }
    out.fields.push_back({o.name, std::move(value)});
  }
  return out;
}

bool as_bool(const YamlNode& node) { return node.scalar == "true"; }

int64_t as_int(const YamlNode& node) {
  int64_t value = 0;
  parse(node.scalar, value);
  return value;
}

double as_number(const YamlNode& node) {
  double value = 0;
  parse(node.scalar, value);
  return value;
}

std::vector<std::string> as_texts(const YamlNode& node) {
  return each(node, [](const YamlNode& n) { return n.scalar; });
}
std::vector<double> as_numbers(const YamlNode& node) { return each(node, as_number); }
std::vector<int64_t> as_ints(const YamlNode& node) { return each(node, as_int); }

}  // namespace infopt

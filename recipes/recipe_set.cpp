// --set path=value: a change to the YAML before it is checked, so that a change is held to what a recipe is held to.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "lib/base/error.h"
#include "lib/base/nearest.h"
#include "recipes/recipe.h"

namespace infopt {
namespace {

struct Assignment {
  std::string where;
  std::vector<std::string> path;
  YamlNode value;
};

[[noreturn]] void fail(const Assignment& a, const std::string& message) { throw Error(ErrorKind::Usage, message, a.where); }

void place(YamlNode& node, const std::string& where) {
  node.where = where;
  for (YamlNode& item : node.items) place(item, where);
  for (auto& [key, value] : node.entries) {
    key.where = where;
    place(value, where);
  }
}

Assignment parse(const std::string& text) {
  Assignment out{.where = "--set " + text};
  size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) fail(out, "wants path=value, as in calibrate.samples=64");
  std::string path = text.substr(0, equals), value = text.substr(equals + 1);
  if (value.find_first_not_of(" \t\r\n") == std::string::npos) fail(out, "there is no value after the '='; null removes what is there");
  for (size_t from = 0; from <= path.size();) {
    size_t dot = std::min(path.find('.', from), path.size());
    if (dot == from) fail(out, "the path has an empty part");
    out.path.push_back(path.substr(from, dot - from));
    from = dot + 1;
  }
  try {
    out.value = parse_yaml(value + "\n", out.where);
  } catch (const Error& e) {
    throw Error(e.kind(), e.message(), out.where);
  }
  place(out.value, out.where);
  return out;
}

YamlNode new_map(const std::string& where) {
  YamlNode node;
  node.kind = YamlNode::Kind::Map;
  node.where = where;
  return node;
}

// What an entry of a list is called: a step by its pass, a group by its name.
std::string name_of(const YamlNode& item) {
  if (item.kind == YamlNode::Kind::Scalar) return item.scalar;
  if (const YamlNode* name = item.find("name"); name && name->kind == YamlNode::Kind::Scalar) return name->scalar;
  return item.entries.size() == 1 ? item.entries.front().first.name : std::string{};
}

std::vector<std::string> names_in(const YamlNode* list) {
  std::vector<std::string> names;
  if (!list) return names;
  for (const YamlNode& item : list->items) {
    std::string name = name_of(item);
    if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

void walk(YamlNode& node, const Assignment& a, size_t depth);

void walk_map(YamlNode& node, const Assignment& a, size_t depth) {
  const std::string& key = a.path[depth];
  bool last = depth + 1 == a.path.size();
  YamlNode* child = node.find(key);
  if (last && a.value.kind == YamlNode::Kind::Null) {
    if (!child) {
      std::vector<std::string> keys;
      for (const auto& entry : node.entries) keys.push_back(entry.first.name);
      fail(a, fmt::format("there is no '{}' to remove{}", key, did_you_mean(key, keys)));
    }
    std::erase_if(node.entries, [&](const auto& entry) { return entry.first.name == key; });
    return;
  }
  if (!child) child = &node.entries.emplace_back(YamlNode::Key{key, a.where}, last ? YamlNode{} : new_map(a.where)).second;
  if (last) *child = a.value;
  else walk(*child, a, depth + 1);
}

// The map that a path goes on in: a step's options, or the entry itself.
YamlNode& inside(YamlNode& item, const Assignment& a, const std::string& name) {
  if (item.kind == YamlNode::Kind::Scalar) {
    YamlNode map = new_map(item.where);
    map.entries.emplace_back(YamlNode::Key{item.scalar, item.where}, new_map(item.where));
    item = std::move(map);
  }
  if (item.kind != YamlNode::Kind::Map) fail(a, fmt::format("'{}' has no parts to set", name));
  return item.entries.size() == 1 && !item.find("name") ? item.entries.front().second : item;
}

void set_entry(YamlNode& item, const Assignment& a, size_t depth) {
  bool last = depth + 1 == a.path.size();
  if (!last) return walk(inside(item, a, a.path[depth]), a, depth + 1);
  bool options = a.value.kind == YamlNode::Kind::Map && a.path[depth] == name_of(item) && !item.find("name");
  if (options) inside(item, a, a.path[depth]) = a.value;
  else item = a.value;
}

void walk_list(YamlNode& node, const Assignment& a, size_t depth) {
  const std::string& part = a.path[depth];
  size_t index = 0;
  auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
  bool by_number = error == std::errc{} && end == part.data() + part.size();
  if (by_number && index >= node.items.size()) fail(a, fmt::format("the list has {} entries, the first is 0", node.items.size()));
  bool removes = a.value.kind == YamlNode::Kind::Null && depth + 1 == a.path.size();
  bool found = false;
  for (size_t i = node.items.size(); i-- > 0;) {
    if (by_number ? i != index : name_of(node.items[i]) != part) continue;
    found = true;
    if (removes) node.items.erase(node.items.begin() + static_cast<std::ptrdiff_t>(i));
    else set_entry(node.items[i], a, depth);
  }
  if (!found) fail(a, fmt::format("the list has no entry '{}'{}", part, did_you_mean(part, names_in(&node))));
}

void walk(YamlNode& node, const Assignment& a, size_t depth) {
  if (node.kind == YamlNode::Kind::Null) node = new_map(a.where);
  if (node.kind == YamlNode::Kind::List) return walk_list(node, a, depth);
  if (node.kind == YamlNode::Kind::Map) return walk_map(node, a, depth);
  fail(a, fmt::format("'{}' has no parts to set", a.path[depth - 1]));
}

}  // namespace

void apply_set(YamlNode& recipe, const std::string& assignment, const Vocabulary& names) {
  Assignment a = parse(assignment);
  if (recipe.kind != YamlNode::Kind::Map) fail(a, "the recipe is not a map");
  std::vector<std::string> known;
  for (const SchemaField& f : recipe_schema(names).fields) known.push_back(f.name);
  if (std::find(known.begin(), known.end(), a.path.front()) == known.end()) {
    std::vector<std::string> steps = names_in(recipe.find("steps"));
    if (std::find(steps.begin(), steps.end(), a.path.front()) == steps.end()) {
      known.insert(known.end(), steps.begin(), steps.end());
      fail(a, fmt::format("the recipe has no key and no step '{}'{}", a.path.front(), did_you_mean(a.path.front(), known)));
    }
    a.path.insert(a.path.begin(), "steps");
  }
  walk(recipe, a, 0);
}

}  // namespace infopt

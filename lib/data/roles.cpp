#include <algorithm>
#include <charconv>

#include "lib/base/error.h"
#include "lib/data/row_source.h"

namespace infopt {
namespace {

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string quoted(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& n : names) text += (text.empty() ? "'" : ", '") + n + "'";
  return text.empty() ? "none" : text;
}

/// K of "arr_K", the name that numpy.savez gives to arrays without one; npos for other names.
size_t position_of(const std::string& name) {
  size_t k = 0;
  if (!name.starts_with("arr_")) return std::string::npos;
  const auto [end, status] = std::from_chars(name.data() + 4, name.data() + name.size(), k);
  return status == std::errc{} && end == name.data() + name.size() ? k : std::string::npos;
}

Role role_of(const std::string& name, const std::string& label, const DataOptions& options, bool by_position) {
  const auto input = [&](const std::string& as) {
    const bool shared = contains(options.shared, name) || contains(options.shared, as);
    return Role{shared ? Role::Kind::Shared : Role::Kind::Input, as};
  };
  if (contains(options.input_names, name)) return input(name);
  if (name == label) return {Role::Kind::Label, {}};
  if (options.input_names.empty()) return input(name);
  const size_t k = by_position ? position_of(name) : std::string::npos;
  return k < options.input_names.size() ? input(options.input_names[k]) : Role{};
}

}  // namespace

std::string find_label(const std::vector<std::string>& names, const DataOptions& options) {
  const std::vector<std::string> candidates =
      options.label.empty() ? std::vector<std::string>{"label", "labels"} : std::vector<std::string>{options.label};
  for (const std::string& name : candidates)
    if (contains(names, name) && !contains(options.input_names, name)) return name;
  return {};
}

std::vector<Role> assign_roles(const std::vector<std::string>& names, const DataOptions& options, const std::string& where) {
  const bool by_position = std::none_of(names.begin(), names.end(), [&](const std::string& n) { return contains(options.input_names, n); });
  const std::string label = find_label(names, options);
  std::vector<Role> roles;
  std::vector<std::string> inputs;
  for (const std::string& name : names) {
    roles.push_back(role_of(name, label, options, by_position));
    if (!roles.back().input.empty()) inputs.push_back(roles.back().input);
  }
  const auto has = [&] { return "it has " + quoted(names); };
  for (const std::string& name : options.required)
    if (!contains(inputs, name)) throw Error(ErrorKind::Malformed, "has no array '" + name + "', an input of the model; " + has(), where);
  if (inputs.empty())
    throw Error(ErrorKind::Malformed, "has no array that is an input of the model (" + quoted(options.input_names) + "); " + has(), where);
  return roles;
}

}  // namespace infopt

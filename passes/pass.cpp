#include "passes/pass.h"

#include <algorithm>

#include "lib/base/error.h"
#include "pass_table.h"  // generated

namespace infopt {

void Options::set(std::string name, OptionValue value) {
  for (auto& [known, old] : values_)
    if (known == name) {
      old = std::move(value);
      return;
    }
  values_.emplace_back(std::move(name), std::move(value));
}

const OptionValue& Options::find(const std::string& name) const {
  for (const auto& [known, value] : values_)
    if (known == name) return value;
  throw Error(ErrorKind::Defect, "a pass asked for an option '" + name + "' that it doesn't declare");
}

const std::vector<PassDef>& all_passes() {
  static const std::vector<PassDef> all = [] {
    std::vector<PassDef> out;
    for (const auto& make : pass_families()) out.push_back(make());
    std::sort(out.begin(), out.end(), [](const PassDef& a, const PassDef& b) { return a.name < b.name; });
    return out;
  }();
  return all;
}

const PassDef* find_pass(const std::string& name) {
  for (const PassDef& p : all_passes())
    if (p.name == name) return &p;
  return nullptr;
}

}  // namespace infopt

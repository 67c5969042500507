// YAML as a tree in which everything knows where it stands, so that errors can say so. A plain subset: no anchors, aliases,
// tags or second documents, and no key twice.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace infopt {

struct YamlNode {
  enum class Kind { Null, Scalar, List, Map };
  struct Key { std::string name, where; };

  Kind kind = Kind::Null;
  std::string where;      ///< "file:line:column", from 1
  std::string scalar;
  bool quoted = false;    ///< a quoted scalar is text, whatever it looks like
  std::vector<YamlNode> items;
  std::vector<std::pair<Key, YamlNode>> entries;

  YamlNode* find(std::string_view key);
  const YamlNode* find(std::string_view key) const;
};

inline constexpr size_t kMaxRecipeBytes = 1 << 20;

/// Parses one document; an empty one is Null. Throws Error(Usage) with the place, Error(Limit) for more than kMaxRecipeBytes.
YamlNode parse_yaml(std::string_view text, const std::string& file);
/// `text` as a YAML scalar on one line: plain where that reads back as the same text, else double-quoted.
std::string yaml_scalar(std::string_view text);

}  // namespace infopt

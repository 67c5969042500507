#include "recipes/yaml_tree.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>

#include "lib/base/error.h"

namespace infopt {

const YamlNode* YamlNode::find(std::string_view key) const {
  for (const auto& [k, node] : entries) {
    if (k.name == key) return &node;
  }
  return nullptr;
}

YamlNode* YamlNode::find(std::string_view key) { return const_cast<YamlNode*>(std::as_const(*this).find(key)); }

namespace {

std::string place(const std::string& file, const YAML::Mark& mark) {
  return mark.is_null() ? file : fmt::format("{}:{}:{}", file, mark.line + 1, mark.column + 1);
}

// Builds the tree from the parser's events.
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(const std::string& file) : file_(file) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++) fail(mark, "a recipe is one YAML document, here a second one begins");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { leaf(mark, "", anchor, YamlNode::Kind::Null, {}); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { fail(mark, "recipes have no aliases (*name): write the value out"); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) override {
    bool nothing = tag != "!" && (value.empty() || value == "~" || value == "null" || value == "Null" || value == "NULL");
    leaf(mark, tag, anchor, nothing ? YamlNode::Kind::Null : YamlNode::Kind::Scalar, value);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::List);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::Map);
  }
  void OnMapEnd() override { close(); }

  YamlNode take() { return std::move(root_); }

 private:
  struct Level {
    YamlNode node;
    YamlNode::Key key;
    bool has_key = false;
  };

  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& message) const {
    throw Error(ErrorKind::Usage, message, place(file_, mark));
  }

  YamlNode make(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Kind kind) const {
    if (anchor) fail(mark, "recipes have no anchors (&name): write the value out");
    if (!tag.empty() && tag != "?" && tag != "!") fail(mark, "recipes have no YAML tags, here is " + tag);
    YamlNode node;
    node.kind = kind;
    node.where = place(file_, mark);
    node.quoted = tag == "!";
    return node;
  }

  bool wants_key() const { return !levels_.empty() && levels_.back().node.kind == YamlNode::Kind::Map && !levels_.back().has_key; }

  void leaf(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Kind kind, const std::string& value) {
    YamlNode node = make(mark, tag, anchor, kind);
    node.scalar = value;
    if (!wants_key()) return add(std::move(node));
    Level& level = levels_.back();
    if (kind == YamlNode::Kind::Null) fail(mark, "a key is missing before the ':'");
    if (level.node.find(value)) fail(mark, fmt::format("the key '{}' stands here a second time", value));
    level.key = {value, node.where};
    level.has_key = true;
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Kind kind) {
    YamlNode node = make(mark, tag, anchor, kind);
    if (wants_key()) fail(mark, "a key must be a plain name, or a bracket is not closed");
    levels_.push_back({std::move(node), {}, false});
  }

  void close() {
    YamlNode node = std::move(levels_.back().node);
    levels_.pop_back();
    add(std::move(node));
  }

  void add(YamlNode node) {
    if (levels_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& level = levels_.back();
    if (level.node.kind == YamlNode::Kind::List) {
      level.node.items.push_back(std::move(node));
    } else {
      level.node.entries.emplace_back(std::move(level.key), std::move(node));
      level.has_key = false;
    }
  }

  const std::string& file_;
  std::vector<Level> levels_;
  YamlNode root_;
  int documents_ = 0;
};

bool reads_as_itself(std::string_view text) {
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL" || text == "true" || text == "false") return false;
  auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '/'; };
  if (!plain(text.front()) || (text.front() >= '0' && text.front() <= '9')) return false;
  return std::all_of(text.begin(), text.end(), [&](char c) { return plain(c) || c == '-' || c == '.'; });
}

}  // namespace

YamlNode parse_yaml(std::string_view text, const std::string& file) {
  if (text.size() > kMaxRecipeBytes) {
    throw Error(ErrorKind::Limit, fmt::format("a recipe has at most {} bytes, this one has {}", kMaxRecipeBytes, text.size()), file);
  }
  if (size_t nul = text.find('\0'); nul != std::string_view::npos) {
    throw Error(ErrorKind::Usage, fmt::format("not a text file: byte {} is zero", nul), file);
  }
  Builder builder(file);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& e) {
    throw Error(ErrorKind::Usage, "not valid YAML: " + e.msg, place(file, e.mark));
  }
  return builder.take();
}

std::string yaml_scalar(std::string_view text) {
  if (reads_as_itself(text)) return std::string(text);
  std::string out = "\"";
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') out += std::string("\\") + c;
    else if (c == '\n') out += "\\n";
    else if (c == '\t') out += "\\t";
    else if (byte < 0x20 || byte == 0x7f) out += fmt::format("\\x{:02x}", byte);
    else out += c;
  }
  return out + "\"";
}

}  // namespace infopt

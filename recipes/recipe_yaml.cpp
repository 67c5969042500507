// The canonical form of a recipe.
#include <fmt/format.h>

#include "recipes/recipe.h"
#include "recipes/recipe_data.h"

namespace infopt {
namespace {

std::string shown(bool v) { return v ? "true" : "false"; }
std::string shown(int64_t v) { return fmt::format("{}", v); }
std::string shown(double v) { return fmt::format("{}", v); }
std::string shown(float v) { return fmt::format("{}", v); }
std::string shown(const std::string& v) { return yaml_scalar(v); }
template <class T>
std::string shown(const std::vector<T>& values) {
  std::string out = "[";
  for (const T& v : values) out += (out.size() > 1 ? ", " : "") + shown(v);
  return out + "]";
}

// Lines of one map; where nothing was added, nothing is printed.
class Block {
 public:
  explicit Block(std::string indent) : indent_(std::move(indent)) {}
  template <class T>
  Block& put(const std::string& key, const T& value) {
    text_ += indent_ + key + ": " + shown(value) + "\n";
    return *this;
  }
  template <class T>
  Block& put_some(const std::string& key, const T& value) {
    if (!value.empty()) put(key, value);
    return *this;
  }
  template <class T>
  Block& put_some(const std::string& key, const std::optional<T>& value) {
    if (value) put(key, *value);
    return *this;
  }
  Block& nest(const std::string& key, const Block& inner) {
    if (!inner.text_.empty()) text_ += indent_ + key + ":\n" + inner.text_;
    return *this;
  }
  /// As an entry of a list, of which the first line bears the dash.
  std::string entry() const {
    std::string out = text_;
    out[indent_.size() - 2] = '-';
    return out;
  }
  Block& add(const std::string& lines) {
    text_ += lines;
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  std::string indent_, text_;
};

Block calibrate(const CalibrateSpec& c) {
  Block out("  ");
  out.put("method", c.method).put("percentile", c.percentile).put_some("samples", c.samples);
  return out;
}

Block data(const DataSpec& d) {
  Block out("  "), image("    ");
  out.put_some("label", d.label);
  if (d.image) {
    const ImageOptions& i = *d.image;
    ImageTexts texts = texts_of(i);
    image.put_some("input", i.input).put_some("resize", texts.resize).put("filter", texts.filter).put_some("crop", texts.crop);
    image.put("layout", texts.layout).put("color", texts.color).put("scale", i.scale).put_some("mean", i.mean).put_some("std", i.std);
    image.put("dtype", std::string(name_of(i.dtype))).put_some("labels", i.labels);
  }
  return out.nest("image", image);
}

Block steps(const std::vector<Step>& all) {
  Block out("  ");
  for (const Step& s : all) {
    Block options("      ");
    for (const auto& [name, value] : s.options) {
      std::visit([&, key = name](const auto& v) { options.put(key, v); }, value);
    }
    out.add(options.text().empty() ? "  - " + s.pass + "\n" : "  - " + s.pass + ":\n" + options.text());
  }
  return out;
}

Block groups(const std::vector<GroupRule>& all) {
  Block out("  ");
  for (const GroupRule& g : all) {
    Block rule("    ");
    rule.put("name", g.name).put_some("nodes", g.nodes).put_some("ops", g.ops).put_some("roles", g.roles);
    rule.put_some("depth_from", g.depth_from).put_some("depth_to", g.depth_to);
    rule.put_some("weights", g.weights).put_some("activations", g.activations).put_some("form", g.form).put_some("sparsity", g.sparsity);
    out.add(rule.entry());
  }
  return out;
}

Block gates(const std::vector<GateLimit>& all) {
  Block out("  ");
  for (const GateLimit& g : all) out.put(g.name, g.limit);
  return out;
}

Block eval(const EvalSpec& e) {
  Block out("  ");
  out.put_some("metric", e.metric).put_some("command", e.command).put_some("name", e.name).put_some("output", e.output);
  if (e.metric == "command") out.put("higher_is_better", e.higher_is_better);
  return out;
}

}  // namespace

std::string to_yaml(const Recipe& r) {
  Block out("");
  out.put("version", r.version).put_some("name", r.name).put_some("description", r.description).put("target", r.target);
  if (r.search != Recipe().search) out.put("search", r.search);
  out.nest("calibrate", calibrate(r.calibrate)).nest("data", data(r.data)).nest("steps", steps(r.steps)).nest("groups", groups(r.groups));
  out.nest("gates", gates(r.gates)).nest("eval", eval(r.eval));
  Block output("  ");
  output.put("external_data", r.output.external_data).put("sparse_initializers", r.output.sparse_initializers);
  return out.nest("output", output).text();
}

}  // namespace infopt

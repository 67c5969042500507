// As much of JSON Schema (draft 2020-12) as infopt's own schemas use; a keyword that it doesn't know is a failure, not a pass.
#pragma once
#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace infopt::test {

class JsonSchema {
 public:
  using Json = nlohmann::json;
  explicit JsonSchema(const std::string& text) : root_(Json::parse(text)) {}
  /// Where and why `value` doesn't fit; empty where it does.
  std::string check(const Json& value) const { return check(value, root_, "$"); }

 private:
  static bool is(const Json& v, const std::string& type) {
    if (type == "object") return v.is_object();
    if (type == "array") return v.is_array();
    if (type == "string") return v.is_string();
    if (type == "boolean") return v.is_boolean();
    if (type == "null") return v.is_null();
    if (type == "integer") return v.is_number_integer();
    return type == "number" && v.is_number();
  }

  std::string check_type(const Json& v, const Json& type, const std::string& at) const {
    bool fits = false;
    for (const Json& t : type.is_array() ? type : Json::array({type})) fits |= is(v, t);
    return fits ? "" : at + " is no " + type.dump() + ": " + v.dump().substr(0, 80);
  }

  std::string check_object(const Json& v, const Json& schema, const std::string& at) const {
    if (!v.is_object()) return {};
    const Json properties = schema.value("properties", Json::object());
    for (const Json& name : schema.value("required", Json::array())) {
      if (!v.contains(name)) return at + " lacks " + name.dump();
    }
    for (const auto& [key, item] : v.items()) {
      const Json* sub = properties.contains(key) ? &properties[key] : schema.contains("additionalProperties") ? &schema["additionalProperties"] : nullptr;
      if (!sub) continue;
      if (sub->is_boolean()) {
        if (!*sub) return at + " has the unknown key " + key;
      } else if (std::string e = check(item, *sub, at + "." + key); !e.empty()) {
        return e;
      }
    }
    if (schema.contains("minProperties") && v.size() < schema["minProperties"]) return at + " has too few keys";
    return schema.contains("maxProperties") && v.size() > schema["maxProperties"] ? at + " has too many keys" : "";
  }

  std::string check_array(const Json& v, const Json& schema, const std::string& at) const {
    if (!v.is_array()) return {};
    if (schema.contains("minItems") && v.size() < schema["minItems"]) return at + " is too short";
    if (schema.contains("maxItems") && v.size() > schema["maxItems"]) return at + " is too long";
    for (size_t i = 0; schema.contains("items") && i < v.size(); ++i) {
      if (std::string e = check(v[i], schema["items"], at + "[" + std::to_string(i) + "]"); !e.empty()) return e;
    }
    return {};
  }

  std::string check_number(const Json& v, const Json& schema, const std::string& at) const {
    if (!v.is_number()) return {};
    auto x = v.get<double>();
    bool fits = (!schema.contains("minimum") || x >= schema["minimum"]) && (!schema.contains("maximum") || x <= schema["maximum"]) &&
                (!schema.contains("exclusiveMinimum") || x > schema["exclusiveMinimum"]);
    return fits ? "" : at + " is out of range: " + v.dump();
  }

  std::string check_choice(const Json& v, const Json& schema, const std::string& at) const {
    for (const char* key : {"anyOf", "oneOf"}) {
      if (!schema.contains(key)) continue;
      int fit = 0;
      std::string why;
      for (const Json& sub : schema[key]) {
        std::string e = check(v, sub, at);
        fit += e.empty();
        why += (why.empty() ? "" : "; ") + e;
      }
      if (!fit || (fit > 1 && key == std::string("oneOf"))) return why;
    }
    if (!schema.contains("enum")) return {};
    for (const Json& choice : schema["enum"]) {
      if (choice == v) return {};
    }
    return at + " is none of " + schema["enum"].dump() + ": " + v.dump();
  }

  std::string check(const Json& v, const Json& schema, const std::string& at) const {
    static const std::set<std::string> known{"$schema", "$defs", "$ref", "title", "description", "default", "type", "properties",
                                             "required", "additionalProperties", "minProperties", "maxProperties", "items", "minItems",
                                             "maxItems", "minimum", "maximum", "exclusiveMinimum", "anyOf", "oneOf", "enum"};
    for (const auto& [key, unused] : schema.items()) {
      if (!known.contains(key)) return at + ": the schema's keyword " + key + " is not known here";
    }
    if (schema.contains("$ref")) {
      std::string e = check(v, root_.at(Json::json_pointer(schema["$ref"].get<std::string>().substr(1))), at);
      if (!e.empty()) return e;
    }
    std::string e = schema.contains("type") ? check_type(v, schema["type"], at) : "";
    if (e.empty()) e = check_object(v, schema, at);
    if (e.empty()) e = check_array(v, schema, at);
    if (e.empty()) e = check_number(v, schema, at);
    return e.empty() ? check_choice(v, schema, at) : e;
  }

  Json root_;
};

}  // namespace infopt::test

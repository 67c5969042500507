// The keys of a recipe: one table, read from top to bottom as a recipe is.
#include <cmath>
#include <nlohmann/json.hpp>

#include "recipes/recipe.h"

namespace infopt {
namespace {

using Kind = Schema::Kind;
using Json = nlohmann::ordered_json;

Schema text(std::string help, std::string otherwise = {}) {
  Schema s{.kind = Kind::Text, .help = std::move(help)};
  if (!otherwise.empty()) s.otherwise = OptionValue(std::move(otherwise));
  return s;
}

Schema one_of(std::string help, std::string what, std::vector<std::string> choices, std::string otherwise = {}) {
  Schema s = text(std::move(help), std::move(otherwise));
  s.choices = std::move(choices);
  s.choice = std::move(what);
  return s;
}

Schema number(std::string help, std::optional<double> least, std::optional<double> most, bool above = false) {
  return {.kind = Kind::Number, .help = std::move(help), .least = least, .most = most, .above_least = above};
}

Schema whole(std::string help, std::optional<double> least) { return {.kind = Kind::Int, .help = std::move(help), .least = least}; }

Schema list(std::string help, Schema item, std::optional<double> least, std::optional<double> most, bool or_one = true) {
  return {.kind = Kind::List, .help = std::move(help), .least = least, .most = most, .item = {std::move(item)}, .or_one = or_one};
}

Schema map(std::string help, std::vector<SchemaField> fields, std::string field = "key") {
  return {.kind = Kind::Map, .help = std::move(help), .fields = std::move(fields), .field = std::move(field)};
}

Schema with_default(Schema s, OptionValue value) {
  s.otherwise = std::move(value);
  return s;
}

Schema calibrate_schema(const Vocabulary& names) {
  CalibrateSpec otherwise;
  return map("How ranges are found from the calibration data.",
             {{"method", one_of("The observer that makes ranges from statistics.", "method", names.methods, otherwise.method)},
              {"percentile", with_default(number("With method percentile: the share of values that a range covers, in percent.", 50, 100, true),
                                          otherwise.percentile)},
              {"samples", whole("At most so many samples of the data; without it, all.", 1)}});
}

Schema image_schema() {
  Schema side = whole("Pixels.", 1);
  side.most = 16384;
  return map("How images become the model's input: resized, cropped, then (pixel * scale - mean) / std.",
             {{"input", text("The model's input that the images are; without it, its first.")},
              {"resize", list("One number: the shorter side, the other in proportion. Two: height and width.", side, 1, 2)},
              {"filter", one_of("How it is resized, as Pillow does.", "filter", {"nearest", "bilinear", "bicubic"}, "bilinear")},
              {"crop", list("The middle of the image. One number: a square. Two: height and width.", side, 1, 2)},
              {"layout", one_of("Order of the input's dimensions.", "layout", {"nchw", "nhwc"}, "nchw")},
              {"color", one_of("Order of the channels.", "color", {"rgb", "bgr", "gray"}, "rgb")},
              {"scale", with_default(number("What a pixel's value (0 to 255) is multiplied by; without it, 1/255.", 1e-30, 1e30), 1.0 / 255)},
              {"mean", list("Subtracted after scaling; one number, or one a channel.", number("", -1e30, 1e30), 1, 3)},
              {"std", list("Divided by after that; one number, or one a channel.", number("", 1e-30, 1e30), 1, 3)},
              {"dtype", one_of("The input's element type.", "type", {"float32", "float16", "float64", "uint8", "int8", "int32", "int64"}, "float32")},
              {"labels", text("A CSV file of \"file,label\" lines; without it, labels.csv in the folder, or its subfolders.")}});
}

Schema data_schema() {
  return map("How data becomes inputs and labels.",
             {{"label", text("The array of an npz that holds the labels; without it, `label` or `labels` where there is one.")},
              {"image", image_schema()}});
}

Schema steps_schema(const Vocabulary& names) {
  Schema step{.kind = Kind::Step, .field = "pass"};
  for (const PassDef& p : names.passes) step.fields.push_back({p.name, options_schema(p)});
  return list("The passes, in the order in which they run: a name, or a name with options below it.", std::move(step), 1, 1000, false);
}

Schema groups_schema() {
  std::vector<std::string> types{"int8", "float8", "float16", "bfloat16", "float32"};
  std::vector<std::string> weights = types;
  weights.insert(weights.begin() + 1, {"uint8", "int4", "uint4", "int2", "uint2"});
  std::vector<std::string> activations = types;
  activations.insert(activations.begin() + 1, {"int16", "uint16"});
  Schema rule = map(
      "A node belongs to the first group of which every condition given fits.",
      {{"name", text("What reports call the group."), true},
       {"nodes", list("Condition: globs (* and ?) over names of nodes or weights.", text(""), 1, {})},
       {"ops", list("Condition: types of operators.", text(""), 1, {})},
       {"roles", list("Condition: what the node does in the model.",
                      one_of("", "role", {"attention", "ffn", "embedding", "head", "normalization", "convolution"}), 1, {})},
       {"depth_from", number("Condition: at least so far through the weighted nodes, 0 to 1.", 0, 1)},
       {"depth_to", number("Condition: at most so far through the weighted nodes, 0 to 1.", 0, 1)},
       {"weights", one_of("The type of the weights; without it, as the step chooses.", "type", weights)},
       {"activations", one_of("The type of the activations; without it, as the step chooses.", "type", activations)},
       {"form", one_of("The form of int8 layers; without it, as the step chooses.", "form", {"auto", "static", "dynamic", "storage", "float"})},
       {"sparsity", number("The share of the weights that prune_weights takes away, 0 for none; without it, as the step chooses.", 0, 0.99)}});
  return list("Precision and sparsity by group.", std::move(rule), {}, 1000, false);
}

Schema gates_schema() {
  Schema out = map("Limits; one that is not met ends the run with exit code 8.", {}, "gate");
  for (const GateDef& g : all_gates()) out.fields.push_back({g.name, number(g.help, g.least, g.most, g.above_least)});
  return out;
}

Schema eval_schema() {
  return map("The task's metric, measured on both models with --eval.",
             {{"metric", one_of("top1, top5: the share of samples whose label is the best score, or among the best five. command: a program's.",
                                "metric", {"top1", "top5", "command"})},
              {"command", text("With metric command: what the shell runs; it prints one number. {outputs} becomes the path of an npz of the "
                               "model's outputs, {data} that of the evaluation data.")},
              {"name", text("What reports call the command's figure.")},
              {"output", text("The model's output with the scores; without it, its first.")},
              {"higher_is_better", with_default({.kind = Kind::Bool, .help = "Whether a larger figure of the command is better."}, true)}});
}

Json bound(double v) { return v == std::floor(v) && std::abs(v) < 1e9 ? Json(static_cast<int64_t>(v)) : Json(v); }

Json default_json(const OptionValue& value) {
  return std::visit([](const auto& v) { return Json(v); }, value);
}

Json to_json(const Schema& schema);

Json map_json(const Schema& schema) {
  Json out{{"type", "object"}, {"additionalProperties", false}};
  Json properties = Json::object(), required = Json::array();
  for (const SchemaField& f : schema.fields) {
    properties[f.name] = to_json(f.schema);
    if (f.required) required.push_back(f.name);
  }
  out["properties"] = std::move(properties);
  if (!required.empty()) out["required"] = std::move(required);
  return out;
}

Json step_json(const Schema& schema) {
  Json names = Json::array();
  for (const SchemaField& f : schema.fields) names.push_back(f.name);
  Json with_options = map_json(schema);
  for (auto& options : with_options["properties"]) options["type"] = {"object", "null"};
  with_options["minProperties"] = 1;
  with_options["maxProperties"] = 1;
  return {{"oneOf", {Json{{"enum", std::move(names)}}, std::move(with_options)}}};
}

Json list_json(const Schema& schema) {
  Json items = to_json(schema.item.front());
  Json out{{"type", "array"}, {"items", items}};
  if (schema.least) out["minItems"] = static_cast<int64_t>(*schema.least);
  if (schema.most) out["maxItems"] = static_cast<int64_t>(*schema.most);
  return schema.or_one ? Json{{"anyOf", {std::move(items), std::move(out)}}} : out;
}

Json scalar_json(const Schema& schema) {
  constexpr const char* types[] = {"boolean", "integer", "number", "string"};
  Json out{{"type", types[static_cast<size_t>(schema.kind)]}};
  if (!schema.choices.empty()) out["enum"] = schema.choices;
  if (schema.least) out[schema.above_least ? "exclusiveMinimum" : "minimum"] = bound(*schema.least);
  if (schema.most) out["maximum"] = bound(*schema.most);
  return out;
}

Json to_json(const Schema& schema) {
  Json out = Json::object();
  if (!schema.help.empty()) out["description"] = schema.help;
  Json body = schema.kind == Kind::Map    ? map_json(schema)
              : schema.kind == Kind::Step ? step_json(schema)
              : schema.kind == Kind::List ? list_json(schema)
                                          : scalar_json(schema);
  out.update(body);
  if (schema.otherwise) out["default"] = default_json(*schema.otherwise);
  return out;
}

}  // namespace

Schema recipe_schema(const Vocabulary& names) {
  Recipe otherwise;
  Schema version = whole("The version of the recipe format: 1.", kRecipeVersion);
  version.most = kRecipeVersion;
  return map("What infopt does to a model, in which order, with which data and limits.",
             {{"version", std::move(version), true},
              {"name", text("The recipe's name; without it, its file's.")},
              {"description", text("What the recipe is for.")},
              {"target", one_of("The engine that the output is made for.", "target", names.targets, otherwise.target)},
              {"search", one_of("auto: the steps are what `infopt quantize` tries first; it changes them until the gates are met.", "choice", {"none", "auto"}, otherwise.search)},
              {"calibrate", calibrate_schema(names)},
              {"data", data_schema()},
              {"steps", steps_schema(names), true},
              {"groups", groups_schema()},
              {"gates", gates_schema()},
              {"eval", eval_schema()},
              {"output", map("How the output is written.",
                             {{"external_data", one_of("Weights in a file beside the model: auto, where it would pass 2 GB, or always.",
                                                       "choice", {"auto", "always"}, otherwise.output.external_data)},
                              {"sparse_initializers", with_default({.kind = Kind::Bool, .help = "Constants with few elements that aren't 0 as ONNX's sparse initializers, where that is smaller."}, false)}})}});
}

std::string recipe_json_schema(const Vocabulary& names) {
  Json out{{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", "infopt recipe"}};
  out.update(to_json(recipe_schema(names)));
  return out.dump(2) + "\n";
}

}  // namespace infopt

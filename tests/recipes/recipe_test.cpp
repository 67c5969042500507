#include "recipes/recipe.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "lib/base/atomic_file.h"
#include "lib/base/error.h"
#include "lib/base/nearest.h"
#include "tests/recipes/test_vocabulary.h"
#include "tests/support/json_schema.h"

namespace infopt {
namespace {

using test::error_of;
using test::kFullRecipe;
using test::read;
using test::test_vocabulary;
using testing::ElementsAre;
using testing::HasSubstr;
using Texts = std::vector<std::string>;

const std::string kLeast = "version: 1\nsteps: [fold_constants]\n";

const OptionValue& option(const Recipe& r, size_t step, const std::string& name) {
  for (const auto& [key, value] : r.steps.at(step).options) {
    if (key == name) return value;
  }
  throw Error(ErrorKind::Defect, "no option " + name);
}

TEST(Recipe, HoldsWhatTheFileSays) {
  Recipe r = read(kFullRecipe);
  EXPECT_EQ(r.name, "full");
  EXPECT_EQ(r.description, "with: a colon, \"quotes\"\nand two lines");
  EXPECT_EQ(r.target, "tensorrt");
  EXPECT_EQ(r.calibrate.method, "percentile");
  EXPECT_EQ(r.calibrate.percentile, 99.9);
  EXPECT_EQ(r.calibrate.samples, 64);
  EXPECT_EQ(r.data.label, "7");
  const ImageOptions& image = r.data.image.value();
  EXPECT_EQ(image.input, "pixels");
  EXPECT_EQ(image.resize, ImageOptions::Resize::ShortSide);
  EXPECT_EQ(image.resize_short, 256);
  EXPECT_EQ(image.filter, ImageOptions::Filter::Bicubic);
  EXPECT_EQ(image.crop_height, 224);
  EXPECT_EQ(image.crop_width, 192);
  EXPECT_EQ(image.layout, ImageOptions::Layout::Nhwc);
  EXPECT_EQ(image.order, ImageOptions::Order::Bgr);
  EXPECT_EQ(image.scale, 0.0078125f);
  EXPECT_THAT(image.mean, ElementsAre(0.5f, 0.25f, 0.125f));
  EXPECT_THAT(image.std, ElementsAre(2.0f));
  EXPECT_EQ(image.dtype, DType::F16);
  EXPECT_EQ(image.labels, "a, b.csv");
  ASSERT_EQ(r.steps.size(), 4u);
  EXPECT_EQ(r.steps[3].pass, "fold_constants");
  EXPECT_EQ(option(r, 1, "enabled"), OptionValue(false));
  EXPECT_EQ(option(r, 1, "rounds"), OptionValue(int64_t{7}));
  EXPECT_EQ(option(r, 1, "threshold"), OptionValue(1e-3));
  EXPECT_EQ(option(r, 1, "mode"), OptionValue(std::string("static")));
  EXPECT_EQ(option(r, 1, "keep"), OptionValue(Texts{"a", "b c", "*"}));
  EXPECT_EQ(option(r, 1, "kinds"), OptionValue(Texts{"gemm", "conv"}));
  ASSERT_EQ(r.groups.size(), 2u);
  EXPECT_THAT(r.groups[0].nodes, ElementsAre("*/attn/*"));
  EXPECT_THAT(r.groups[0].ops, ElementsAre("MatMul", "Gemm"));
  EXPECT_EQ(r.groups[0].depth_to, 0.75);
  EXPECT_EQ(r.groups[0].weights, "float16");
  EXPECT_EQ(r.groups[0].form, "dynamic");
  EXPECT_FALSE(r.groups[1].depth_from);
  ASSERT_EQ(r.gates.size(), 3u);
  EXPECT_EQ(r.gates[0].name, "max_metric_drop");  // in the table's order
  EXPECT_EQ(r.gates[0].limit, 0.005);
  EXPECT_EQ(r.eval.command, "python3 score.py {outputs}");
  EXPECT_FALSE(r.eval.higher_is_better);
  EXPECT_EQ(r.output.external_data, "always");
}

TEST(Recipe, WhatTheFileLeavesOutHasItsDefault) {
  Recipe r = read("version: 1\nsteps: [quantize_int8]\n");
  EXPECT_EQ(r.target, "ort-cpu");
  EXPECT_EQ(r.calibrate.method, "minmax");
  EXPECT_FALSE(r.calibrate.samples);
  EXPECT_FALSE(r.data.image);
  EXPECT_EQ(option(r, 0, "rounds"), OptionValue(int64_t{3}));
  EXPECT_EQ(option(r, 0, "kinds"), OptionValue(Texts{"conv"}));
}

TEST(Recipe, ImagesBecomeOptionsOfTheData) {
  DataOptions options;
  apply(read(kLeast + "data: {label: y, image: {resize: [320, 240], crop: 200, color: gray}}\n").data, options);
  EXPECT_EQ(options.label, "y");
  EXPECT_EQ(options.image.resize, ImageOptions::Resize::Exact);
  EXPECT_EQ(options.image.resize_height, 320);
  EXPECT_EQ(options.image.resize_width, 240);
  EXPECT_EQ(options.image.crop_height, 200);
  EXPECT_EQ(options.image.crop_width, 200);
  EXPECT_EQ(options.image.order, ImageOptions::Order::Gray);
  EXPECT_EQ(options.image.scale, ImageOptions{}.scale);
  Recipe exact = read(kLeast + "data: {image: {resize: [320, 240]}}\n");
  EXPECT_EQ(read(to_yaml(exact)).data.image->resize_width, 240);
}

TEST(Recipe, SectionsMayBeEmptyAndListsOfOneBare) {
  Recipe r = read("version: 1\ncalibrate:\ngroups:\ngates: {}\nsteps:\n  - quantize_int8:\n  - quantize_int8: {keep: x}\n");
  EXPECT_EQ(option(r, 1, "keep"), OptionValue(Texts{"x"}));
}

TEST(Recipe, TheCanonicalFormReadsBackToTheSameRecipe) {
  for (const std::string& text : {std::string(kFullRecipe), kLeast}) {
    std::string canonical = to_yaml(read(text));
    EXPECT_EQ(to_yaml(read(canonical)), canonical);
  }
  Recipe r = read(kFullRecipe), back = read(to_yaml(r));
  EXPECT_EQ(back.description, r.description);
  EXPECT_EQ(back.data.label, r.data.label);
  EXPECT_EQ(back.data.image->scale, r.data.image->scale);
  EXPECT_EQ(back.data.image->crop_width, r.data.image->crop_width);
  EXPECT_EQ(back.steps[1].options, r.steps[1].options);
  EXPECT_EQ(back.groups[0].nodes, r.groups[0].nodes);
  EXPECT_EQ(back.groups[0].depth_from, r.groups[0].depth_from);
  EXPECT_EQ(back.gates.size(), r.gates.size());
  EXPECT_EQ(back.eval.command, r.eval.command);
}

TEST(Recipe, TextsSurviveTheCanonicalForm) {
  for (std::string text : {"true", "null", "~", "12", "1e3", "- a", "a: b", "# no", " padded ", "@at", "ünïcode", "tab\t", "{x}", "[y]", "*a", "&a",
                           "!tag", "a #b", "", "'", "\\n", "%", "x:", "yes", "-", "\x01"}) {
    if (text.empty()) continue;
    Recipe r = read(kLeast);
    r.description = text;
    EXPECT_EQ(read(to_yaml(r)).description, text);
  }
}

struct Bad {
  std::string text, place, message;
};

TEST(Recipe, ErrorsSayWhereAndWhatWasMeant) {
  std::string head = "version: 1\nsteps: [fold_constants]\n";
  const std::vector<Bad> cases{
      // Unknown names
      {head + "calibate: {}\n", "r.yaml:3:1: ", "unknown key 'calibate'; did you mean 'calibrate'?"},
      {head + "calibrate:\n  smaples: 3\n", "r.yaml:4:3: ", "unknown key 'smaples'; did you mean 'samples'?"},
      {"version: 1\nsteps:\n  - fold_constant\n", "r.yaml:3:5: ", "unknown pass 'fold_constant'; did you mean 'fold_constants'?"},
      {"version: 1\nsteps:\n  - zzz\n", "r.yaml:3:5: ", "unknown pass 'zzz'; there are: fold_constants, quantize_int8, remove_dead"},
      {"version: 1\nsteps:\n  - quantize-int8: {round: 1}\n", "r.yaml:3:5: ", "unknown pass 'quantize-int8'; did you mean 'quantize_int8'?"},
      {"version: 1\nsteps:\n  - quantize_int8: {round: 1}\n", "r.yaml:3:21: ", "unknown option of quantize_int8 'round'; did you mean 'rounds'?"},
      {"version: 1\nsteps:\n  - quantize_int8: {mode: statc}\n", "r.yaml:3:27: ", "unknown value 'statc'; did you mean 'static'?"},
      {"version: 1\nsteps:\n  - quantize_int8: {kinds: [conv, gem]}\n", "r.yaml:3:35: ", "did you mean 'gemm'?"},
      {head + "target: ort_cpu\n", "r.yaml:3:9: ", "'target': unknown target 'ort_cpu'; did you mean 'ort-cpu'?"},
      {head + "gates:\n  min_sqnr: 3\n", "r.yaml:4:3: ", "unknown gate 'min_sqnr'; did you mean 'min_sqnr_db'?"},
      {head + "calibrate: {method: minmx}\n", "r.yaml:3:21: ", "unknown method 'minmx'; did you mean 'minmax'?"},
      {head + "groups:\n  - {name: a, roles: [atention]}\n", "r.yaml:4:23: ", "unknown role 'atention'; did you mean 'attention'?"},
      // Wrong types
      {head + "calibrate: {samples: many}\n", "r.yaml:3:22: ", "'calibrate.samples' wants a whole number, here is 'many'"},
      {head + "calibrate: {samples: 1.5}\n", "r.yaml:3:22: ", "wants a whole number, here is '1.5'"},
      {head + "calibrate: {samples: \"8\"}\n", "r.yaml:3:22: ", "here is \"8\" (without the quotes)"},
      {head + "calibrate: {samples: }\n", "r.yaml:3:", "here is nothing"},
      {head + "calibrate: [minmax]\n", "r.yaml:3:12: ", "'calibrate' wants a map"},
      {head + "gates: {min_sqnr_db: [1]}\n", "r.yaml:3:22: ", "wants a number, here is a list"},
      {head + "gates: {min_sqnr_db: .inf}\n", "r.yaml:3:22: ", "wants a number"},
      {head + "gates: {min_sqnr_db: nan}\n", "r.yaml:3:22: ", "wants a number"},
      {head + "name: {a: b}\n", "r.yaml:3:7: ", "'name' wants a text, here is a map"},
      {"version: 1\nsteps: fold_constants\n", "r.yaml:2:8: ", "'steps' wants a list"},
      {"version: 1\nsteps:\n  - quantize_int8: {enabled: yes}\n", "r.yaml:3:30: ", "wants true or false, here is 'yes'"},
      {"version: 1\nsteps:\n  - quantize_int8: {rounds: 99999999999999999999}\n", "r.yaml:3:29: ", "wants a whole number"},
      {"version: 1\nsteps:\n  - [fold_constants]\n", "r.yaml:3:5: ", "wants the name of a pass"},
      {"version: 1\nsteps:\n  - quantize_int8:\n    rounds: 3\n", "r.yaml:3:5: ", "a step names one pass, here are 2"},
      {"- a\n", "r.yaml:1:1: ", "a recipe wants a map"},
      {"hello\n", "r.yaml:1:1: ", "a recipe wants a map"},
      // Out of range
      {"version: 1\nsteps:\n  - quantize_int8: {rounds: 11}\n", "r.yaml:3:29: ", "'quantize_int8.rounds' must be at least 1 and at most 10, here is 11"},
      {"version: 1\nsteps:\n  - quantize_int8: {threshold: -0.1}\n", "r.yaml:3:32: ", "must be at least 0 and at most 1"},
      {head + "calibrate: {samples: 0}\n", "r.yaml:3:22: ", "must be at least 1, here is 0"},
      {head + "calibrate: {percentile: 50}\n", "r.yaml:3:25: ", "must be more than 50 and at most 100"},
      {head + "gates: {max_size_ratio: 0}\n", "r.yaml:3:25: ", "must be more than 0"},
      {head + "data: {image: {resize: [1, 2, 3]}}\n", "r.yaml:3:24: ", "a list of at least 1 and at most 2 entries, here are 3"},
      {head + "data: {image: {mean: [1, 2]}}\n", "r.yaml:3:22: ", "'mean' has 2 numbers, rgb images have 3 channels"},
      {head + "data: {image: {std: 0}}\n", "r.yaml:3:21: ", "must be at least 1e-30"},
      {"version: 2\nsteps: [fold_constants]\n", "r.yaml:1:10: ", "must be at least 1 and at most 1"},
      // Missing, twice, at odds
      {"steps: [fold_constants]\n", "r.yaml:1:1: ", "'version' is missing"},
      {"version: 1\n", "r.yaml:1:1: ", "'steps' is missing"},
      {"version: 1\nsteps: []\n", "r.yaml:2:8: ", "entries, here are 0"},
      {head + "name: a\nname: b\n", "r.yaml:4:1: ", "the key 'name' stands here a second time"},
      {head + "groups:\n  - {name: a}\n  - {name: a}\n", "r.yaml:5:12: ", "there is a group 'a' already"},
      {head + "groups: [{weights: int8}]\n", "r.yaml:3:10: ", "'groups.0.name' is missing"},
      {head + "groups: [{name: a, depth_from: 0.6, depth_to: 0.5}]\n", "r.yaml:3:47: ", "ends at 0.5, before it begins at 0.6"},
      {head + "eval: {metric: command}\n", "r.yaml:3:16: ", "wants a 'command'"},
      {head + "eval: {metric: top1, command: ls}\n", "r.yaml:3:31: ", "'command' belongs to metric command"},
      // What isn't YAML, or more of it than a recipe has
      {"version: [1\n", "r.yaml:2:1: ", "not valid YAML"},
      {"a: b: c\n", "r.yaml:1:", "not valid YAML"},
      {"\tversion: 1\n", "r.yaml:1:", "not valid YAML"},
      {"version: &a 1\nsteps: [fold_constants]\n", "r.yaml:1:10: ", "no anchors"},
      {"version: *a\n", "r.yaml:1:10: ", "anchor is not defined"},
      {"version: !!int 1\n", "r.yaml:1:10: ", "tags"},
      {head + "---\nversion: 1\n", "r.yaml:", "a second one begins"},
      {"? [a]\n: b\n", "r.yaml:1:3: ", "a key must be a plain name"},
      {": b\n", "r.yaml:1:", "a key is missing"},
      {"", "r.yaml: ", "the recipe is empty"},
      {"# nothing but a comment\n", "r.yaml: ", "the recipe is empty"},
      {"version: 1\n" + std::string(1, '\0'), "r.yaml: ", "byte 11 is zero"},
  };
  for (const Bad& bad : cases) {
    std::string error = error_of(bad.text);
    EXPECT_TRUE(error.starts_with(bad.place)) << bad.text << "\n" << error;
    EXPECT_THAT(error, HasSubstr(bad.message)) << bad.text;
  }
}

TEST(Recipe, ABombOfAliasesGoesOffNowhere) {
  std::string bomb = "a: &a [x, x]\n";
  for (char c = 'b'; c < 'z'; ++c) bomb += std::string(1, c) + ": &" + c + " [*" + char(c - 1) + ", *" + char(c - 1) + "]\n";
  EXPECT_THAT(error_of(bomb), HasSubstr("r.yaml:1:4: recipes have no anchors"));
}

TEST(Recipe, DeepNestingIsAnError) {
  EXPECT_THAT(error_of(std::string(100'000, '[')), HasSubstr("r.yaml:"));
  EXPECT_THAT(error_of(std::string(100'000, '{')), HasSubstr("r.yaml:"));
  std::string deep;
  for (int i = 0; i < 1000; ++i) deep += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  EXPECT_THAT(error_of(deep), HasSubstr("r.yaml:"));
}

TEST(Recipe, AFileThatIsTooLargeIsOverALimit) {
  try {
    read(kLeast + "# " + std::string(kMaxRecipeBytes, 'x'));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Limit);
  }
}

TEST(Recipe, AnythingAtAllIsAnErrorOrARecipe) {
  // A fixed pseudo-random walk over mutations of a good recipe: whatever comes, an Error is the worst of it.
  uint64_t state = 1;
  auto next = [&](size_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<size_t>(state >> 33) % n;
  };
  const std::string bytes = "{}[]:,-#&*!|>'\"%@`\n\t \\?0a\xff\x80~";
  for (int round = 0; round < 2000; ++round) {
    std::string text = kFullRecipe;
    for (size_t changes = 1 + next(4); changes > 0; --changes) text[next(text.size())] = bytes[next(bytes.size())];
    if (next(3) == 0) text.resize(next(text.size()));
    EXPECT_THAT(error_of(text), testing::AnyOf("none", testing::StartsWith("r.yaml")));
  }
}

TEST(RecipeSet, ChangesWhatItNames) {
  EXPECT_EQ(read(kFullRecipe, {"calibrate.method=entropy"}).calibrate.method, "entropy");
  EXPECT_EQ(read(kLeast, {"calibrate.samples=9"}).calibrate.samples, 9);
  EXPECT_EQ(read(kLeast, {"name=a=b"}).name, "a=b");
  EXPECT_EQ(option(read(kFullRecipe, {"quantize_int8.enabled=true"}), 1, "enabled"), OptionValue(true));
  EXPECT_EQ(option(read(kFullRecipe, {"steps.quantize_int8.rounds=2"}), 1, "rounds"), OptionValue(int64_t{2}));
  EXPECT_EQ(option(read(kFullRecipe, {"steps.1.keep=[p, q]"}), 1, "keep"), OptionValue(Texts{"p", "q"}));
  EXPECT_EQ(option(read("version: 1\nsteps: [quantize_int8]\n", {"quantize_int8.rounds=2"}), 0, "rounds"), OptionValue(int64_t{2}));
  EXPECT_EQ(option(read(kFullRecipe, {"quantize_int8={rounds: 2}"}), 1, "enabled"), OptionValue(true));
  EXPECT_EQ(read(kFullRecipe, {"groups.attention.weights=int8"}).groups[0].weights, "int8");
  EXPECT_EQ(read(kFullRecipe, {"groups.1.name=last"}).groups[1].name, "last");
  EXPECT_THAT(read(kFullRecipe, {"data.image.mean=[0, 0, 0.5]", "data.image.mean.1=0.25"}).data.image->mean, ElementsAre(0.0f, 0.25f, 0.5f));
  EXPECT_EQ(read(kLeast, {"gates.min_sqnr_db=30"}).gates.at(0).limit, 30);
}

TEST(RecipeSet, NullRemoves) {
  EXPECT_EQ(read(kFullRecipe, {"gates.min_sqnr_db=null"}).gates.size(), 2u);
  EXPECT_EQ(read(kFullRecipe, {"fold_constants=null"}).steps.size(), 2u);
  EXPECT_EQ(read(kFullRecipe, {"steps.0=null"}).steps.size(), 3u);
  EXPECT_TRUE(read(kFullRecipe, {"groups=null"}).groups.empty());
}

TEST(RecipeSet, EveryStepOfThatPassIsMeant) {
  Recipe r = read("version: 1\nsteps: [quantize_int8, quantize_int8: {rounds: 1}]\n", {"quantize_int8.rounds=5"});
  EXPECT_EQ(option(r, 0, "rounds"), OptionValue(int64_t{5}));
  EXPECT_EQ(option(r, 1, "rounds"), OptionValue(int64_t{5}));
}

TEST(RecipeSet, ErrorsNameTheAssignmentAndWhatWasMeant) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"calibrate.methd=mse", "unknown key 'methd'; did you mean 'method'?"},
      {"calibrate.method=mss", "unknown method 'mss'; did you mean 'mse'?"},
      {"quantise_int8.rounds=1", "no key and no step 'quantise_int8'; did you mean 'quantize_int8'?"},
      {"quantize_int8.rouns=1", "unknown option of quantize_int8 'rouns'; did you mean 'rounds'?"},
      {"quantize_int8.rounds=many", "wants a whole number"},
      {"quantize_int8.rounds=11", "at most 10"},
      {"steps.9=fold_constants", "the list has 4 entries"},
      {"steps.remov_dead=null", "did you mean 'remove_dead'?"},
      {"groups.atention.weights=int8", "did you mean 'attention'?"},
      {"name.first=x", "'name' has no parts"},
      {"gates.min_cosine=null", "there is no 'min_cosine' to remove"},
      {"calibrate.samples", "wants path=value"},
      {"=3", "wants path=value"},
      {"calibrate..samples=3", "empty part"},
      {"calibrate.=3", "empty part"},
      {"calibrate.samples=", "no value"},
      {"calibrate.samples=[3", "a bracket is not closed"},
  };
  for (const auto& [set, message] : cases) {
    std::string error = error_of(kFullRecipe, {set});
    EXPECT_TRUE(error.starts_with("--set " + set + ": ")) << error;
    EXPECT_THAT(error, HasSubstr(message)) << set;
  }
  EXPECT_EQ(error_of(kFullRecipe, {"version=null"}), "r.yaml:1:1: 'version' is missing: The version of the recipe format: 1.");
}

nlohmann::json json_of(const YamlNode& node) {
  using Kind = YamlNode::Kind;
  if (node.kind == Kind::Scalar) {
    return node.quoted || !nlohmann::json::accept(node.scalar) ? nlohmann::json(node.scalar) : nlohmann::json::parse(node.scalar);
  }
  nlohmann::json out = node.kind == Kind::List ? nlohmann::json::array() : node.kind == Kind::Map ? nlohmann::json::object() : nlohmann::json();
  for (const YamlNode& item : node.items) out.push_back(json_of(item));
  for (const auto& [key, value] : node.entries) out[key.name] = json_of(value);
  return out;
}

TEST(RecipeSchema, AgreesWithTheReader) {
  test::JsonSchema schema(recipe_json_schema(test_vocabulary()));
  for (const std::string& text : {std::string(kFullRecipe), to_yaml(read(kFullRecipe)), kLeast}) {
    EXPECT_EQ(schema.check(json_of(parse_yaml(text, "r"))), "");
  }
  for (const char* text : {"version: 2\nsteps: [fold_constants]", "version: 1\nsteps: [fold]", "version: 1\nsteps: [quantize_int8: {rounds: 0}]",
                           "version: 1\nsteps: []", "version: 1\nsteps: [fold_constants]\nnmae: x", "version: 1",
                           "version: 1\nsteps: [fold_constants]\ngates: {max_size_ratio: 0}",
                           "version: 1\nsteps: [quantize_int8: {}, fold_constants: {}, {quantize_int8: {}, remove_dead: {}}]",
                           "version: 1\nsteps: [quantize_int8: {kinds: [gem]}]"}) {
    EXPECT_NE(schema.check(json_of(parse_yaml(text, "r"))), "") << text;
    EXPECT_NE(error_of(text), "none") << text;
  }
}

TEST(Nearest, IsWhatWasMeantOrNothing) {
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("ab", "ba"), 1u);
  EXPECT_EQ(edit_distance("Ort_CPU", "ort-cpu"), 0u);
  EXPECT_EQ(nearest("samlpes", {"method", "samples"}), "samples");
  EXPECT_EQ(nearest("min_sqnr", {"min_cosine", "min_sqnr_db"}), "min_sqnr_db");
  EXPECT_EQ(nearest("xyz", {"method", "samples"}), "");
  EXPECT_EQ(nearest("a", {"b", "c"}), "");
  EXPECT_EQ(did_you_mean("x", {}), "");
}

}  // namespace
}  // namespace infopt

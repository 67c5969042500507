// The recipes in the binary, with the passes that are in the binary.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "lib/base/atomic_file.h"
#include "lib/base/error.h"
#include "recipes/recipe.h"

namespace infopt {
namespace {

using testing::HasSubstr;
using testing::UnorderedElementsAre;

TEST(BuiltinRecipes, AreThoseOfTheFolder) {
  std::vector<std::string> names;
  for (const BuiltinRecipe& b : builtin_recipes()) {
    names.push_back(b.name);
    EXPECT_EQ(b.text, read_file(INFOPT_SOURCE_DIR "/recipes/" + b.name + ".yaml"));
    EXPECT_TRUE(b.text.starts_with("# ")) << b.name << " says first what it is for";
  }
  EXPECT_THAT(names, UnorderedElementsAre("int4-awq", "int4-gptq", "int8", "optimize", "int8-percentile", "fp16", "fp8", "dynamic", "mixed-transformer", "cnn-edge", "w4a8-reconstruct", "auto", "int8-accurate", "magnitude-50", "2to4", "prune-int8", "channels-30", "heads"));
}

TEST(BuiltinRecipes, AreReadWithoutAnErrorAndBearTheirNames) {
  for (const BuiltinRecipe& b : builtin_recipes()) {
    Recipe r = load_recipe(b.name, vocabulary());
    EXPECT_EQ(r.name, b.name);
    EXPECT_FALSE(r.description.empty());
    std::string canonical = to_yaml(r);
    EXPECT_EQ(to_yaml(read_recipe(canonical, "canonical", vocabulary())), canonical);
    for (const Step& s : r.steps) EXPECT_EQ(options_of(s).all(), s.options);
  }
}

TEST(BuiltinRecipes, AFileOfTheSameTextIsTheSameRecipe) {
  std::string path = INFOPT_SOURCE_DIR "/recipes/cnn-edge.yaml";
  EXPECT_EQ(to_yaml(load_recipe(path, vocabulary())), to_yaml(load_recipe("cnn-edge", vocabulary())));
}

TEST(BuiltinRecipes, AWrongNameIsToldTheRightOne) {
  try {
    load_recipe("int8-percentil", vocabulary());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Usage);
    EXPECT_EQ(std::string(e.what()), "int8-percentil: there is no such file, and no built-in recipe of that name; did you mean 'int8-percentile'?");
  }
}

TEST(RecipeDocumentation, ItsExamplesAreRecipes) {
  std::string text = read_file(INFOPT_SOURCE_DIR "/docs/recipes.md");
  const std::string fence = "```yaml\n";
  int examples = 0;
  for (size_t at = text.find(fence); at != std::string::npos; at = text.find(fence, at + 1)) {
    size_t from = at + fence.size();
    EXPECT_NO_THROW(read_recipe(text.substr(from, text.find("```", from) - from), "docs/recipes.md", vocabulary()));
    ++examples;
  }
  EXPECT_GE(examples, 3);
}

void expect_named(const std::string& text, const Schema& schema) {
  for (const SchemaField& f : schema.fields) {
    bool named = text.find("`" + f.name + "`") != std::string::npos || text.find("." + f.name + "`") != std::string::npos;
    EXPECT_TRUE(named) << "docs/recipes.md lacks " << f.name;
    for (const std::string& choice : f.schema.choices) EXPECT_THAT(text, HasSubstr("`" + choice + "`"));
    expect_named(text, f.schema);
    if (!f.schema.item.empty() && f.schema.item[0].kind == Schema::Kind::Map) expect_named(text, f.schema.item[0]);
  }
}

TEST(RecipeDocumentation, NamesEveryKeyAndChoice) {
  expect_named(read_file(INFOPT_SOURCE_DIR "/docs/recipes.md"), recipe_schema(vocabulary()));
}

TEST(RecipeSchema, IsThePublishedOne) {
  EXPECT_EQ(read_file(INFOPT_SOURCE_DIR "/docs/recipe.schema.json"), recipe_json_schema(vocabulary()))
      << "print it again with: infopt recipe schema > docs/recipe.schema.json";
}

}  // namespace
}  // namespace infopt

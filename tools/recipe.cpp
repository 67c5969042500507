#include <cstdio>
#include <memory>

#include "tools/command.h"

namespace infopt {

void add_recipe(CLI::App& app, Context&) {
  auto* command = app.add_subcommand("recipe", "Check and show recipes");
  command->require_subcommand(1);
  const auto name = std::make_shared<std::string>();
  const auto sets = std::make_shared<std::vector<std::string>>();
  auto with_name = [&](const char* verb, const char* help) {
    auto* sub = command->add_subcommand(verb, help);
    sub->add_option("recipe", *name, "a built-in recipe's name, or a path")->required()->type_name("RECIPE");
    sub->add_option("--set", *sets, "change it: path=value")->type_name("PATH=VALUE");
    return sub;
  };
  with_name("check", "Say whether a recipe is right")->callback([name, sets] {
    const Recipe recipe = load_recipe(*name, vocabulary(), *sets);
    std::printf("%s: ok, %zu steps, %zu gates\n", name->c_str(), recipe.steps.size(), recipe.gates.size());
  });
  with_name("show", "Print a recipe with every default written out")->callback([name, sets] { std::fputs(to_yaml(load_recipe(*name, vocabulary(), *sets)).c_str(), stdout); });
  command->add_subcommand("schema", "Print the JSON Schema of recipes")->callback([] { std::fputs(recipe_json_schema(vocabulary()).c_str(), stdout); });
  command->add_subcommand("list", "List the built-in recipes")->callback([] {
    for (const BuiltinRecipe& r : builtin_recipes()) std::printf("%-20s %s\n", r.name.c_str(), load_recipe(r.name, vocabulary()).description.c_str());
  });
}

}  // namespace infopt

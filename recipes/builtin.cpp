#include "calibration/observer.h"
#include "recipes/recipe.h"

namespace infopt {

const std::vector<BuiltinRecipe>& builtin_recipes() {
  static const std::vector<BuiltinRecipe> all{
#include "builtin_recipes.inc"
  };
  return all;
}

const Vocabulary& vocabulary() {
  static const Vocabulary all = [] {
    Vocabulary v{.passes = all_passes()};
    for (const ObserverDef& o : all_observers()) v.methods.push_back(o.name);
    for (const Profile& p : all_profiles()) v.targets.push_back(p.name);
    return v;
  }();
  return all;
}

}  // namespace infopt

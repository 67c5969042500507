#include "recipes/tune.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "lib/base/error.h"
#include "recipes/tune_log.h"
#include "tests/support/model_text.h"

namespace infopt {
namespace {

Trial trial(double db, double size, double latency, double violation = 0) {
  Trial t;
  t.recipe = std::to_string(db) + std::to_string(size) + std::to_string(latency);
  t.sqnr_db = db;
  t.size_ratio = size;
  t.latency_ratio = latency;
  t.violation = violation;
  return t;
}

TuneSites some_sites() {
  TuneSites s;
  s.weights = {{{"a"}, 1e-4, 1e-2}, {{"b"}, 1e-5, 1e-3}, {{"c"}, 1e-6, 1e-4}};
  s.activations = {{{"b", "c"}, 1e-3, 0}, {{"a"}, 1e-4, 0}};
  return s;
}

TEST(ParetoFront, HoldsWhatNoOtherBeatsInAllThree) {
  Trial failed = trial(99, 0.1, 0.1);
  failed.failure = "unsupported";
  const std::vector<Trial> trials{trial(30, 0.25, 0.5), trial(29, 0.25, 0.5), trial(20, 0.12, 0.9), trial(40, 0.30, 0.5), trial(20, 0.25, 0.4), failed};
  EXPECT_EQ(pareto_front(trials), (std::vector<size_t>{0, 2, 3, 4}));
}

TEST(ParetoFront, KeepsEquals) { EXPECT_EQ(pareto_front({trial(30, 0.25, 0.5), trial(30, 0.25, 0.5)}).size(), 2u); }

TEST(Tune, MetComesBeforeFastAndFastBeforeSmallUnlessSizeIsAsked) {
  const Trial met_slow = trial(30, 0.3, 0.9), met_fast = trial(30, 0.4, 0.5), missed = trial(10, 0.1, 0.1, 0.5), missed_more = trial(5, 0.1, 0.1, 0.9);
  EXPECT_TRUE(serves_better(met_slow, missed, false));
  EXPECT_TRUE(serves_better(met_fast, met_slow, false));
  EXPECT_TRUE(serves_better(met_slow, met_fast, true));
  EXPECT_TRUE(serves_better(missed, missed_more, false));
}

TEST(Tune, ForetellsATrialsTimeFromThoseThatAreMostLikeIt) {
  const auto timed = [](const char* base, const char* rounding, double seconds) {
    Trial t = trial(30, 0.3, 0.9);
    t.point.base = base, t.point.rounding = rounding, t.seconds = seconds;
    return t;
  };
  const auto point = [](const char* base, const char* rounding) {
    TunePoint p;
    p.base = base, p.rounding = rounding;
    return p;
  };
  EXPECT_EQ(expected_seconds({}, point("int8", "reconstruct")), 0);
  std::vector<Trial> trials{timed("int8", "nearest", 1), timed("int8", "nearest", 3), timed("int4", "nearest", 4)};
  EXPECT_EQ(expected_seconds(trials, point("int8", "nearest")), 2);
  EXPECT_EQ(expected_seconds(trials, point("fp8", "nearest")), 8.0 / 3);
  const double guess = expected_seconds(trials, point("int8", "adaround"));
  EXPECT_GT(guess, 20);  // learning takes far longer than rounding, reconstruction longer than AdaRound
  EXPECT_GT(expected_seconds(trials, point("w4a8", "reconstruct")), guess);
  trials.push_back(timed("int8", "adaround", 5));
  EXPECT_EQ(expected_seconds(trials, point("int8", "adaround")), 5);
  EXPECT_GT(expected_seconds(trials, point("w4a8", "reconstruct")), 5);
  EXPECT_LT(expected_seconds(trials, point("w4a8", "reconstruct")), guess);
  Trial failed = timed("w4a8", "reconstruct", 1000);
  failed.failure = "unsupported";
  trials.push_back(failed);
  EXPECT_LT(expected_seconds(trials, point("w4a8", "reconstruct")), guess);
}

TEST(TuneSpace, EveryPointOfEveryTargetIsAValidRecipe) {
  const TuneSites sites = some_sites();
  for (const char* target : {"ort-cpu", "tensorrt", "generic"}) {
    Recipe settings = load_recipe("int8", vocabulary(), {std::string("target=") + target});
    std::mt19937_64 random(7);
    std::vector<TunePoint> points = first_points(target);
    for (int i = 0; i < 300; ++i) points.push_back(i % 3 ? mutated(points[random() % points.size()], sites, target, random) : crossed(points[random() % points.size()], points[random() % points.size()], random));
    for (const TunePoint& p : points) {
      const std::string yaml = to_yaml(recipe_of(p, sites, settings));
      EXPECT_EQ(to_yaml(read_recipe(yaml, "tuned.yaml", vocabulary())), yaml) << words(p);
    }
  }
}

TEST(TuneSpace, WhatIsKeptInBothWaysHasAGroupOfItsOwnThatComesFirst) {
  TunePoint p;
  p.kept_weights = 2, p.kept_activations = 1;
  const Recipe recipe = recipe_of(p, some_sites(), load_recipe("int8", vocabulary()));
  ASSERT_EQ(recipe.groups.size(), 3u);
  EXPECT_EQ(recipe.groups[0].nodes, std::vector<std::string>{"b"});
  EXPECT_EQ(recipe.groups[0].weights + recipe.groups[0].activations, "float32float32");
  EXPECT_EQ(recipe.groups[1].nodes, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(recipe.groups[2].nodes, (std::vector<std::string>{"b", "c"}));
}

TEST(TuneSpace, ARecipeToSearchFromKeepsItsOwnStepsAndGroupsUnlessNothingIsQuantized) {
  Recipe settings = load_recipe("int8", vocabulary(), {"search=auto", "steps=[fold_constants, quantize_int8, lower_storage]", "groups=[{name: keep-both, ops: [Gemm], weights: float32}]"});
  TunePoint p;
  p.kept_weights = p.kept_activations = 1;
  p.measured_bias = p.equalize = true;
  p.floor_db = 33;
  const Recipe changed = recipe_of(p, {{{{"a"}, 1, 1}}, {{{"a"}, 1, 1}}, {}}, settings);
  std::vector<std::string> names;
  for (const Step& s : changed.steps) names.push_back(s.pass);
  EXPECT_EQ(names, (std::vector<std::string>{"fold_constants", "equalize_layers", "quantize_int8", "lower_storage"}));
  EXPECT_TRUE(options_of(changed.steps[2]).flag("measured_bias"));
  EXPECT_EQ(options_of(changed.steps[2]).number("min_sqnr_db"), 33);
  EXPECT_EQ(changed.search, "none");
  ASSERT_GE(changed.groups.size(), 2u);
  EXPECT_EQ(changed.groups[0].ops, std::vector<std::string>{"Gemm"});
  EXPECT_EQ(changed.groups[1].name, "keep-both-2");
  TunePoint none;
  none.base = "float";
  const Recipe plain = recipe_of(none, {}, settings);
  ASSERT_EQ(plain.steps.size(), 1u);
  EXPECT_EQ(plain.steps[0].pass, "fold_constants");
  none.base = "half";
  const Recipe half = recipe_of(none, {}, settings);
  EXPECT_EQ(half.steps[1].pass, "convert_float16");
  EXPECT_EQ(half.groups.at(0).weights + half.groups.at(0).activations, "float16float32");
}

TEST(TuneSpace, PredictsLessNoiseWhereMoreIsKeptAndMoreWithFewerBits) {
  const TuneSites sites = some_sites();
  TunePoint p, kept, four;
  kept.kept_weights = 1;
  four.base = "w4a8";
  EXPECT_DOUBLE_EQ(predicted_noise(p, sites), 1.11e-4 + 1.1e-3);
  EXPECT_DOUBLE_EQ(predicted_noise(kept, sites), 1.1e-5 + 1.1e-3);
  EXPECT_DOUBLE_EQ(predicted_noise(four, sites), 1.11e-2 + 1.1e-3);
}

TEST(TuneLog, GivesBackItsTrialsAndForgetsALineThatWasBeingWritten) {
  const test::TempDir folder;
  const std::string path = folder.path() + "/trials.jsonl";
  Trial t = trial(31.5, 0.25, 0.5, 0.125);
  t.point = {"int4", "mse", "auto", "awq", 64, false, 3, 0, true, true, 21.5, {"product", "depthwise"}};
  t.metric_drop = -0.01;
  Trial failed = t;
  failed.failure = "can't";
  {
    TuneLog log(path, "key");
    log.add(t);
    log.add(failed);
  }
  std::ofstream(path, std::ios::app) << R"({"base":"int8",)";
  const TuneLog log(path, "key");
  ASSERT_EQ(log.trials().size(), 2u);
  EXPECT_EQ(log.trials()[0].point, t.point);
  EXPECT_EQ(log.trials()[0].sqnr_db, t.sqnr_db);
  EXPECT_EQ(log.trials()[0].metric_drop, t.metric_drop);
  EXPECT_EQ(log.trials()[0].violation, 0.125);
  EXPECT_EQ(log.trials()[1].failure, "can't");
}

TEST(TuneLog, RefusesTrialsOfAnotherModelAndDamage) {
  const test::TempDir folder;
  const std::string path = folder.path() + "/trials.jsonl";
  { TuneLog(path, "key").add(trial(1, 1, 1)); }
  EXPECT_THROW(TuneLog(path, "other"), Error);
  std::ofstream(path, std::ios::app) << "nonsense\n";
  EXPECT_THROW(TuneLog(path, "key"), Error);
}

}  // namespace
}  // namespace infopt

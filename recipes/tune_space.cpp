#include "recipes/tune_space.h"

#include <algorithm>
#include <cmath>

#include "lib/base/error.h"
#include "passes/support/layers.h"

namespace infopt {
namespace {

/// The built-in recipe behind a base.
std::string builtin_of(const std::string& base) { return base == "w4a8" ? "w4a8-reconstruct" : base == "int4" ? "int4-gptq" : base; }

constexpr int64_t kFewChannels = 16;

bool quantizes_activations(const TunePoint& p) { return p.base != "int4" && p.base != "fp16" && p.base != "half" && p.base != "float"; }

void set_option(Recipe& recipe, const std::string& pass, const std::string& name, OptionValue value) {
  for (Step& s : recipe.steps)
    if (s.pass == pass)
      for (auto& [key, old] : s.options)
        if (key == name) old = value;
}

bool has_pass(const std::string& name) { return find_pass(name) != nullptr; }

/// A pass with its defaults, changed by `settings`.
Step step_of(const std::string& pass, const std::vector<std::pair<std::string, OptionValue>>& settings) {
  Step step{pass, {}};
  for (const OptionDef& o : find_pass(pass)->options) step.options.emplace_back(o.name, o.otherwise);
  for (auto& [key, value] : step.options)
    for (const auto& [name, wanted] : settings)
      if (name == key) value = wanted;
  return step;
}

GroupRule keep(const std::string& name, const std::vector<TuneSites::Place>& places, int64_t count) {
  GroupRule rule;
  rule.name = name;
  for (int64_t i = 0; i < count && i < static_cast<int64_t>(places.size()); ++i)
    for (const std::string& p : places[static_cast<size_t>(i)].patterns)
      if (std::find(rule.nodes.begin(), rule.nodes.end(), p) == rule.nodes.end()) rule.nodes.push_back(p);
  return rule;
}

void add_group(Recipe& recipe, GroupRule rule) {
  const std::string name = rule.name;
  auto taken = [&](const GroupRule& g) { return g.name == rule.name; };
  for (int i = 2; std::any_of(recipe.groups.begin(), recipe.groups.end(), taken); ++i) rule.name = name + "-" + std::to_string(i);
  recipe.groups.push_back(std::move(rule));
}

/// A node belongs to the first group that fits: what is kept in both ways needs a group that says both.
void add_groups(Recipe& recipe, const TunePoint& p, const TuneSites& sites) {
  const std::string kept_type = p.base == "int4" ? "int8" : "float32";
  GroupRule weights = keep("keep-weights", sites.weights, p.kept_weights), activations = keep("keep-activations", sites.activations, quantizes_activations(p) ? p.kept_activations : 0), both;
  both.name = "keep-both";
  for (const std::string& n : weights.nodes)
    if (std::find(activations.nodes.begin(), activations.nodes.end(), n) != activations.nodes.end()) both.nodes.push_back(n);
  weights.weights = both.weights = kept_type;
  activations.activations = both.activations = "float32";
  for (GroupRule* rule : {&both, &weights, &activations})
    if (!rule->nodes.empty()) add_group(recipe, std::move(*rule));
  for (const std::string& kind : p.in_float) {
    const auto it = sites.kinds.find(kind);
    if (it != sites.kinds.end()) add_group(recipe, GroupRule{.name = kind + "-in-float", .nodes = it->second, .form = "storage"});
  }
}

bool is_lossy(const Step& s) {
  const PassDef* d = find_pass(s.pass);
  return d && d->contract == Contract::Lossy;
}

void insert_before_lossy(Recipe& recipe, const std::string& pass) {
  recipe.steps.insert(std::find_if(recipe.steps.begin(), recipe.steps.end(), is_lossy), step_of(pass, {}));
}

/// Nothing is quantized; weights in 16 bits where they are asked for, decoded when the engine loads them.
void keep_float(Recipe& recipe, bool half) {
  std::erase_if(recipe.steps, [](const Step& s) { return is_lossy(s) || s.pass == "lower_storage"; });
  if (!half) return;
  recipe.steps.push_back(step_of("convert_float16", {}));
  recipe.steps.push_back(step_of("remove_dead", {}));
  recipe.groups.clear();
  add_group(recipe, GroupRule{.name = "stored-in-half", .weights = "float16", .activations = "float32"});
}

template <class T> const T& any_of(const std::vector<T>& values, std::mt19937_64& random) { return values[random() % values.size()]; }

std::vector<std::string> bases_of(const std::string& target) {
  std::vector<std::string> bases{"int8", "w4a8", "int4"};
  if (target != "ort-cpu") bases.insert(bases.end(), {"fp8", "fp16"});
  return bases;
}

std::vector<std::string> roundings_of(const std::string& base) {
  if (base == "int4") return {"nearest", "gptq", "awq"};
  if (base == "int8") return {"nearest", "adaround"};
  if (base == "w4a8") return {"nearest", "adaround", "reconstruct"};
  return {"nearest"};
}

/// A share of the places, grown or shrunk by about half, at least by one.
int64_t moved(int64_t count, size_t places, std::mt19937_64& random) {
  const int64_t step = std::max<int64_t>(1, count / 2);
  const int64_t next = random() % 3 == 0 ? count - step : count + step;
  return std::clamp<int64_t>(next, 0, static_cast<int64_t>(places) / 2);
}

void settle(TunePoint& p) {
  const auto allowed = roundings_of(p.base);
  if (std::find(allowed.begin(), allowed.end(), p.rounding) == allowed.end()) p.rounding = allowed.back();
  if (p.base != "int8") p.activations = "auto", p.smooth = false;
  if (p.base == "int4" || p.base == "fp16") p.method = "minmax", p.kept_activations = 0;
  if (p.base != "int4") p.block = 32;
  if (p.activations == "dynamic") p.smooth = false;
}

}  // namespace

TuneSites rank_sites(const std::vector<Site>& sites) {
  TuneSites ranked;
  for (const Site& s : sites) {
    TuneSites::Place place{s.patterns, 0, 0};
    for (const Damage& d : s.damage) {
      const double noise = d.sqnr_db ? std::pow(10.0, -*d.sqnr_db / 10) : 1;
      if (d.precision.bits == 8) place.noise8 = noise;
      if (d.precision.bits == 4) place.noise4 = noise;
    }
    (s.weights ? ranked.weights : ranked.activations).push_back(std::move(place));
  }
  for (auto* list : {&ranked.weights, &ranked.activations})
    std::stable_sort(list->begin(), list->end(), [](const auto& a, const auto& b) { return a.noise8 + a.noise4 > b.noise8 + b.noise4; });
  return ranked;
}

std::vector<TunePoint> first_points(const std::string& target) {
  std::vector<TunePoint> points{{}, {.method = "entropy"}, {.method = "mse"}, {.activations = "static"}};
  if (target == "ort-cpu") points.push_back({.activations = "dynamic"});
  points.push_back({.activations = "static", .smooth = true});
  points.push_back({.base = "int4", .rounding = "nearest"});
  if (target != "ort-cpu") points.insert(points.end(), {{.base = "fp16"}, {.base = "fp8"}});
  points.push_back({.base = "int4", .rounding = "gptq"});
  points.push_back({.rounding = "adaround"});
  points.push_back({.base = "w4a8", .rounding = "reconstruct"});
  std::erase_if(points, [](const TunePoint& p) { return p.smooth && !has_pass("smooth_activations"); });
  return points;
}

std::map<std::string, std::vector<std::string>> layer_kinds(const Graph& graph, Calibration& calibration) {
  const std::vector<Observed> seen = calibration.observe(graph);
  std::map<std::string, std::vector<std::string>> kinds;
  for (const Layer& l : find_layers(graph)) {
    const Node& n = graph.node(l.node);
    const Shape& out = seen[static_cast<size_t>(n.outputs[0])].shape;
    const bool depthwise = l.groups > 1 && l.in == 1, pixel = l.convolution && out.size() > 2 && element_count(out) == out[0] * out[1];
    const char* kind = !l.convolution ? "product" : pixel ? "one_pixel" : depthwise ? "depthwise" : l.groups > 1 ? "grouped" : l.in < kFewChannels ? "few_channels" : l.taps == 1 ? "pointwise" : "spatial";
    kinds[kind].push_back(n.name.empty() ? graph.value(l.weights).name : n.name);
  }
  return kinds;
}

TunePoint mutated(const TunePoint& point, const TuneSites& sites, const std::string& target, std::mt19937_64& random) {
  TunePoint p = point;
  switch (random() % 8) {
    case 0: p.base = any_of(bases_of(target), random); break;
    case 1: p.method = any_of(std::vector<std::string>{"minmax", "entropy", "mse", "percentile"}, random); break;
    case 2: p.activations = any_of(std::vector<std::string>{"auto", "static", "dynamic"}, random); break;
    case 3: p.rounding = any_of(roundings_of(p.base), random); break;
    case 4: p.block = any_of(std::vector<int64_t>{16, 32, 64, 128}, random); break;
    case 5: p.smooth = !p.smooth; break;
    case 6: p.kept_weights = moved(p.kept_weights, sites.weights.size(), random); break;
    default: p.kept_activations = moved(p.kept_activations, sites.activations.size(), random); break;
  }
  settle(p);
  return p;
}

TunePoint crossed(const TunePoint& a, const TunePoint& b, std::mt19937_64& random) {
  TunePoint p = a;
  auto pick = [&](auto member) { if (random() % 2) p.*member = b.*member; };
  pick(&TunePoint::base), pick(&TunePoint::method), pick(&TunePoint::activations), pick(&TunePoint::rounding), pick(&TunePoint::block);
  pick(&TunePoint::smooth), pick(&TunePoint::kept_weights), pick(&TunePoint::kept_activations);
  settle(p);
  return p;
}

double predicted_noise(const TunePoint& p, const TuneSites& sites) {
  const bool four = p.base == "int4" || p.base == "w4a8";
  double noise = 0;
  for (size_t i = 0; i < sites.weights.size(); ++i) {
    const bool kept = static_cast<int64_t>(i) < p.kept_weights;
    if (!kept) noise += four ? sites.weights[i].noise4 : sites.weights[i].noise8;
    else if (four) noise += sites.weights[i].noise8;
  }
  if (quantizes_activations(p) && p.activations != "dynamic")
    for (size_t i = static_cast<size_t>(p.kept_activations); i < sites.activations.size(); ++i) noise += sites.activations[i].noise8;
  return noise;
}

Recipe recipe_of(const TunePoint& p, const TuneSites& sites, const Recipe& settings) {
  const bool own = settings.search == "auto" && (p.base == "int8" || p.base == "half" || p.base == "float");
  Recipe recipe = own ? settings : load_recipe(builtin_of(p.base), vocabulary());
  recipe.search = "none";
  recipe.name = settings.search == "auto" ? settings.name : "tuned";
  recipe.description = words(p);
  recipe.target = settings.target;
  recipe.data = settings.data;
  recipe.gates = settings.gates;
  recipe.eval = settings.eval;
  recipe.output = settings.output;
  recipe.groups = settings.groups;
  recipe.calibrate = settings.calibrate;
  recipe.calibrate.method = p.method;
  if (p.base == "int8") set_option(recipe, "quantize_int8", "activations", p.activations);
  if (p.base == "int8" && p.measured_bias) set_option(recipe, "quantize_int8", "measured_bias", true);
  if (p.base == "int8" && p.floor_db > 0) set_option(recipe, "quantize_int8", "min_sqnr_db", p.floor_db);
  if (p.base == "int8" || p.base == "w4a8") set_option(recipe, "quantize_int8", "rounding", p.rounding);
  if (p.base == "int4") {
    set_option(recipe, "quantize_weights", "algorithm", p.rounding);
    set_option(recipe, "quantize_weights", "block_size", p.block);
  }
  if (p.equalize) insert_before_lossy(recipe, "equalize_layers");
  if (p.smooth) insert_before_lossy(recipe, "smooth_activations");
  if (p.base == "half" || p.base == "float") keep_float(recipe, p.base == "half");
  else add_groups(recipe, p, sites);
  return recipe;
}

std::string words(const TunePoint& p) {
  if (p.base == "float") return "float";
  if (p.base == "half") return "float16 weights";
  if (p.base == "int8" && p.activations == "none") return "int8 weights" + std::string(p.rounding == "nearest" ? "" : ", " + p.rounding);
  std::string text = p.base;
  if (p.base == "int8" && p.activations != "auto") text += ", " + p.activations + " activations";
  if (p.method != "minmax") text += ", " + p.method;
  if (p.equalize) text += ", equalized";
  if (p.smooth) text += ", smoothed";
  if (p.measured_bias) text += ", measured biases";
  if (p.base == "int4") text += ", blocks of " + std::to_string(p.block) + ", " + p.rounding;
  else if (p.rounding != "nearest") text += ", " + p.rounding;
  if (p.kept_weights > 0) text += ", weights of " + std::to_string(p.kept_weights) + " layers kept";
  if (p.kept_activations > 0) text += ", " + std::to_string(p.kept_activations) + " activations kept";
  if (p.floor_db > 0) text += ", float where layers cost most";
  for (size_t i = 0; i < p.in_float.size(); ++i) text += (i == 0 ? ", in float: " : ", ") + p.in_float[i];
  return text;
}

}  // namespace infopt

#include "recipes/tune.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <set>

#include "lib/base/atomic_file.h"
#include "lib/base/error.h"
#include "lib/base/hash.h"
#include "lib/base/memory.h"
#include "lib/onnx/import.h"
#include "lib/report/format.h"
#include "recipes/tune_log.h"

namespace infopt {
namespace {

constexpr int kChildren = 16;        // by chance, of which the most promising is made
constexpr int kBarren = 40;          // tries without a new point: the space is exhausted
constexpr int64_t kCompared = 4;     // samples of the sensitivity

constexpr double kLearning = 30, kSweeping = 8;  // times as long as rounding to nearest: AdaRound; GPTQ and AWQ
constexpr double kReconstruction = 4;            // times as long as AdaRound

using Clock = std::chrono::steady_clock;

/// In units of rounding to nearest.
double effort_of(const TunePoint& p) {
  if (p.rounding == "nearest") return 1;
  if (p.rounding == "adaround") return kLearning;
  return p.rounding == "reconstruct" ? kLearning * kReconstruction : kSweeping;
}

double objective(const Trial& t, bool smallest) { return smallest ? t.size_ratio : t.latency_ratio; }

class Search {
 public:
  explicit Search(const TuneSpec& spec) : spec_(spec), log_(prepare_folder(spec), key_of(spec)), random_(spec.seed), began_(Clock::now()) {}

  TuneResult run() {
    result_.trials = log_.trials();
    result_.resumed = static_cast<int64_t>(result_.trials.size());
    for (const Trial& t : result_.trials) made_.insert(t.recipe);
    choose_best();
    {
      PreparedModel prepared = prepare_model(spec_.job);
      SensitivityOptions o{.precisions = {}, .samples = kCompared, .threads = spec_.job.threads};
      for (const char* name : {"w8", "w4", "a8"}) o.precisions.push_back(parse_precision(name));
      sites_ = rank_sites(find_sensitivity(*prepared.model.graph, *prepared.calibration, find_profile(spec_.job.recipe.target), o));
    }
    trim_memory();
    for (const TunePoint& p : first_points(spec_.job.recipe.target))
      if (!over()) attempt(p);
    for (int barren = 0; !over() && barren < kBarren;) barren = attempt(next_point()) ? 0 : barren + 1;
    result_.front = pareto_front(result_.trials);
    write_file(spec_.folder + "/front.md", front_markdown(result_));
    return std::move(result_);
  }

 private:
  static std::string prepare_folder(const TuneSpec& spec) {
    if (spec.job.recipe.gates.empty()) throw Error(ErrorKind::Usage, "tune needs a target: --max-drop, --min-sqnr-db, --max-size-ratio, --max-latency-ratio or --max-ms, or a recipe with gates");
    std::error_code error;
    std::filesystem::create_directories(spec.folder, error);
    check_writable(spec.folder + "/trials.jsonl");
    return spec.folder + "/trials.jsonl";
  }

  /// Of what the trials are: the model's bytes, the data, the gates and how they are measured.
  static std::string key_of(const TuneSpec& spec) {
    const Model model = read_model(spec.job.model);
    Hasher hash;
    hash.text(content_key(*model.graph));
    for (const std::string& path : {spec.job.calibration_data, spec.job.evaluation_data})
      if (!path.empty()) hash.text(open_data(path, model, spec.job.recipe, spec.job.samples)->content_key());
    Recipe settings = spec.job.recipe;
    settings.steps.clear();
    hash.text(to_yaml(settings)).text(spec.job.engine);
    return hash.hex();
  }

  double seconds_left() const { return spec_.seconds - std::chrono::duration<double>(Clock::now() - began_).count(); }

  bool over() const {
    if (spec_.stop_when_met && result_.best && result_.trials[*result_.best].met()) return true;
    if (spec_.trials > 0 && static_cast<int64_t>(result_.trials.size()) >= spec_.trials) return true;
    return spec_.seconds > 0 && seconds_left() <= 0;
  }

  /// False where the point's recipe was tried before, or would take longer than there is time.
  bool attempt(const TunePoint& point) {
    if (spec_.seconds > 0 && expected_seconds(result_.trials, point) > seconds_left()) return false;
    const Recipe recipe = recipe_of(point, sites_, spec_.job.recipe);
    Trial trial{.point = point, .recipe = hash_of(recipe), .failure = {}, .sqnr_db = {}, .metric_drop = {}};
    if (!made_.insert(trial.recipe).second) return false;
    const std::string scratch = spec_.folder + "/trial", path = scratch + "/model.onnx";
    std::error_code ignored;
    std::filesystem::remove_all(scratch, ignored);
    std::filesystem::create_directories(scratch, ignored);
    JobSpec job = spec_.job;
    job.progress = {};
    run_trial(trial, job, recipe, path);
    log_.add(trial);
    result_.trials.push_back(trial);
    choose_best();
    if (result_.best && *result_.best + 1 == result_.trials.size()) take_over(recipe, scratch);
    std::filesystem::remove_all(scratch, ignored);
    if (spec_.told) spec_.told(line_of(trial));
    return true;
  }

  void choose_best() {
    for (size_t i = 0; i < result_.trials.size(); ++i) {
      const Trial& t = result_.trials[i];
      if (t.failure.empty() && (!result_.best || serves_better(t, result_.trials[*result_.best], spec_.smallest))) result_.best = i;
    }
  }

  /// The model with its external data, if it has any, and the recipe that `quantize` makes the same bytes with.
  void take_over(const Recipe& recipe, const std::string& scratch) const {
    write_file(spec_.folder + "/recipe.yaml", to_yaml(recipe));
    for (const auto& entry : std::filesystem::directory_iterator(scratch)) {
      std::error_code error;
      const std::string to = spec_.folder + "/" + entry.path().filename().string();
      std::filesystem::rename(entry.path(), to, error);
      if (error) throw Error(ErrorKind::Io, "can't be renamed into place: " + error.message(), to);
    }
  }

  /// A child of two that lie on the front, or near the gates.
  TunePoint next_point() {
    std::vector<size_t> parents = pareto_front(result_.trials);
    if (result_.best) parents.insert(parents.end(), 2, *result_.best);
    if (parents.empty()) return mutated({}, sites_, spec_.job.recipe.target, random_);
    std::optional<TunePoint> chosen;
    double promise = 0;
    for (int i = 0; i < kChildren; ++i) {
      const TunePoint& a = result_.trials[parents[random_() % parents.size()]].point;
      const TunePoint& b = result_.trials[parents[random_() % parents.size()]].point;
      TunePoint child = random_() % 3 == 0 ? crossed(a, b, random_) : mutated(a, sites_, spec_.job.recipe.target, random_);
      if (made_.contains(hash_of(recipe_of(child, sites_, spec_.job.recipe)))) continue;
      const double score = expected(child);
      if (!chosen || score < promise) chosen = child, promise = score;
    }
    return chosen ? *chosen : mutated(result_.trials[parents[0]].point, sites_, spec_.job.recipe.target, random_);
  }

  /// What the gates on noise will probably miss, and the objective: from the nearest measured trial, corrected by the predicted noise's change.
  double expected(const TunePoint& child) const {
    const Trial* near = nullptr;
    int64_t least = 0;
    for (const Trial& t : result_.trials) {
      if (!t.failure.empty()) continue;
      const TunePoint& p = t.point;
      const int64_t distance = 1000 * (p.base != child.base) + 100 * (p.rounding != child.rounding) + 50 * (p.activations != child.activations) + 20 * (p.method != child.method) + 20 * (p.smooth != child.smooth) +
                               std::abs(p.kept_weights - child.kept_weights) + std::abs(p.kept_activations - child.kept_activations);
      if (!near || distance < least) near = &t, least = distance;
    }
    if (!near) return 0;
    const double before = predicted_noise(near->point, sites_), after = predicted_noise(child, sites_);
    const double noise = noise_of(*near) * (before > 0 ? after / before : 1);
    double violation = near->violation;
    for (const GateLimit& g : spec_.job.recipe.gates)
      if (g.name == "min_sqnr_db") violation = std::max(0.0, g.limit + 10 * std::log10(std::max(noise, 1e-30))) / std::max(g.limit, 1.0);
    const double kept = static_cast<double>(child.kept_weights - near->point.kept_weights) / static_cast<double>(std::max<size_t>(1, sites_.weights.size())) +
                        static_cast<double>(child.kept_activations - near->point.kept_activations) / static_cast<double>(std::max<size_t>(1, sites_.activations.size()));
    return 10 * violation + objective(*near, spec_.smallest) + 0.5 * kept;
  }

  std::string line_of(const Trial& t) const {
    std::string text = std::to_string(result_.trials.size()) + ": " + words(t.point) + ": ";
    if (!t.failure.empty()) return text + t.failure;
    if (t.metric_drop) text += "drop " + format::number(*t.metric_drop) + ", ";
    if (t.sqnr_db) text += format::decibel(*t.sqnr_db) + ", ";
    text += "size " + format::number(t.size_ratio) + ", latency " + format::number(t.latency_ratio) + (t.met() ? ", meets the targets" : "");
    return result_.best && *result_.best + 1 == result_.trials.size() ? text + ", best so far" : text;
  }

  const TuneSpec& spec_;
  TuneLog log_;
  TuneSites sites_;
  TuneResult result_;
  std::set<std::string> made_;
  std::mt19937_64 random_;
  Clock::time_point began_;
};

}  // namespace

TuneResult tune(const TuneSpec& spec) { return Search(spec).run(); }

std::vector<size_t> pareto_front(const std::vector<Trial>& trials) {
  auto beats = [](const Trial& a, const Trial& b) {
    const double x[3] = {noise_of(a), a.size_ratio, a.latency_ratio}, y[3] = {noise_of(b), b.size_ratio, b.latency_ratio};
    bool better = false;
    for (int i = 0; i < 3; ++i) {
      if (x[i] > y[i]) return false;
      better = better || x[i] < y[i];
    }
    return better;
  };
  std::vector<size_t> front;
  for (size_t i = 0; i < trials.size(); ++i) {
    if (!trials[i].failure.empty()) continue;
    const bool beaten = std::any_of(trials.begin(), trials.end(), [&](const Trial& t) { return t.failure.empty() && beats(t, trials[i]); });
    if (!beaten) front.push_back(i);
  }
  return front;
}

double expected_seconds(const std::vector<Trial>& trials, const TunePoint& point) {
  double total = 0, count = 0, nearest = 0;
  for (const bool same_base : {true, false}) {
    for (const Trial& t : trials) {
      if (!t.failure.empty() || t.point.rounding != point.rounding || (same_base && t.point.base != point.base)) continue;
      total += t.seconds;
      ++count;
    }
    if (count > 0) return total / count;
  }
  for (const Trial& t : trials)  // of the most alike effort
    if (t.failure.empty() && effort_of(t.point) <= effort_of(point) && effort_of(t.point) >= nearest) {
      if (effort_of(t.point) > nearest) total = count = 0;
      nearest = effort_of(t.point);
      total += t.seconds;
      ++count;
    }
  return count > 0 ? total / count * effort_of(point) / nearest : 0;
}

bool serves_better(const Trial& a, const Trial& b, bool smallest) {
  const double x = std::max(0.0, a.violation), y = std::max(0.0, b.violation);
  if (x != y) return x < y;
  if (objective(a, smallest) != objective(b, smallest)) return objective(a, smallest) < objective(b, smallest);
  return noise_of(a) < noise_of(b);
}

std::string front_markdown(const TuneResult& result) {
  std::string text = "| trial | recipe | SQNR, dB | drop | size / original | latency / original | targets |\n|---|---|---|---|---|---|---|\n";
  std::vector<size_t> order = result.front;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return result.trials[a].latency_ratio < result.trials[b].latency_ratio; });
  for (size_t i : order) {
    const Trial& t = result.trials[i];
    text += "| " + std::to_string(i + 1) + " | " + words(t.point) + " | " + (t.sqnr_db ? format::number(*t.sqnr_db) : "-") + " | " + (t.metric_drop ? format::number(*t.metric_drop) : "-") + " | " + format::number(t.size_ratio) + " | " +
            format::number(t.latency_ratio) + " | " + (t.met() ? "met" : "missed") + (result.best == i ? ", **best**" : "") + " |\n";
  }
  return text;
}

}  // namespace infopt

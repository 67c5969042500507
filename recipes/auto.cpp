#include "recipes/auto.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "lib/base/atomic_file.h"
#include "lib/base/error.h"
#include "lib/base/interrupt.h"
#include "lib/base/memory.h"
#include "lib/report/format.h"
#include "recipes/measure.h"
#include "recipes/trial.h"

namespace infopt {
namespace {

constexpr double kNoSlower = 1;          // max_slowdown where an engine is given and no gate on latency: no slower, as far as its times tell
constexpr int64_t kProbed = 4;           // samples of the sensitivity
constexpr double kLearningBrings = 8;    // decibels at most, of learned rounding at 8 bits
constexpr double kUnlikely = 3;          // decibels by which a prediction may miss before the attempt isn't made
constexpr std::chrono::seconds kShortStage(5);
const std::vector<double> kShares{1.0 / 16, 1.0 / 8, 1.0 / 4, 1.0 / 2};

/// What a gate is about, and what a change can help.
enum Help : unsigned { Quality = 1, Speed = 2, Size = 4, Integers = 8 };

const GateDef& definition(const std::string& gate) {
  for (const GateDef& d : all_gates())
    if (d.name == gate) return d;
  throw Error(ErrorKind::Defect, "there is no gate '" + gate + "'");
}

Help about(const std::string& gate) {
  switch (definition(gate).need) {
    case GateNeed::Comparison:
    case GateNeed::Metric: return Quality;
    case GateNeed::Latency: return Speed;
    case GateNeed::Size:
    case GateNeed::Memory: return Size;
    case GateNeed::Layers: return Integers;
  }
  return Quality;
}

/// Where an attempt's model is made. Goes away with what is in it, also where a signal ends the process.
class Scratch {
 public:
  explicit Scratch(const std::string& output) : name_(std::filesystem::path(output).filename().string()) {
    const auto folder = std::filesystem::path(output).parent_path();
    std::string pattern = ((folder.empty() ? "." : folder) / (".infopt-auto-XXXXXX")).string();
    if (!::mkdtemp(pattern.data())) throw Error(ErrorKind::Io, "no folder can be made for the attempts", pattern);
    top_ = pattern;
    for (const char* part : {"/now", "/best"}) {
      std::filesystem::create_directory(top_ + part);
      watched_.push_back(top_ + part + "/" + name_);
      watched_.push_back(top_ + part);
    }
    watched_.push_back(top_);
    for (const std::string& path : watched_) remove_on_signal(path);
  }
  ~Scratch() {
    for (const std::string& path : watched_) forget_on_signal(path);
    std::error_code ignored;
    std::filesystem::remove_all(top_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string model() const { return top_ + "/now/" + name_; }
  void clear() const { move({}); }
  void keep() const { move(top_ + "/best"); }
  /// What was kept goes to a folder; the model last.
  void release(const std::filesystem::path& folder) const {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(top_ + "/best")) files.push_back(entry.path());
    std::stable_partition(files.begin(), files.end(), [&](const auto& f) { return f.filename() != name_; });
    for (const auto& file : files) rename(file, folder / file.filename());
  }

 private:
  static void rename(const std::filesystem::path& from, const std::filesystem::path& to) {
    std::error_code error;
    std::filesystem::rename(from, to, error);
    if (error) throw Error(ErrorKind::Io, "can't be renamed into place: " + error.message(), to.string());
  }
  /// The present attempt's files to a folder whose own go away, or nowhere.
  void move(const std::string& to) const {
    std::vector<std::filesystem::path> gone, files;
    if (!to.empty())
      for (const auto& entry : std::filesystem::directory_iterator(to)) gone.push_back(entry.path());
    for (const auto& entry : std::filesystem::directory_iterator(top_ + "/now")) files.push_back(entry.path());
    for (const auto& file : gone) std::filesystem::remove(file);
    for (const auto& file : files) to.empty() ? void(std::filesystem::remove(file)) : rename(file, to / file.filename());
  }

  std::string name_, top_;
  std::vector<std::string> watched_;
};

class Ladder {
 public:
  explicit Ladder(const AutoSpec& spec) : spec_(spec), settings_(spec.job.recipe), began_(Clock::now()) {
    if (!spec_.job.engine.empty() && std::none_of(settings_.gates.begin(), settings_.gates.end(), [](const GateLimit& g) { return about(g.name) == Speed; }))
      add_gate("max_slowdown", kNoSlower);
    if (settings_.gates.empty()) throw Error(ErrorKind::Usage, "the recipe " + settings_.name + " searches for what meets its gates, and has none");
    search_.by_measurement = needs(settings_.gates, GateNeed::Latency) || needs(settings_.gates, GateNeed::Memory);
    for (const GateLimit& g : settings_.gates)
      if (g.name == "min_sqnr_db") wanted_db_ = g.limit;
  }

  Report run() {
    const TunePoint first = first_point();
    check_paths(spec_.job);
    if (!spec_.job.engine.empty()) ask_engine(spec_.job.engine, spec_.job.model);
    const Scratch scratch(spec_.job.output);
    scratch_ = &scratch;
    attempt(first, "", Quality | Speed | Size | Integers);
    if (report_) find_unmeasured();
    change_ranges_and_channels();
    learn_rounding();
    keep_sensitive();
    keep_slow();
    change_base();
    return finish();
  }

 private:
  using Clock = std::chrono::steady_clock;

  void add_gate(const std::string& name, double limit) {
    std::vector<GateLimit> ordered;
    for (const GateDef& d : all_gates()) {
      if (d.name == name) ordered.push_back({name, limit});
      for (const GateLimit& g : settings_.gates)
        if (g.name == d.name) ordered.push_back(g);
    }
    settings_.gates = std::move(ordered);
  }

  /// The recipe's own steps as a point.
  TunePoint first_point() const {
    TunePoint p{.method = settings_.calibrate.method, .in_float = {}};
    const Step* step = nullptr;
    for (const Step& s : settings_.steps)
      if (s.pass == "quantize_int8") step = &s;
    if (!step) throw Error(ErrorKind::Usage, "the recipe " + settings_.name + " is one to search from, and needs a step quantize_int8");
    const Options options = options_of(*step);
    p.activations = options.text("activations");
    p.rounding = options.text("rounding");
    p.measured_bias = options.flag("measured_bias");
    return p;
  }

  bool has_step(const std::string& pass) const {
    return std::any_of(settings_.steps.begin(), settings_.steps.end(), [&](const Step& s) { return s.pass == pass; });
  }

  /// A gate whose figure isn't there is missed by every attempt: nothing is gained by making them.
  void find_unmeasured() {
    for (const GateResult& g : report_->gates)
      if (!g.value) unmeasured_ = g.name + ": " + g.message;
  }

  bool over() {
    if ((best_ && best_->met()) || !unmeasured_.empty()) return true;
    if (spec_.seconds <= 0 || std::chrono::duration<double>(Clock::now() - began_).count() < spec_.seconds) return false;
    return out_of_time_ = true;
  }
  /// Whether what is missed can be helped by a change of that kind. Where nothing could be made yet, anything may help.
  bool wants(unsigned helps) {
    if (over()) return false;
    if (!base_) return true;
    return std::any_of(base_->gates.begin(), base_->gates.end(), [&](const GateResult& g) { return !g.passed && (about(g.name) & helps) != 0; });
  }
  TunePoint base() const { return base_ ? base_->point : first_point(); }

  void attempt(const TunePoint& point, const std::string& changed, unsigned helps) {
    const Recipe recipe = recipe_of(point, sites_, settings_);
    Trial trial{.point = point, .recipe = hash_of(recipe), .failure = {}, .sqnr_db = {}, .metric_drop = {}};
    if (std::find(made_.begin(), made_.end(), trial.recipe) != made_.end()) return;
    made_.push_back(trial.recipe);
    JobSpec job = spec_.job;
    job.report_folder.clear();
    if (job.progress) job.progress = progress_of_attempt();
    scratch_->clear();
    std::optional<Report> report = run_trial(trial, job, recipe, scratch_->model());
    trim_memory();
    note(trial, changed, report);
    if (report) consider(trial, report->gates, helps);
    if (report && (!best_ || (trial.violation != best_->violation ? trial.violation < best_->violation : noise_of(trial) < noise_of(*best_)))) {
      scratch_->keep();
      best_ = trial;
      report_ = std::move(report);
      search_.chosen = search_.attempts.size() - 1;
    }
    tell();
  }

  /// With the attempt's number; of short stages that tell of samples nothing.
  StageProgress progress_of_attempt() const {
    struct Stage {
      std::string name;
      Clock::time_point start;
    };
    return [this, now = Stage{}](const std::string& stage, int64_t done, int64_t total, const std::string& units) mutable {
      if (stage != now.name) now = {stage, Clock::now()};
      if (units == "samples" && Clock::now() - now.start < kShortStage) return;
      spec_.job.progress(std::to_string(made_.size()) + ": " + stage, done, total, units);
    };
  }

  void note(const Trial& trial, const std::string& changed, const std::optional<Report>& report) {
    Attempt a{.name = words(trial.point), .changed = changed, .failure = trial.failure, .sqnr_db = {}, .metric_drop = trial.metric_drop, .size_ratio = {}, .latency_ratio = {}, .missed = {}, .seconds = trial.seconds};
    if (report) {
      a.sqnr_db = worst_sqnr_db(*report);
      a.size_ratio = trial.size_ratio;
      a.latency_ratio = latency_ratio(*report);
      for (const GateResult& g : report->gates)
        if (!g.passed) a.missed.push_back(g.name);
    }
    search_.attempts.push_back(std::move(a));
  }

  void tell() const {
    const Attempt& a = search_.attempts.back();
    if (spec_.told) spec_.told(std::to_string(search_.attempts.size()) + ": " + a.name + ": " + format::figures(a) + (a.failure.empty() ? "; gates: " + format::missed(a) : ""));
  }

  /// What later changes are made to: the lesser violation, then the lesser noise. A clock's scatter has no say in changes that aren't about speed.
  void consider(const Trial& trial, const std::vector<GateResult>& gates, unsigned helps) {
    auto missed = [&](std::vector<GateResult> all) {
      if (!(helps & Speed)) std::erase_if(all, [](const GateResult& g) { return about(g.name) == Speed; });
      return violation_of(all);
    };
    if (base_) {
      const double now = missed(gates), before = missed(base_->gates);
      if (now != before ? now > before : noise_of(trial) >= base_->noise) return;
    }
    base_ = Base{trial.point, gates, noise_of(trial), trial.sqnr_db};
  }

  template <class F> void change(unsigned helps, const std::string& words, F turn) {
    if (!wants(helps)) return;
    TunePoint p = base();
    turn(p);
    attempt(p, words, helps);
  }

  void change_ranges_and_channels() {
    for (const char* method : {"mse", "entropy", "percentile"}) change(Quality, std::string("calibrate.method: ") + method, [&](TunePoint& p) { p.method = method; });
    change(Quality, "quantize_int8.measured_bias", [](TunePoint& p) { p.measured_bias = true; });
    if (!has_step("equalize_layers")) change(Quality, "equalize_layers", [](TunePoint& p) { p.equalize = true; });
    if (!has_step("smooth_activations")) change(Quality, "smooth_activations", [](TunePoint& p) { p.smooth = true; });
    change(Integers, "quantize_int8.activations: static", [](TunePoint& p) { p.activations = "static"; });
  }

  /// Minutes rather than seconds, for a few decibels: only where those may be enough.
  void learn_rounding() {
    if (base_ && base_->sqnr_db && wanted_db_ && *base_->sqnr_db + kLearningBrings < *wanted_db_) return;
    for (const char* rounding : {"adaround", "reconstruct"}) change(Quality, std::string("quantize_int8.rounding: ") + rounding, [&](TunePoint& p) { p.rounding = rounding; });
  }

  /// The most sensitive layers back to float, more and more of them.
  void keep_sensitive() {
    if (!wants(Quality) || !base_) return;
    if (wanted_db_ && base_->sqnr_db && *base_->sqnr_db < *wanted_db_) change(Quality, "quantize_int8.min_sqnr_db", [&](TunePoint& p) { p.floor_db = *wanted_db_; });
    if (!wants(Quality)) return;
    probe();
    const TunePoint from = base();
    const double noise = base_->noise, predicted = predicted_noise(from, sites_);
    for (double share : kShares) {
      TunePoint p = from;
      auto part = [&](size_t places) { return static_cast<int64_t>(std::ceil(share * static_cast<double>(places))); };
      p.kept_weights = part(sites_.weights.size());
      p.kept_activations = part(sites_.activations.size());
      const double expected = predicted > 0 ? -10 * std::log10(noise * predicted_noise(p, sites_) / predicted) : 0;
      if (share < kShares.back() && base_->sqnr_db && wanted_db_ && expected + kUnlikely < *wanted_db_) continue;
      if (wants(Quality)) attempt(p, "the most sensitive " + std::to_string(std::lround(100 * share)) + " % of weights and activations in float", Quality);
    }
  }

  /// Each kind of layer whose float kernels are the faster ones in the engine; only a clock knows.
  void keep_slow() {
    if (!wants(Speed) || !base_) return;
    probe_kinds();
    for (const auto& [kind, names] : sites_.kinds)
      change(Speed, kind + " layers compute in float", [&, k = kind](TunePoint& p) { p.in_float.push_back(k); });
  }

  /// What has little in common with the first attempt, the smallest first.
  void change_base() {
    change(Size, "4-bit weights alone, by GPTQ", [](TunePoint& p) { p = {.base = "int4", .rounding = "gptq", .in_float = {}}; });
    change(Size, "4-bit weights, rounding learned", [](TunePoint& p) { p = {.base = "w4a8", .rounding = "reconstruct", .in_float = {}}; });
    change(Quality | Speed, "int8 weights alone", [](TunePoint& p) { p = {.activations = "none", .in_float = {}}; });
    change(Quality | Speed, "weights alone in float16", [](TunePoint& p) { p = {.base = "half", .in_float = {}}; });
    change(Quality | Speed, "nothing quantized", [](TunePoint& p) { p = {.base = "float", .in_float = {}}; });
  }

  JobSpec probe_job() const {
    JobSpec job = spec_.job;
    job.recipe = recipe_of(first_point(), {}, settings_);
    job.output.clear();
    job.report_folder.clear();
    return job;
  }

  void probe() {
    const JobSpec job = probe_job();
    PreparedModel prepared = prepare_model(job);
    SensitivityOptions o{.precisions = {}, .samples = kProbed, .threads = job.threads};
    for (const char* name : {"w8", "w4", "a8"}) o.precisions.push_back(parse_precision(name));
    if (job.progress) o.progress = [&](int64_t done, int64_t total) { job.progress("sensitivity", done, total, "layers probed"); };
    auto kinds = std::move(sites_.kinds);
    sites_ = rank_sites(find_sensitivity(*prepared.model.graph, *prepared.calibration, find_profile(settings_.target), o));
    sites_.kinds = std::move(kinds);
    trim_memory();
  }

  void probe_kinds() {
    PreparedModel prepared = prepare_model(probe_job());
    sites_.kinds = layer_kinds(*prepared.model.graph, *prepared.calibration);
    trim_memory();
  }

  std::string ended() const {
    if (!unmeasured_.empty()) return "Nothing more was tried, because no attempt can meet " + unmeasured_ + ".";
    const Attempt& chosen = search_.attempts[search_.chosen];
    std::string text = best_->met() ? "Met by attempt " : out_of_time_ ? "Out of time; nearest to the gates: attempt " : "Nothing that is left to try meets the gates; nearest: attempt ";
    text += std::to_string(search_.chosen + 1) + ", " + chosen.name + ".";
    if (best_->point.base == "float") text += " No quantized form met the gates: the model computes in float, and no weight is smaller.";
    else if (best_->point.base == "half" || best_->point.activations == "none") text += " Its weights alone are smaller: it computes in float.";
    return text;
  }

  Report finish() {
    if (!best_) throw Error(ErrorKind::Unsupported, "no attempt gave a model; the last: " + search_.attempts.back().failure, spec_.job.model);
    search_.ended = ended();
    Report report = std::move(*report_);
    if (report.optimized) report.optimized->path = spec_.job.output;
    report.search = std::move(search_);
    if (best_->met() || spec_.job.keep_output_on_failure) scratch_->release(std::filesystem::path(spec_.job.output).parent_path());
    write_reports(report, spec_.job.report_folder);
    return report;
  }

  const AutoSpec& spec_;
  Recipe settings_;
  std::optional<double> wanted_db_;
  Clock::time_point began_;
  bool out_of_time_ = false;
  std::string unmeasured_;  ///< a gate, and what its figure wants
  const Scratch* scratch_ = nullptr;
  TuneSites sites_;
  std::vector<std::string> made_;
  struct Base {
    TunePoint point;
    std::vector<GateResult> gates;
    double noise = 1;
    std::optional<double> sqnr_db;
  };
  std::optional<Base> base_;
  std::optional<Trial> best_;
  std::optional<Report> report_;  ///< of the best
  SearchReport search_;
};

}  // namespace

Report quantize_by_search(const AutoSpec& spec) { return Ladder(spec).run(); }

}  // namespace infopt

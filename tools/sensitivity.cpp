#include "passes/support/sensitivity.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "lib/base/atomic_file.h"
#include "lib/base/error.h"
#include "lib/report/format.h"
#include "recipes/measure.h"
#include "recipes/task_metric.h"
#include "tools/command.h"

namespace infopt {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kCompared = 8;

struct SensitivityCommand {
  JobOptions job;
  std::vector<std::string> precisions{"w8", "w4", "a8"};
  int64_t compared = 0, top = 20;  // compared 0: kCompared, or all where the task's figure is measured
  double target_db = 25;
  std::string metric;
};

Json json_of(const std::vector<Site>& sites, const std::string& groups, const std::string& metric) {
  Json out;
  if (!metric.empty()) out["metric"] = format::utf8(metric);
  for (const Site& s : sites) {
    Json damage = Json::array();
    for (const Damage& d : s.damage) {
      damage.push_back({{"precision", d.precision.name}, {"sqnr_db", d.sqnr_db ? Json(*d.sqnr_db) : Json()}, {"kl", d.kl ? Json(*d.kl) : Json()}});
      if (d.drop) damage.back()["drop"] = *d.drop;
    }
    Json readers = Json::array(), causes = Json::array();
    for (const auto& r : s.readers) readers.push_back(format::utf8(r));
    for (const auto& c : s.causes) causes.push_back(c);
    out["sites"].push_back({{"name", format::utf8(s.name)}, {"kind", s.weights ? "weights" : "activations"}, {"layers", readers}, {"damage", damage}, {"causes", causes}});
  }
  out["recipe"] = groups;
  return out;
}

double worst_of(const Site& s) {
  double worst = 1e9;
  for (const Damage& d : s.damage)
    if (d.sqnr_db) worst = std::min(worst, *d.sqnr_db);
  return worst;
}

/// The task's loss comes first, where it was measured.
std::pair<double, double> rank_of(const Site& s) {
  double drop = -1e300;
  for (const Damage& d : s.damage)
    if (d.drop) drop = std::max(drop, *d.drop);
  return {-drop, worst_of(s)};
}

void print(const std::vector<Site>& sites, const SensitivityCommand& c, const std::string& groups, const std::string& metric, int64_t samples) {
  std::vector<const Site*> order;
  for (const Site& s : sites) order.push_back(&s);
  std::stable_sort(order.begin(), order.end(), [](const Site* a, const Site* b) { return rank_of(*a) < rank_of(*b); });
  const std::string also = metric.empty() ? "" : ", what " + metric + " loses (+) or gains (-),";
  std::printf("Outputs' signal to noise%s where only this place is rounded, the worst first (%lld samples compared):\n", also.c_str(), static_cast<long long>(samples));
  for (size_t i = 0; i < order.size() && i < static_cast<size_t>(c.top); ++i) {
    const Site& s = *order[i];
    std::printf("  %-11s %s\n   ", s.weights ? "weights" : "activations", format::utf8(s.name).c_str());
    for (const Damage& d : s.damage) {
      std::printf(" %s %s", d.precision.name.c_str(), d.sqnr_db ? format::decibel(*d.sqnr_db >= 299 ? HUGE_VAL : *d.sqnr_db).c_str() : "not computed");
      if (d.kl) std::printf(" (KL %.2g)", *d.kl);
      if (d.drop) std::printf(" %+.4g", *d.drop);
    }
    std::printf("\n");
    for (const auto& cause : s.causes) std::printf("    %s\n", cause.c_str());
  }
  if (order.size() > static_cast<size_t>(c.top)) std::printf("  and %zu more (--top)\n", order.size() - static_cast<size_t>(c.top));
  if (groups.empty()) std::printf("At w8 and a8 everything together is estimated above %s: nothing has to stay in float.\n", format::decibel(c.target_db).c_str());
  else std::printf("To stay above %s at w8 and a8, add to the recipe:\n\n%s", format::decibel(c.target_db).c_str(), groups.c_str());
}

/// The data that outputs are compared on, and the task's figure on it.
class Evaluation {
 public:
  Evaluation(const JobSpec& job, const Model& model, int64_t compared) : eval_(job.recipe.eval), path_(job.evaluation_data), graph_(*model.graph) {
    samples_ = compared > 0 ? compared : kCompared;
    if (path_.empty()) return;
    data_ = open_data(path_, model, job.recipe, compared);
    calibration_ = std::make_unique<Calibration>(data_, CalibrationOptions{job.threads, {}, nullptr});
    if (eval_.metric.empty()) return;
    make_metric(eval_, graph_, *data_, path_);  // says at once what is wrong
    if (compared <= 0) samples_ = 0;
    data_->reset();
    for (Sample s; data_->next(s); s = {}) {
      if (s.valid_rows == data_rows(s)) s.inputs.clear();  // nothing to cut off: only the labels are needed
      labelled_.push_back(std::move(s));
    }
  }

  void apply(SensitivityOptions& o) const {
    o.samples = samples_;
    o.compared = calibration_.get();
    if (!labelled_.empty()) o.task = [this](const auto& reference, const auto& rounded) { return drop(reference, rounded); };
  }
  std::string metric() const { return labelled_.empty() ? "" : eval_.metric == "command" && !eval_.name.empty() ? eval_.name : eval_.metric; }

 private:
  static int64_t data_rows(const Sample& s) { return s.inputs.empty() || s.inputs.begin()->second.rank() == 0 ? s.valid_rows : s.inputs.begin()->second.dim(0); }

  static std::vector<Tensor> cut(std::vector<Tensor> outputs, const Sample& s) {
    for (Tensor& t : outputs) t = valid_rows(t, s);
    return outputs;
  }

  double drop(const std::vector<std::vector<Tensor>>& reference, const std::vector<std::vector<Tensor>>& rounded) const {
    const auto metric = make_metric(eval_, graph_, *data_, path_);
    for (size_t i = 0; i < reference.size(); ++i) {
      const Sample& s = labelled_[i];
      const Tensor label = s.label.defined() && s.label.rank() > 0 && s.label.dim(0) > s.valid_rows ? s.label.slice_front(0, s.valid_rows) : s.label;
      metric->add(cut(reference[i], s), cut(rounded[i], s), label);
    }
    return metric->result().drop();
  }

  EvalSpec eval_;
  std::string path_;
  const Graph& graph_;
  std::shared_ptr<DataSet> data_;
  std::unique_ptr<Calibration> calibration_;
  std::vector<Sample> labelled_;
  int64_t samples_ = 0;
};

}  // namespace

void add_sensitivity(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("sensitivity", "What each layer's weights and activations cost the outputs when rounded alone, why, and what mends it");
  const auto c = std::make_shared<SensitivityCommand>();
  add_job_options(*command, c->job, false);
  command->add_option("--precisions", c->precisions, "w8, w4, w2, w4b32 (blocks of 32), a8, a16; separated by commas")->delimiter(',')->type_name("LIST");
  command->add_option("--compare", c->compared, "samples whose outputs are compared (default: 8, with a metric all)")->check(CLI::PositiveNumber)->type_name("N");
  command->add_option("--eval", c->job.evaluation, "data that outputs are compared on; the calibration data without it")->type_name("DATA");
  command->add_option("--metric", c->metric, "what rounding costs the task, on the labels of --eval: top1, top5, or command with the recipe's eval.command")->type_name("NAME");
  command->add_option("--top", c->top, "places that are listed")->check(CLI::PositiveNumber)->type_name("N");
  command->add_option("--target-db", c->target_db, "what the recipe lines should keep of the outputs at 8 bits")->type_name("DB");
  command->callback([c, &context] {
    SensitivityOptions o;
    for (const std::string& p : c->precisions) o.precisions.push_back(parse_precision(p));
    if (!c->metric.empty()) c->job.sets.push_back("eval.metric=" + c->metric);
    JobSpec job = job_of(c->job, "sensitivity", context, "int8");
    if (!c->metric.empty() && job.evaluation_data.empty()) throw Error(ErrorKind::Usage, "--metric needs labelled data: give --eval DATA");
    job.output.clear();
    PreparedModel prepared = prepare_model(job);
    o.method = job.recipe.calibrate.method;
    o.percentile = job.recipe.calibrate.percentile;
    o.threads = job.threads;
    if (job.progress) o.progress = [&](int64_t done, int64_t total) { job.progress("sensitivity", done, total, "layers probed"); };
    const Evaluation evaluation(job, prepared.model, c->compared);
    evaluation.apply(o);
    const std::vector<Site> sites = find_sensitivity(*prepared.model.graph, *prepared.calibration, find_profile(job.recipe.target), o);
    if (sites.empty()) throw Error(ErrorKind::Unsupported, "the model has no layer with constant weights that infopt can compute", c->job.model);
    const int64_t there = o.compared ? o.compared->data().size() : prepared.calibration->data().size();
    const std::string groups = groups_that_mend(sites, {"w8", "a8"}, c->target_db), json = json_of(sites, groups, evaluation.metric()).dump(2) + "\n";
    if (!c->job.output.empty()) write_file(c->job.output, json);
    if (c->job.json) std::fputs(json.c_str(), stdout);
    else print(sites, *c, groups, evaluation.metric(), o.samples > 0 ? std::min(o.samples, there) : there);
  });
}

}  // namespace infopt

#include "passes/support/sensitivity.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "lib/base/atomic_file.h"
#include "lib/base/error.h"
#include "lib/report/format.h"
#include "tools/command.h"

namespace infopt {
namespace {

using Json = nlohmann::ordered_json;

struct SensitivityCommand {
  JobOptions job;
  std::vector<std::string> precisions{"w8", "w4", "a8"};
  int64_t compared = 8, top = 20;
  double target_db = 25;
};

Json json_of(const std::vector<Site>& sites, const std::string& groups) {
  Json out;
  for (const Site& s : sites) {
    Json damage = Json::array();
    for (const Damage& d : s.damage) damage.push_back({{"precision", d.precision.name}, {"sqnr_db", d.sqnr_db ? Json(*d.sqnr_db) : Json()}, {"kl", d.kl ? Json(*d.kl) : Json()}});
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

void print(const std::vector<Site>& sites, const SensitivityCommand& c, const std::string& groups) {
  std::vector<const Site*> order;
  for (const Site& s : sites) order.push_back(&s);
  std::stable_sort(order.begin(), order.end(), [](const Site* a, const Site* b) { return worst_of(*a) < worst_of(*b); });
  std::printf("Outputs' signal to noise where only this place is rounded, the worst first (%lld samples compared):\n", static_cast<long long>(c.compared));
  for (size_t i = 0; i < order.size() && i < static_cast<size_t>(c.top); ++i) {
    const Site& s = *order[i];
    std::printf("  %-11s %s\n   ", s.weights ? "weights" : "activations", format::utf8(s.name).c_str());
    for (const Damage& d : s.damage) {
      std::printf(" %s %s", d.precision.name.c_str(), d.sqnr_db ? format::decibel(*d.sqnr_db >= 299 ? HUGE_VAL : *d.sqnr_db).c_str() : "not computed");
      if (d.kl) std::printf(" (KL %.2g)", *d.kl);
    }
    std::printf("\n");
    for (const auto& cause : s.causes) std::printf("    %s\n", cause.c_str());
  }
  if (order.size() > static_cast<size_t>(c.top)) std::printf("  and %zu more (--top)\n", order.size() - static_cast<size_t>(c.top));
  if (groups.empty()) std::printf("At w8 and a8 everything together is estimated above %s: nothing has to stay in float.\n", format::decibel(c.target_db).c_str());
  else std::printf("To stay above %s at w8 and a8, add to the recipe:\n\n%s", format::decibel(c.target_db).c_str(), groups.c_str());
}

}  // namespace

void add_sensitivity(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("sensitivity", "What each layer's weights and activations cost the outputs when rounded alone, why, and what mends it");
  const auto c = std::make_shared<SensitivityCommand>();
  add_job_options(*command, c->job, false);
  command->add_option("--precisions", c->precisions, "w8, w4, w2, w4b32 (blocks of 32), a8, a16; separated by commas")->delimiter(',')->type_name("LIST");
  command->add_option("--compare", c->compared, "samples whose outputs are compared")->check(CLI::PositiveNumber)->type_name("N");
  command->add_option("--top", c->top, "places that are listed")->check(CLI::PositiveNumber)->type_name("N");
  command->add_option("--target-db", c->target_db, "what the recipe lines should keep of the outputs at 8 bits")->type_name("DB");
  command->callback([c, &context] {
    SensitivityOptions o;
    for (const std::string& p : c->precisions) o.precisions.push_back(parse_precision(p));
    JobSpec job = job_of(c->job, "sensitivity", context, "int8");
    job.output.clear();
    PreparedModel prepared = prepare_model(job);
    o.samples = c->compared;
    o.method = job.recipe.calibrate.method;
    o.percentile = job.recipe.calibrate.percentile;
    o.threads = job.threads;
    if (job.progress) job.progress("sensitivity", 0, 0);
    const std::vector<Site> sites = find_sensitivity(*prepared.model.graph, *prepared.calibration, find_profile(job.recipe.target), o);
    if (sites.empty()) throw Error(ErrorKind::Unsupported, "the model has no layer with constant weights that infopt can compute", c->job.model);
    const std::string groups = groups_that_mend(sites, {"w8", "a8"}, c->target_db), json = json_of(sites, groups).dump(2) + "\n";
    if (!c->job.output.empty()) write_file(c->job.output, json);
    if (c->job.json) std::fputs(json.c_str(), stdout);
    else print(sites, *c, groups);
  });
}

}  // namespace infopt

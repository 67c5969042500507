// A whole run: read, run the recipe's steps, write, read back, measure, judge.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "calibration/calibration.h"
#include "lib/report/report.h"
#include "recipes/recipe.h"

namespace infopt {

/// What is being done, and how far it is: `done` of `total` `units`; total 0 where that isn't known.
using StageProgress = std::function<void(const std::string& stage, int64_t done, int64_t total, const std::string& units)>;

struct JobSpec {
  std::string command;                    ///< the subcommand, for the report
  std::vector<std::string> command_line;
  std::string model, output;
  std::string calibration_data;           ///< empty: none
  std::string evaluation_data;            ///< empty: the calibration data is compared on
  std::string statistics;                 ///< saved by `infopt calibrate`; empty: none
  std::string engine;                     ///< a command that prints milliseconds of {model}; empty: latency is infopt's runtime's
  std::string report_folder;              ///< empty: no report is written
  Recipe recipe;
  int threads = 1;
  std::shared_ptr<const Device> device;   ///< calibrates and compares there; null: on the CPU
  std::string device_name = "cpu";        ///< for the report
  int64_t samples = 0;                    ///< of calibration; 0: what the recipe says, else all
  bool check_contracts = false;
  bool keep_output_on_failure = true;     ///< write the model even where a gate isn't met
  StageProgress progress;
};

/// Whether a step of the recipe takes weights away: prune_….
bool prunes(const Recipe& recipe);

/// The report of what was done. Gates that aren't met are in the report, not an error.
/// Throws Error for everything else that goes wrong; then nothing stands at `output` that wasn't there before.
Report run_job(const JobSpec& job);

/// Statistics of the model as the recipe's steps before the first that needs calibration leave it.
StatisticsSet calibrate_model(const JobSpec& job);

/// The model as the recipe's steps before the first lossy one leave it, with its calibration data.
struct PreparedModel {
  Model model;
  std::unique_ptr<Calibration> calibration;
};
PreparedModel prepare_model(const JobSpec& job);

/// Throws Error(Usage) where the output is the model, Error(Io) where output or reports can't be written; makes the reports' folder.
void check_paths(const JobSpec& job);
/// report.json, report.md and junit.xml, and recipe.yaml where it was searched for; nothing where `folder` is empty.
void write_reports(const Report& report, const std::string& folder);

/// Opens data for a model with the recipe's preprocessing. `limit` 0: all.
std::shared_ptr<DataSet> open_data(const std::string& path, const Model& model, const Recipe& recipe, int64_t limit);

}  // namespace infopt

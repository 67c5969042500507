// Everything that happened in a run, as one plain value. Every printed form is a rendering of it (lib/report/render.h).
// What was not measured is empty, never a guess. What differs between two runs of the same thing (times, memory) stands in
// Measured and PassReport::seconds, and the JSON form keeps it apart under "measured".
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/ir/edit.h"

namespace infopt {

/// A model's file.
struct ModelFile {
  std::string path;
  std::string hash;    ///< of its content; empty where it wasn't computed
  int64_t bytes = 0;   ///< external data included
  int64_t opset = 0;   ///< of the default domain
};

/// What came of checking a pass's contract on sample inputs.
struct ContractCheck {
  bool ok = false;
  double max_error = 0;  ///< largest |difference| of any output, relative to the output's largest magnitude
  int64_t samples = 0;
  std::string message;   ///< what was compared, or why it isn't ok
};

struct PassReport {
  std::string name, summary;
  std::string contract;  ///< exact, rounding, lossy
  std::vector<std::pair<std::string, std::string>> options;  ///< as they were in force, defaults included, as text
  int64_t nodes_before = 0, nodes_after = 0;
  EditLog edits;  ///< counts, and the notes of what was done to which node
  std::optional<ContractCheck> check;
  double seconds = 0;
};

/// How a layer's products are computed.
enum class LayerForm { Int8Static, Int8Dynamic, Int8Storage, WeightOnly, Float16, BFloat16, Float32, Float8 };
inline constexpr int kLayerFormCount = 8;
/// "int8 static", "int8 dynamic", "int8 storage", "weights only", "float16", "bfloat16", "float32", "float8".
std::string_view name_of(LayerForm form);
/// Whether the products themselves are of integers (storage form computes in float).
bool is_integer(LayerForm form);

/// One operator that has weights or multiplies and adds.
struct LayerReport {
  std::string node, op;
  LayerForm form = LayerForm::Float32;
  std::string reason;           ///< why it took this form, or stayed in float
  std::string weights;          ///< what the weights alone became: "int4, blocks of 32"; empty where the form says it
  std::string algorithm;        ///< what rounded them; empty for to nearest in the form's own pass
  std::string cost;             ///< what that costs, in words; may be empty
  int64_t macs = 0;             ///< of one sample; 0 where shapes aren't known
  int64_t weight_elements = 0;
  // Signal to quantization noise, decibels.
  std::optional<double> weight_sqnr_db;       ///< of the weights alone
  std::optional<double> estimated_sqnr_db;    ///< of the output, as the pass estimated it while choosing
  std::optional<double> local_sqnr_db;        ///< of the output, measured with exact inputs: what this layer adds
  std::optional<double> accumulated_sqnr_db;  ///< of the output, measured in the whole optimized model
};

/// What pruning took of one operator: single weights, or whole channels.
struct PrunedLayer {
  std::string node, op;
  std::string pattern;    ///< "unstructured", "2:4", "blocks of 16x1", "channels", "heads", …; empty where it was left alone
  std::string algorithm;  ///< how what went was chosen: magnitude, wanda, sparsegpt, …
  std::string reason;     ///< why it was left alone, or isn't as asked; else empty
  int64_t weights_before = 0, weights_after = 0;  ///< by the stored shapes, zeros included
  int64_t zeros = 0;      ///< among weights_after
  std::string shape_before, shape_after;          ///< "[64,32,3,3]", where the shape changed
  std::optional<double> output_sqnr_db;           ///< of its output, with the inputs that it was pruned for
  double removed() const { return weights_before > 0 ? 1 - static_cast<double>(weights_after - zeros) / static_cast<double>(weights_before) : 0; }
};

/// What a model costs by its shapes; zeros among the weights count like other numbers.
struct ModelCost {
  int64_t macs = 0;        ///< multiply-adds of the first sample
  int64_t parameters = 0;
};

/// An output of the written model beside the original's, over all compared samples.
struct OutputReport {
  std::string name;
  double sqnr_db = 0;  ///< +infinity where they are equal
  double cosine = 0, max_abs_error = 0;
};

/// A task's figure, on the original and on the optimized model.
struct Metric {
  std::string name;
  double original = 0, optimized = 0;
  bool higher_is_better = true;
  /// How much worse the optimized model is; negative where it is better.
  double drop() const { return higher_is_better ? original - optimized : optimized - original; }
};

/// Milliseconds for one batch.
struct Latency {
  double median_ms = 0, p90_ms = 0, p99_ms = 0;
  double first_run_ms = 0;  ///< the warm-up's first, in none of the others
  int64_t runs = 0;
  int threads = 1;
  int64_t batch = 1;
};

struct StageTime { std::string name; double seconds = 0; };

/// What no two runs have alike.
struct Measured {
  std::vector<StageTime> stages;
  std::optional<Latency> original_latency, optimized_latency;
  /// Bytes; of the models: what reading the file and running one sample on one thread adds at its peak.
  std::optional<int64_t> process_peak_memory, original_peak_memory, optimized_peak_memory;
};

struct CalibrationReport {
  std::string method;  ///< minmax, percentile, entropy, mse
  std::optional<double> percentile;
  std::string source;  ///< the data's path
  int64_t samples = 0;
  std::string key;     ///< of the statistics: content of model and data
  bool reused = false; ///< statistics that were saved before
};

struct GateResult {
  std::string name;            ///< as in the recipe: min_sqnr_db, …
  double limit = 0;
  std::optional<double> value; ///< empty where it was not measured: the gate is then not met
  bool passed = false;
  std::string message;         ///< one line: what was found, and where it is not met what to do
};

struct UnknownOperator {
  std::string op;  ///< with its domain
  int64_t count = 0;
};

/// One recipe of a search for one that meets the gates.
struct Attempt {
  std::string name;         ///< what it is, in a few words
  std::string changed;      ///< of the best one before it; empty for the first
  std::string failure;      ///< why nothing came of it; what follows is then empty
  std::optional<double> sqnr_db, metric_drop, size_ratio;
  std::optional<double> latency_ratio;
  std::vector<std::string> missed;  ///< gates that weren't met
  double seconds = 0;
};

struct SearchReport {
  std::vector<Attempt> attempts;  ///< in the order in which they were made
  size_t chosen = 0;              ///< the one that the rest of the report is of
  std::string ended;              ///< why the search went no further, and what the choice means
  bool by_measurement = false;    ///< latency or memory had a say: another run may choose otherwise
};

struct Report {
  std::string infopt_version;
  std::vector<std::string> command_line;
  std::string command;  ///< the subcommand: quantize, optimize, validate, …
  std::string target, device;
  std::optional<ModelFile> original, optimized;
  std::string recipe;   ///< the resolved recipe, canonical YAML
  std::optional<CalibrationReport> calibration;
  std::vector<PassReport> passes;
  std::vector<LayerReport> layers;  ///< in the graph's order
  std::vector<PrunedLayer> pruned;  ///< of every pruning pass, each in the graph's order
  std::optional<ModelCost> original_cost, optimized_cost;  ///< of both files
  std::vector<UnknownOperator> unknown_operators;  ///< passed through untouched
  std::vector<std::string> warnings;

  std::string compared_data;      ///< where the samples came from
  int64_t compared_samples = 0;
  std::vector<OutputReport> outputs;
  std::vector<Metric> metrics;
  std::vector<GateResult> gates;
  std::optional<SearchReport> search;  ///< where the recipe was searched for
  Measured measured;
};

// Figures that follow from the others; empty where those are missing.
struct MacShare {
  LayerForm form;
  int64_t macs = 0, layers = 0, weight_elements = 0;
  double share = 0;  ///< of all MACs
};
/// By form, in the order of LayerForm, those that occur; empty where no layer's MACs are known.
std::vector<MacShare> mac_shares(const Report& report);
/// Share of all MACs whose products are of integers.
std::optional<double> integer_mac_share(const Report& report);
/// Share of the weights of all listed operators that pruning took; empty where nothing is listed.
std::optional<double> removed_share(const Report& report);
std::optional<double> size_ratio(const Report& report);     ///< optimized to original, bytes
std::optional<double> latency_ratio(const Report& report);  ///< optimized to original, medians
std::optional<double> speedup(const Report& report);        ///< original to optimized, medians
std::optional<double> worst_sqnr_db(const Report& report);  ///< of any output
std::optional<double> worst_cosine(const Report& report);
/// True where every gate is met; also where there is none.
bool all_gates_passed(const Report& report);

}  // namespace infopt

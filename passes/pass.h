// A pass: one rewriting of the graph, with typed options and a contract. One file a pass, passes/<kind>/<stem>.cpp, which
// defines `infopt::PassDef pass_<stem>()`; CMake makes the table from the file names.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lib/ir/edit.h"
#include "lib/ir/graph.h"
#include "lib/report/report.h"
#include "passes/group.h"
#include "passes/profile.h"

namespace infopt {

class Calibration;

using OptionValue = std::variant<bool, int64_t, double, std::string, std::vector<std::string>>;

/// One option of a pass, as a recipe may set it. The default's type is the option's type.
struct OptionDef {
  std::string name, help;
  OptionValue otherwise;
  std::vector<std::string> choices = {};  ///< of a string, or of each of a list's strings; empty: any
  std::optional<double> least = {}, most = {};
};

class Options {
 public:
  void set(std::string name, OptionValue value);
  /// The value, or Error(Defect) where the pass asks for what it didn't declare.
  template <class T> const T& get(const std::string& name) const { return std::get<T>(find(name)); }
  bool flag(const std::string& name) const { return get<bool>(name); }
  int64_t integer(const std::string& name) const { return get<int64_t>(name); }
  double number(const std::string& name) const { return get<double>(name); }
  const std::string& text(const std::string& name) const { return get<std::string>(name); }
  const std::vector<std::string>& list(const std::string& name) const { return get<std::vector<std::string>>(name); }
  const std::vector<std::pair<std::string, OptionValue>>& all() const { return values_; }

 private:
  const OptionValue& find(const std::string& name) const;
  std::vector<std::pair<std::string, OptionValue>> values_;
};

enum class Contract {
  Exact,     ///< the same outputs to the bit
  Rounding,  ///< the same function, computed in another order
  Lossy,     ///< another function, close to the first
};

/// How far a long pass is: "3 of 40 layers rounded" is done 3, total 40, of "layers rounded".
using PassProgress = std::function<void(int64_t done, int64_t total, const std::string& of)>;

/// What a pass may use besides the graph.
struct PassContext {
  Model& model;
  const Profile& profile;
  const std::vector<GroupRule>& groups;
  /// Statistics of the calibration data over the present graph; null where the run has no data.
  Calibration* calibration = nullptr;
  /// How activation ranges are found: an observer's name and its options.
  std::string method = "minmax";
  double percentile = 99.99;
  int threads = 1;
  bool measure_layers = false;  ///< report each layer's noise, local and accumulated
  Report& report;          ///< the whole run's
  PassReport& pass_report; ///< this pass's part of it
  PassProgress progress = {};  ///< may be null

  void tell(int64_t done, int64_t total, const std::string& of) const {
    if (progress) progress(done, total, of);
  }
};

struct PassDef {
  std::string name, summary;
  Contract contract = Contract::Exact;
  std::vector<OptionDef> options;
  bool needs_calibration = false;
  int64_t needs_opset = 0;  ///< the default domain's least opset that what it writes needs; the pipeline upgrades first
  void (*run)(GraphEdit&, PassContext&, const Options&) = nullptr;
  int64_t (*opset_for)(const Graph&, const std::vector<GroupRule>&, const Options&) = nullptr;  ///< needs_opset where it depends on these; may be null
};

/// All passes, sorted by name.
const std::vector<PassDef>& all_passes();
const PassDef* find_pass(const std::string& name);

}  // namespace infopt

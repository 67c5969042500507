#include "recipes/task_metric.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/data/npz_writer.h"
#include "recipes/shell_command.h"

namespace infopt {
namespace {

size_t find_output(const EvalSpec& eval, const Graph& model) {
  if (eval.output.empty()) return 0;
  for (size_t i = 0; i < model.outputs().size(); ++i)
    if (model.value(model.outputs()[i]).name == eval.output) return i;
  throw Error(ErrorKind::Usage, "the recipe's eval.output '" + eval.output + "' is no output of the model");
}

/// The share of rows whose label is among the `best` largest scores along the last axis. Of equal scores the first counts.
class TopK : public TaskMetric {
 public:
  TopK(const EvalSpec& eval, size_t output, int64_t best) : name_(eval.metric), output_(output), best_(best) {}

  void add(const std::vector<Tensor>& original, const std::vector<Tensor>& optimized, const Tensor& label) override {
    const auto labels = to_vector<int64_t>(label);
    right_[0] += count(original[output_], labels);
    right_[1] += count(optimized[output_], labels);
    total_ += static_cast<int64_t>(labels.size());
  }

  Metric result() override {
    const auto total = static_cast<double>(std::max<int64_t>(1, total_));
    return {name_, static_cast<double>(right_[0]) / total, static_cast<double>(right_[1]) / total, true};
  }

 private:
  int64_t count(const Tensor& scores, const std::vector<int64_t>& labels) const {
    const auto rows = static_cast<int64_t>(labels.size());
    if (rows == 0 || scores.size() % rows != 0 || scores.size() == 0)
      throw Error(ErrorKind::Malformed, "scores of shape " + to_string(scores.shape()) + " don't go with " + std::to_string(rows) + " labels");
    const int64_t classes = scores.size() / rows;
    const auto values = to_vector<float>(scores);
    int64_t right = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t wanted = labels[static_cast<size_t>(r)];
      if (wanted < 0 || wanted >= classes) throw Error(ErrorKind::Malformed, "a label of " + std::to_string(wanted) + " where there are " + std::to_string(classes) + " scores");
      const float* row = values.data() + r * classes;
      int64_t better = 0;
      for (int64_t c = 0; c < classes; ++c) better += row[c] > row[wanted] || (row[c] == row[wanted] && c < wanted);
      right += better < best_;
    }
    return right;
  }

  std::string name_;
  size_t output_;
  int64_t best_, right_[2] = {0, 0}, total_ = 0;
};

class CommandMetric : public TaskMetric {
 public:
  CommandMetric(const EvalSpec& eval, const Graph& model, std::string data_path) : eval_(eval), data_path_(std::move(data_path)) {
    std::string pattern = (std::filesystem::temp_directory_path() / "infopt-eval-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw Error(ErrorKind::Io, "no temporary folder for the metric's outputs", pattern);
    folder_ = pattern;
    for (ValueId id : model.outputs()) names_.push_back(model.value(id).name);
    for (int m : {0, 1}) writers_[m] = std::make_unique<NpzWriter>(path(m));
  }
  ~CommandMetric() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  void add(const std::vector<Tensor>& original, const std::vector<Tensor>& optimized, const Tensor&) override {
    for (size_t i = 0; i < names_.size(); ++i) {
      writers_[0]->append(names_[i], original[i]);
      writers_[1]->append(names_[i], optimized[i]);
    }
  }

  Metric result() override {
    double value[2];
    for (int m : {0, 1}) {
      writers_[m]->commit();
      value[m] = run_number_command(replaced(replaced(eval_.command, "{outputs}", shell_word(path(m))), "{data}", shell_word(data_path_)), "the metric's");
    }
    return {eval_.name.empty() ? "command" : eval_.name, value[0], value[1], eval_.higher_is_better};
  }

 private:
  std::string path(int m) const { return folder_ + (m == 0 ? "/original.npz" : "/optimized.npz"); }
  EvalSpec eval_;
  std::string data_path_, folder_;
  std::vector<std::string> names_;
  std::unique_ptr<NpzWriter> writers_[2];
};

}  // namespace

std::unique_ptr<TaskMetric> make_metric(const EvalSpec& eval, const Graph& model, const DataSet& data, const std::string& data_path) {
  if (eval.metric.empty()) return nullptr;
  if (eval.metric == "command") return std::make_unique<CommandMetric>(eval, model, data_path);
  if (!data.has_label()) throw Error(ErrorKind::Malformed, "the evaluation data has no labels, and the recipe's metric " + eval.metric + " needs them");
  return std::make_unique<TopK>(eval, find_output(eval, model), eval.metric == "top5" ? 5 : 1);
}

}  // namespace infopt

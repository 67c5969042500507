#include "lib/data/test_data.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/data/row_source.h"
#include "lib/onnx/tensor_file.h"

namespace infopt {
namespace {

namespace fs = std::filesystem;

/// K of prefix + "K" + suffix.
bool number_in(const std::string& name, std::string_view prefix, std::string_view suffix, size_t& k) {
  if (name.size() <= prefix.size() + suffix.size() || !name.starts_with(prefix) || !name.ends_with(suffix)) return false;
  const char* end = name.data() + name.size() - suffix.size();
  const auto [stop, status] = std::from_chars(name.data() + prefix.size(), end, k);
  return status == std::errc{} && stop == end;
}

TestDataSet read_set(const fs::path& folder) {
  TestDataSet set{.folder = folder.string()};
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    size_t k = 0;
    if (number_in(name, "input_", ".pb", k)) set.inputs[k] = entry.path().string();
    if (number_in(name, "output_", ".pb", k)) set.outputs[k] = entry.path().string();
  }
  return set;
}

class PbDataSet final : public DataSet {
 public:
  PbDataSet(std::string path, std::vector<TestDataSet> sets, const DataOptions& options)
      : path_(std::move(path)), sets_(std::move(sets)), options_(options) {
    if (options_.limit > 0 && static_cast<size_t>(options_.limit) < sets_.size()) sets_.resize(static_cast<size_t>(options_.limit));
    for (const TestDataSet& set : sets_) check(set);
    for (const auto& [k, file] : sets_.front().inputs) names_.push_back(name_of_input(k));
  }

  int64_t size() const override { return static_cast<int64_t>(sets_.size()); }
  const std::vector<std::string>& names() const override { return names_; }
  const std::vector<std::string>& unused() const override { return unused_; }
  bool has_label() const override { return false; }

  bool next(Sample& sample) override {
    if (next_ == sets_.size()) return false;
    const TestDataSet& set = sets_[next_];
    sample = {.index = static_cast<int64_t>(next_++), .where = set.folder};
    for (const auto& [k, file] : set.inputs) {
      Tensor tensor = read_tensor_file(file).tensor;
      if (k == set.inputs.begin()->first && tensor.rank() > 0) sample.valid_rows = tensor.dim(0);
      sample.inputs[name_of_input(k)] = std::move(tensor);
    }
    return true;
  }
  void reset() override { next_ = 0; }

  std::string content_key() const override {
    std::vector<std::string> files;
    for (const TestDataSet& set : sets_)
      for (const auto& [k, file] : set.inputs) files.push_back(file);
    return key_of_files(path_, files, options_);
  }

 private:
  std::string name_of_input(size_t k) const {
    return options_.input_names.empty() ? "input_" + std::to_string(k) : options_.input_names[k];
  }

  void check(const TestDataSet& set) const {
    const auto& inputs = options_.input_names;
    for (const auto& [k, file] : set.inputs)
      if (!inputs.empty() && k >= inputs.size())
        throw Error(ErrorKind::Malformed, "is one input too many: the model has " + std::to_string(inputs.size()), file);
    for (const std::string& name : options_.required) {
      const size_t k = static_cast<size_t>(std::find(inputs.begin(), inputs.end(), name) - inputs.begin());
      if (!set.inputs.contains(k))
        throw Error(ErrorKind::Malformed, "has no input_" + std::to_string(k) + ".pb, the model's input '" + name + "'", set.folder);
    }
  }

  std::string path_;
  std::vector<TestDataSet> sets_;
  DataOptions options_;
  std::vector<std::string> names_, unused_;
  size_t next_ = 0;
};

}  // namespace

std::vector<TestDataSet> find_test_data(const std::string& path) {
  std::map<size_t, fs::path> folders;
  for (const auto& entry : fs::directory_iterator(path)) {
    size_t k = 0;
    if (entry.is_directory() && number_in(entry.path().filename().string(), "test_data_set_", "", k)) folders[k] = entry.path();
  }
  std::vector<TestDataSet> sets;
  for (const auto& [k, folder] : folders) sets.push_back(read_set(folder));
  if (!sets.empty()) return sets;
  TestDataSet set = read_set(path);
  if (!set.inputs.empty() || !set.outputs.empty()) sets.push_back(std::move(set));
  return sets;
}

std::unique_ptr<DataSet> open_test_data(const std::string& path, std::vector<TestDataSet> sets, const DataOptions& options) {
  return std::make_unique<PbDataSet>(path, std::move(sets), options);
}

}  // namespace infopt

#include <algorithm>

#include "lib/base/error.h"
#include "lib/data/row_source.h"

namespace infopt {
namespace {

std::unique_ptr<RowSource> open_rows(const std::string& path, const DataOptions& options) {
  return path.ends_with(".npz") ? npz_rows(path, options) : npy_rows(path, options);
}

/// Holds one file open at a time.
class FileListRows final : public RowSource {
 public:
  FileListRows(std::vector<std::string> paths, const DataOptions& options) : paths_(std::move(paths)), options_(options) {
    // A lone .npy file among several is named after the model's input, never after its own file.
    if (options_.input_names.empty() && paths_.front().ends_with(".npy")) options_.input_names = {"x"};
    for (const std::string& path : paths_) {
      const auto file = open_rows(path, options_);
      if (path == paths_.front()) {
        names_ = file->names();
        unused_ = file->unused();
        has_label_ = file->has_label();
        whole_ = file->whole();
      }
      check_same(*file, path);
      rows_ += file->rows();
    }
  }

  const std::vector<std::string>& names() const override { return names_; }
  const std::vector<std::string>& unused() const override { return unused_; }
  bool has_label() const override { return has_label_; }
  int64_t rows() const override { return rows_; }
  bool whole() const override { return whole_; }
  bool is_shared(const std::string& name) const override { return current_ && current_->is_shared(name); }

  bool read(int64_t count, Sample& sample) override {
    while (true) {
      if (current_ && current_->read(count, sample)) return true;
      if (next_ == paths_.size()) return false;
      current_.reset();
      current_ = open_rows(paths_[next_++], options_);
    }
  }
  void rewind() override {
    current_.reset();
    next_ = 0;
  }

 private:
  void check_same(const RowSource& file, const std::string& path) const {
    std::vector<std::string> a = names_, b = file.names();
    std::sort(a.begin(), a.end());
    std::sort(b.begin(), b.end());
    const auto only_in = [](const auto& x, const auto& y) {
      return *std::find_if(x.begin(), x.end(), [&](const std::string& n) { return !std::binary_search(y.begin(), y.end(), n); });
    };
    if (!std::includes(b.begin(), b.end(), a.begin(), a.end()))
      throw Error(ErrorKind::Malformed, "has no array '" + only_in(a, b) + "', which " + paths_.front() + " has", path);
    if (a != b) throw Error(ErrorKind::Malformed, "has an array '" + only_in(b, a) + "', which " + paths_.front() + " hasn't", path);
    if (file.whole() != whole_)
      throw Error(ErrorKind::Malformed, std::string("holds ") + (whole_ ? "rows of a batch" : "whole inputs") + ", unlike " + paths_.front(), path);
    if (file.has_label() != has_label_)
      throw Error(ErrorKind::Malformed, std::string(has_label_ ? "has no" : "has") + " labels, unlike " + paths_.front(), path);
  }

  std::vector<std::string> paths_;
  DataOptions options_;
  std::vector<std::string> names_, unused_;
  bool has_label_ = false, whole_ = false;
  int64_t rows_ = 0;
  std::unique_ptr<RowSource> current_;
  size_t next_ = 0;
};

}  // namespace

std::unique_ptr<RowSource> file_list_rows(std::vector<std::string> paths, const DataOptions& options) {
  return std::make_unique<FileListRows>(std::move(paths), options);
}

}  // namespace infopt

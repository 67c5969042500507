// What every kind of data cut into rows of the first axis has in common.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "lib/data/dataset.h"

namespace infopt {

class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual const std::vector<std::string>& names() const = 0;
  virtual const std::vector<std::string>& unused() const = 0;
  virtual bool has_label() const = 0;
  virtual int64_t rows() const = 0;
  /// True for inputs that aren't cut into rows.
  virtual bool is_shared(const std::string& name) const = 0;
  /// True where a row is a whole sample and rows can't be joined.
  virtual bool whole() const = 0;
  /// The next rows, at least 1 and at most `count`, into inputs, label, valid_rows and where. False after the last one.
  virtual bool read(int64_t count, Sample& sample) = 0;
  virtual void rewind() = 0;
};

/// What each array of a set is to the model.
struct Role {
  enum class Kind { Input, Shared, Label, Unused };
  Kind kind = Kind::Unused;
  std::string input;  ///< the name of the model's input
};
/// Roles of the arrays called `names`, by the rules of DataOptions. Throws Error(Malformed), naming both sides, where none is an input or a
/// required one is missing.
std::vector<Role> assign_roles(const std::vector<std::string>& names, const DataOptions& options, const std::string& where);

/// The name among `names` that holds the labels by options.label; empty where there is none.
std::string find_label(const std::vector<std::string>& names, const DataOptions& options);

std::unique_ptr<RowSource> npz_rows(const std::string& path, const DataOptions& options);
std::unique_ptr<RowSource> npy_rows(const std::string& path, const DataOptions& options);
/// `.npy` files, each one array of one set, named by its stem.
std::unique_ptr<RowSource> npy_set_rows(const std::vector<std::string>& paths, const DataOptions& options, const std::string& where);
/// `.npz` or `.npy` files one after the other. All must have the same inputs.
std::unique_ptr<RowSource> file_list_rows(std::vector<std::string> paths, const DataOptions& options);

/// Samples of rows_per_sample rows, gathered across calls of `read` and padded at the end. `root` and `files` are what the key is of.
std::unique_ptr<DataSet> make_row_dataset(std::unique_ptr<RowSource> rows, DataOptions options, std::string root,
                                          std::vector<std::string> files);

/// The key of DataSet::content_key: of the bytes of `files`, their names below `root` where that is a folder, and the options.
std::string key_of_files(const std::string& root, const std::vector<std::string>& files, const DataOptions& options);

}  // namespace infopt

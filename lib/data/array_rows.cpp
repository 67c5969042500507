// Arrays read in step, each by a stream of its own: the members of an .npz, or .npy files.
#include <algorithm>
#include <filesystem>
#include <map>

#include "lib/base/error.h"
#include "lib/data/npy.h"
#include "lib/data/row_source.h"
#include "lib/data/zip_reader.h"

namespace infopt {
namespace {

/// Rows of no bytes cost nothing to claim: this keeps sums of them far from overflow.
constexpr int64_t kMaxRows = int64_t{1} << 40;

/// What the first axis of an input's array is.
enum class Cut {
  Rows,     ///< rows of the batch
  Stacked,  ///< whole inputs, each a batch of one
  Whole,    ///< whole inputs
  Shared,   ///< the input's own: all of the array goes with every sample
};

bool could_be(const Shape& shape, const Shape& declared) {
  return std::equal(shape.begin(), shape.end(), declared.begin(), declared.end(), [](int64_t a, int64_t b) { return b < 0 || a == b; });
}

/// See DataOptions::shapes.
Cut cut_of(const Shape& shape, const std::string& input, const DataOptions& options) {
  if (shape.empty()) return Cut::Shared;
  const auto found = options.shapes.find(input);
  if (found == options.shapes.end()) return Cut::Rows;
  const Shape& declared = found->second;
  if (shape.size() == declared.size() + 1) return !declared.empty() && shape[1] == 1 && (declared[0] == -1 || declared[0] == 1 || declared[0] == options.rows_per_sample) ? Cut::Stacked : Cut::Whole;
  const bool rows = declared.empty() || declared[0] < 0 || declared[0] == options.rows_per_sample;
  return rows || !could_be(shape, declared) ? Cut::Rows : Cut::Shared;
}

Tensor without_axis(const Tensor& t, size_t axis) {
  Shape shape = t.shape();
  shape.erase(shape.begin() + static_cast<int64_t>(axis));
  return t.reshaped(shape);
}

class ArrayRows final : public RowSource {
 public:
  ArrayRows(std::string where, const DataOptions& options) : where_(std::move(where)), options_(options) {}

  void add(const Role& role, ArrayReader reader) {
    if (role.kind != Role::Kind::Label && reader.header().dtype == DType::String)
      throw Error(ErrorKind::Malformed, "holds strings; only labels may", reader.where());
    if (role.kind != Role::Kind::Label) names_.push_back(role.input);
    const Cut cut = role.kind == Role::Kind::Shared ? Cut::Shared : role.kind == Role::Kind::Label ? Cut::Rows : cut_of(reader.header().shape, role.input, options_);
    if (cut == Cut::Shared) {
      shared_[role.input] = reader.read(reader.rows());
      return;
    }
    if (reader.header().shape.empty()) throw Error(ErrorKind::Malformed, "is a scalar; labels have one row a sample", reader.where());
    if (!columns_.empty() && reader.rows() != columns_.front().reader.rows())
      throw Error(ErrorKind::Malformed,
                  "has " + std::to_string(reader.rows()) + " rows, and " + columns_.front().reader.where() + " has " +
                      std::to_string(columns_.front().reader.rows()) + ": the first axis must be the samples of all arrays; whole inputs get one more, as np.stack makes it",
                  reader.where());
    if (reader.rows() == 0)
      throw Error(ErrorKind::Malformed, "has no samples: its shape is " + to_string(reader.header().shape), reader.where());
    if (reader.rows() > kMaxRows) throw Error(ErrorKind::Limit, "has more than 2^40 samples", reader.where());
    columns_.push_back({role, cut, std::move(reader)});
  }
  /// When all arrays are in.
  void check_cuts() const {
    if (!whole() || options_.rows_per_sample == 1) return;
    bool batch = false;
    for (const Column& c : columns_) batch = batch || (c.cut == Cut::Whole && c.reader.header().shape.size() > 1 && c.reader.header().shape[1] == options_.rows_per_sample);
    for (const Column& c : columns_)
      if (c.role.kind == Role::Kind::Input && !(batch && c.cut == Cut::Whole))
        throw Error(ErrorKind::Malformed, "has shape " + to_string(c.reader.header().shape) + (c.cut == Cut::Whole ? ": each of its rows is a whole input, and they can't be joined to a batch of " : ": beside arrays of whole inputs its rows can't be joined to a batch of ") + std::to_string(options_.rows_per_sample),
                    c.reader.where());
  }
  void add_unused(std::string name) { unused_.push_back(std::move(name)); }

  const std::vector<std::string>& names() const override { return names_; }
  const std::vector<std::string>& unused() const override { return unused_; }
  bool has_label() const override {
    return std::any_of(columns_.begin(), columns_.end(), [](const Column& c) { return c.role.kind == Role::Kind::Label; });
  }
  int64_t rows() const override { return columns_.empty() ? 1 : columns_.front().reader.rows(); }
  bool is_shared(const std::string& name) const override { return shared_.contains(name); }
  bool whole() const override {
    return std::any_of(columns_.begin(), columns_.end(), [](const Column& c) { return c.cut == Cut::Whole; });
  }

  bool read(int64_t count, Sample& sample) override {
    count = std::min(count, rows() - next_);
    if (count <= 0) return false;
    sample.inputs = shared_;
    sample.label = Tensor();
    for (Column& c : columns_) {
      Tensor rows = c.reader.read(count);
      if (c.role.kind == Role::Kind::Label) sample.label = whole() && options_.rows_per_sample > 1 && rows.rank() > 1 && rows.dim(1) == options_.rows_per_sample ? without_axis(rows, 0) : rows;
      else sample.inputs[c.role.input] = c.cut == Cut::Stacked ? without_axis(rows, 1) : c.cut == Cut::Whole ? without_axis(rows, 0) : rows;
    }
    sample.valid_rows = count;
    sample.where = where_;
    next_ += count;
    return true;
  }
  void rewind() override {
    next_ = 0;
    for (Column& c : columns_) c.reader.rewind();
  }

 private:
  struct Column {
    Role role;
    Cut cut;
    ArrayReader reader;
  };

  std::string where_;
  DataOptions options_;
  std::vector<Column> columns_;
  std::map<std::string, Tensor> shared_;
  std::vector<std::string> names_, unused_;
  int64_t next_ = 0;
};

std::string stem_of(const std::string& path) { return std::filesystem::path(path).stem().string(); }

ArrayReader open_npy(const std::string& path) {
  auto file = std::make_shared<InputFile>(path);
  const uint64_t size = file->size();
  return {file_source(std::move(file), 0, size), path};
}

}  // namespace

std::unique_ptr<RowSource> npz_rows(const std::string& path, const DataOptions& options) {
  constexpr std::string_view kSuffix = ".npy";
  const ZipReader zip(path);
  std::vector<std::string> names;
  std::vector<const ZipMember*> members;
  for (const ZipMember& m : zip.members()) {
    if (!m.name.ends_with(kSuffix)) continue;
    names.push_back(m.name.substr(0, m.name.size() - kSuffix.size()));
    members.push_back(&m);
  }
  if (names.empty()) throw Error(ErrorKind::Malformed, "has no arrays", path);
  const std::vector<Role> roles = assign_roles(names, options, path);
  auto rows = std::make_unique<ArrayRows>(path, options);
  for (size_t i = 0; i < names.size(); ++i) {
    if (roles[i].kind == Role::Kind::Unused) rows->add_unused(names[i]);
    else rows->add(roles[i], ArrayReader(zip.open(*members[i]), path + ", array '" + names[i] + "'"));
  }
  rows->check_cuts();
  return rows;
}

std::unique_ptr<RowSource> npy_rows(const std::string& path, const DataOptions& options) {
  const std::string stem = stem_of(path);
  const auto& inputs = options.input_names;
  std::string name = stem;
  if (!inputs.empty() && std::find(inputs.begin(), inputs.end(), stem) == inputs.end()) name = inputs.front();
  for (const std::string& required : options.required)
    if (required != name)
      throw Error(ErrorKind::Malformed, "is one array; the model's input '" + required + "' is missing (use a .npz file)", path);
  auto rows = std::make_unique<ArrayRows>(path, options);
  rows->add({Role::Kind::Input, name}, open_npy(path));
  rows->check_cuts();
  return rows;
}

std::unique_ptr<RowSource> npy_set_rows(const std::vector<std::string>& paths, const DataOptions& options, const std::string& where) {
  std::vector<std::string> names;
  for (const std::string& path : paths) names.push_back(stem_of(path));
  const std::vector<Role> roles = assign_roles(names, options, where);
  auto rows = std::make_unique<ArrayRows>(where, options);
  for (size_t i = 0; i < paths.size(); ++i) {
    if (roles[i].kind == Role::Kind::Unused) rows->add_unused(names[i]);
    else rows->add(roles[i], open_npy(paths[i]));
  }
  rows->check_cuts();
  return rows;
}

}  // namespace infopt

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/hash.h"
#include "lib/data/byte_source.h"
#include "lib/data/row_source.h"

namespace infopt {
namespace {

/// The tensors one after the other along the first axis; all but that axis must agree.
Tensor concatenate(const std::vector<Tensor>& parts, const std::string& where) {
  if (parts.size() == 1) return parts.front();
  Shape shape = parts.front().shape();
  shape[0] = 0;
  for (const Tensor& t : parts) {
    Shape other = t.shape();
    if (t.dtype() != parts.front().dtype() || other.size() != shape.size() ||
        !std::equal(other.begin() + 1, other.end(), shape.begin() + 1))
      throw Error(ErrorKind::Malformed,
                  "rows of one batch differ: " + std::string(name_of(parts.front().dtype())) + to_string(parts.front().shape()) + " and " +
                      std::string(name_of(t.dtype())) + to_string(other),
                  where);
    shape[0] += other[0];
  }
  Tensor out(parts.front().dtype(), shape);
  if (out.dtype() == DType::String) {
    auto to = out.mutable_strings().begin();
    for (const Tensor& t : parts) to = std::copy(t.strings().begin(), t.strings().end(), to);
    return out;
  }
  std::byte* to = out.mutable_raw();
  for (const Tensor& t : parts) {
    if (t.bytes() > 0) std::memcpy(to, t.raw(), t.bytes());
    to += t.bytes();
  }
  return out;
}

bool same(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && (a.bytes() == 0 || std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
}

class RowDataSet final : public DataSet {
 public:
  RowDataSet(std::unique_ptr<RowSource> rows, DataOptions options, std::string root, std::vector<std::string> files)
      : rows_(std::move(rows)), options_(std::move(options)), root_(std::move(root)), files_(std::move(files)) {
    if (options_.rows_per_sample < 1 || options_.limit < 0)
      throw Error(ErrorKind::Usage, "the batch and the number of samples must be positive");
    at_once_ = rows_->whole() ? 1 : options_.rows_per_sample;
    size_ = rows_->rows() / at_once_ + (rows_->rows() % at_once_ != 0);
    if (options_.limit > 0) size_ = std::min(size_, options_.limit);
    if (size_ == 0) throw Error(ErrorKind::Malformed, "has no samples", root_);
  }

  int64_t size() const override { return size_; }
  const std::vector<std::string>& names() const override { return rows_->names(); }
  const std::vector<std::string>& unused() const override { return rows_->unused(); }
  bool has_label() const override { return rows_->has_label(); }

  bool next(Sample& sample) override {
    if (next_ == size_) return false;
    std::vector<Sample> parts;
    int64_t rows = 0;
    while (rows < at_once_) {
      Sample part;
      if (!rows_->read(at_once_ - rows, part)) break;
      rows += part.valid_rows;
      parts.push_back(std::move(part));
    }
    if (parts.empty()) throw Error(ErrorKind::Malformed, "has fewer samples than it said", root_);
    sample = std::move(parts.front());
    sample.where += ", sample " + std::to_string(next_);
    sample.index = next_++;
    sample.valid_rows = rows;
    join(sample, parts);
    if (rows_->whole()) sample.valid_rows = options_.rows_per_sample;
    return true;
  }
  void reset() override {
    next_ = 0;
    rows_->rewind();
  }
  std::string content_key() const override { return key_of_files(root_, files_, options_); }

 private:
  /// `sample` holds the tensors of the first part; appends those of the others and the padding.
  void join(Sample& sample, const std::vector<Sample>& parts) const {
    const int64_t padding = at_once_ - sample.valid_rows;
    if (parts.size() == 1 && padding == 0) return;
    const auto joined = [&](const Tensor& first, auto tensor_of, const std::string& where) {
      std::vector<Tensor> pieces{first};
      for (size_t i = 1; i < parts.size(); ++i) pieces.push_back(tensor_of(parts[i]));
      if (padding > 0) pieces.insert(pieces.end(), static_cast<size_t>(padding), last_row(pieces.back()));
      return concatenate(pieces, where);
    };
    for (auto& [name, tensor] : sample.inputs) {
      const std::string where = sample.where + ", input '" + name + "'";
      const auto of_part = [&n = name](const Sample& s) -> const Tensor& { return s.inputs.at(n); };
      if (!rows_->is_shared(name)) {
        tensor = joined(tensor, of_part, where);
        continue;
      }
      for (size_t i = 1; i < parts.size(); ++i)
        if (!same(tensor, of_part(parts[i])))
          throw Error(ErrorKind::Malformed, "differs within one batch, and is the same for all samples of it", where);
    }
    if (sample.label.defined())
      sample.label = joined(
          sample.label, [](const Sample& s) -> const Tensor& { return s.label; }, sample.where + ", label");
  }

  static Tensor last_row(const Tensor& t) {
    if (t.dtype() != DType::String) return t.slice_front(t.dim(0) - 1, 1);
    Shape shape = t.shape();
    shape[0] = 1;
    Tensor row(DType::String, shape);
    std::copy(t.strings().end() - row.size(), t.strings().end(), row.mutable_strings().begin());
    return row;
  }

  std::unique_ptr<RowSource> rows_;
  DataOptions options_;
  std::string root_;
  std::vector<std::string> files_;
  int64_t size_ = 0, next_ = 0;
  int64_t at_once_ = 1;  ///< of the source's rows
};

void hash_file(Hasher& hasher, const std::string& path) {
  const InputFile file(path);
  std::vector<char> buffer(1 << 18);
  hasher.number(static_cast<int64_t>(file.size()));
  for (uint64_t at = 0; at < file.size();) {
    const size_t n = static_cast<size_t>(std::min<uint64_t>(buffer.size(), file.size() - at));
    file.read_at(at, buffer.data(), n);
    hasher.bytes(buffer.data(), n);
    at += n;
  }
}

void hash_list(Hasher& hasher, const std::vector<std::string>& list) {
  hasher.number(static_cast<int64_t>(list.size()));
  for (const std::string& s : list) hasher.text(s);
}

void hash_image(Hasher& hasher, const ImageOptions& o) {
  for (int64_t n :
       {static_cast<int64_t>(o.resize), o.resize_short, o.resize_width, o.resize_height, static_cast<int64_t>(o.filter), o.crop_width,
        o.crop_height, static_cast<int64_t>(o.layout), static_cast<int64_t>(o.order), static_cast<int64_t>(o.dtype)})
    hasher.number(n);
  hasher.bytes(&o.scale, sizeof o.scale);
  for (const auto* list : {&o.mean, &o.std}) {
    hasher.number(static_cast<int64_t>(list->size()));
    hasher.bytes(list->data(), list->size() * sizeof(float));
  }
}

}  // namespace

std::unique_ptr<DataSet> make_row_dataset(std::unique_ptr<RowSource> rows, DataOptions options, std::string root,
                                          std::vector<std::string> files) {
  return std::make_unique<RowDataSet>(std::move(rows), std::move(options), std::move(root), std::move(files));
}

std::string key_of_files(const std::string& root, const std::vector<std::string>& files, const DataOptions& options) {
  Hasher hasher;
  hasher.text("data 2");
  hash_list(hasher, options.input_names);
  hash_list(hasher, options.shared);
  hasher.text(options.label).number(options.rows_per_sample).number(options.limit);
  for (const auto& [name, shape] : options.shapes) {
    hasher.text(name).number(static_cast<int64_t>(shape.size()));
    for (int64_t d : shape) hasher.number(d);
  }
  hash_image(hasher, options.image);
  const bool folder = std::filesystem::is_directory(root);
  for (const std::string& file : files) {
    hasher.text(folder ? std::filesystem::path(file).lexically_relative(root).generic_string() : std::string());
    hash_file(hasher, file);
  }
  return hasher.hex();
}

}  // namespace infopt

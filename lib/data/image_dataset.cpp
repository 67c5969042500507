#include "lib/data/image_dataset.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <set>

#include "lib/base/atomic_file.h"
#include "lib/base/error.h"

namespace infopt {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFile = size_t{1} << 30;

bool is_image(const fs::path& path) {
  std::string suffix = path.extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return suffix == ".jpg" || suffix == ".jpeg" || suffix == ".png";
}

std::vector<std::string> sorted_entries(const fs::path& folder, bool (*wanted)(const fs::directory_entry&)) {
  std::vector<std::string> paths;
  for (const auto& entry : fs::directory_iterator(folder))
    if (wanted(entry)) paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  return paths;
}

bool image_file(const fs::directory_entry& e) { return e.is_regular_file() && is_image(e.path()); }
bool visible_folder(const fs::directory_entry& e) { return e.is_directory() && !e.path().filename().string().starts_with('.'); }

struct Line {
  std::string file, label, where;
};

std::string trimmed(std::string_view s) {
  const size_t begin = s.find_first_not_of(" \t\r"), end = s.find_last_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  s = s.substr(begin, end - begin + 1);
  if (s.size() >= 2 && s.front() == '"' && s.back() == '"') s = s.substr(1, s.size() - 2);
  return std::string(s);
}

std::vector<Line> read_csv(const std::string& path) {
  std::string text = read_file(path);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  std::vector<Line> lines;
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    const std::string where = path + ":" + std::to_string(++number);
    if (trimmed(line).empty()) continue;
    const size_t comma = line.rfind(',');
    if (comma == std::string_view::npos) throw Error(ErrorKind::Malformed, "isn't a line of \"file,label\"", where);
    Line l{trimmed(line.substr(0, comma)), trimmed(line.substr(comma + 1)), where};
    if (lines.empty() && number == 1 && l.file == "file" && l.label == "label") continue;
    if (l.file.empty() || l.label.empty()) throw Error(ErrorKind::Malformed, "has no file or no label", where);
    lines.push_back(std::move(l));
  }
  return lines;
}

bool parse_class(const std::string& text, int64_t& value) {
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  return status == std::errc{} && end == text.data() + text.size() && value >= 0;
}

std::vector<LabelledImage> from_csv(const std::string& csv, const fs::path& base) {
  const std::vector<Line> lines = read_csv(csv);
  int64_t value = 0;
  const bool numbered = std::all_of(lines.begin(), lines.end(), [&](const Line& l) { return parse_class(l.label, value); });
  std::set<std::string> classes;
  for (const Line& l : lines) classes.insert(l.label);
  std::vector<LabelledImage> images;
  for (const Line& l : lines) {
    if (numbered) parse_class(l.label, value);
    else value = std::distance(classes.begin(), classes.find(l.label));
    const std::string path = (base / l.file).string();
    if (!fs::is_regular_file(path)) throw Error(ErrorKind::Io, "names an image that isn't there: " + path, l.where);
    images.push_back({path, value});
  }
  if (images.empty()) throw Error(ErrorKind::Malformed, "has no images", csv);
  return images;
}

class ImageRows final : public RowSource {
 public:
  ImageRows(std::vector<LabelledImage> images, const DataOptions& options) : images_(std::move(images)), image_(options.image) {
    const auto& inputs = options.input_names;
    names_.push_back(!image_.input.empty() ? image_.input : inputs.empty() ? "x" : inputs.front());
    if (!inputs.empty() && std::find(inputs.begin(), inputs.end(), names_.front()) == inputs.end())
      throw Error(ErrorKind::Usage, "the model has no input '" + names_.front() + "' for the images", "image preprocessing");
    for (const std::string& name : options.required)
      if (name != names_.front())
        throw Error(ErrorKind::Malformed, "images are one input, and the model needs '" + name + "' too", images_.front().path);
  }

  const std::vector<std::string>& names() const override { return names_; }
  const std::vector<std::string>& unused() const override { return unused_; }
  bool has_label() const override { return images_.front().label >= 0; }
  int64_t rows() const override { return static_cast<int64_t>(images_.size()); }
  bool is_shared(const std::string&) const override { return false; }
  bool whole() const override { return false; }

  bool read(int64_t, Sample& sample) override {
    if (next_ == images_.size()) return false;
    const LabelledImage& file = images_[next_++];
    sample.inputs = {{names_.front(), preprocess(decode_image(read_file(file.path, kMaxFile), file.path), image_, file.path)}};
    sample.label = has_label() ? Tensor::of<int64_t>({1}, {file.label}) : Tensor();
    sample.valid_rows = 1;
    sample.where = file.path;
    return true;
  }
  void rewind() override { next_ = 0; }

 private:
  std::vector<LabelledImage> images_;
  ImageOptions image_;
  std::vector<std::string> names_, unused_;
  size_t next_ = 0;
};

}  // namespace

std::vector<LabelledImage> list_images(const std::string& path, const DataOptions& options) {
  const bool folder = fs::is_directory(path);
  if (!options.image.labels.empty())
    return from_csv(options.image.labels, folder ? fs::path(path) : fs::path(options.image.labels).parent_path());
  if (!folder) return from_csv(path, fs::path(path).parent_path());
  const fs::path csv = fs::path(path) / "labels.csv";
  if (fs::is_regular_file(csv)) return from_csv(csv.string(), path);
  std::vector<LabelledImage> images;
  int64_t label = 0;
  for (const std::string& sub : sorted_entries(path, visible_folder)) {
    for (std::string& file : sorted_entries(sub, image_file)) images.push_back({std::move(file), label});
    ++label;
  }
  std::vector<std::string> loose = sorted_entries(path, image_file);
  if (!loose.empty() && !images.empty()) throw Error(ErrorKind::Malformed, "has images both in itself and in its subfolders", path);
  for (std::string& file : loose) images.push_back({std::move(file), -1});
  return images;
}

std::unique_ptr<RowSource> image_rows(std::vector<LabelledImage> images, const DataOptions& options) {
  return std::make_unique<ImageRows>(std::move(images), options);
}

}  // namespace infopt

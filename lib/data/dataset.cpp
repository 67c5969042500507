#include "lib/data/dataset.h"

#include <algorithm>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/finite.h"
#include "lib/data/image_dataset.h"
#include "lib/data/row_source.h"
#include "lib/data/test_data.h"

namespace infopt {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> files_ending(const std::string& folder, const std::string& suffix) {
  std::vector<std::string> paths;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().extension() == suffix) paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// Every file is named after one of the inputs or the label, and at least one after an input.
bool is_exploded(const std::vector<std::string>& paths, const DataOptions& options) {
  std::vector<std::string> stems;
  for (const std::string& path : paths) stems.push_back(fs::path(path).stem().string());
  const std::string label = find_label(stems, options);
  const auto is_input = [&](const std::string& s) {
    return std::find(options.input_names.begin(), options.input_names.end(), s) != options.input_names.end();
  };
  return std::any_of(stems.begin(), stems.end(), is_input) &&
         std::all_of(stems.begin(), stems.end(), [&](const std::string& s) { return is_input(s) || s == label; });
}

std::unique_ptr<DataSet> open_images(const std::string& path, const DataOptions& options) {
  std::vector<LabelledImage> images = list_images(path, options);
  if (images.empty())
    throw Error(ErrorKind::Malformed, "has no data: .npz, .npy, .jpg, .jpeg or .png files, or test_data_set_* folders, were expected",
                path);
  std::vector<std::string> files;
  for (const LabelledImage& image : images) files.push_back(image.path);
  return make_row_dataset(image_rows(std::move(images), options), options, path, std::move(files));
}

std::unique_ptr<DataSet> open_folder(const std::string& path, const DataOptions& options) {
  if (!options.image.labels.empty()) return open_images(path, options);
  std::vector<TestDataSet> sets = find_test_data(path);
  if (!sets.empty()) return open_test_data(path, std::move(sets), options);
  std::vector<std::string> npz = files_ending(path, ".npz"), npy = files_ending(path, ".npy");
  if (!npz.empty() && !npy.empty()) throw Error(ErrorKind::Malformed, "has both .npz and .npy files; which are the data?", path);
  if (!npz.empty()) return make_row_dataset(file_list_rows(npz, options), options, path, npz);
  if (npy.empty()) return open_images(path, options);
  auto rows = is_exploded(npy, options) ? npy_set_rows(npy, options, path) : file_list_rows(npy, options);
  return make_row_dataset(std::move(rows), options, path, npy);
}

}  // namespace

std::unique_ptr<DataSet> open_dataset(const std::string& path, const DataOptions& options) {
  try {
    if (!fs::exists(path)) throw Error(ErrorKind::Io, "isn't there", path);
    if (fs::is_directory(path)) return open_folder(path, options);
    if (path.ends_with(".npz")) return make_row_dataset(npz_rows(path, options), options, path, {path});
    if (path.ends_with(".npy")) return make_row_dataset(npy_rows(path, options), options, path, {path});
    if (path.ends_with(".csv")) return open_images(path, options);
  } catch (const fs::filesystem_error& e) {
    throw Error(ErrorKind::Io, "can't be read: " + e.code().message(), path);
  }
  throw Error(ErrorKind::Malformed, "isn't data that infopt reads: a .npz, .npy or .csv file, or a folder, was expected", path);
}

void check_finite(const Sample& sample) {
  for (const auto& [name, tensor] : sample.inputs)
    if (first_nonfinite(tensor) >= 0) check_finite(tensor, sample.where + ", input '" + name + "'");
}

}  // namespace infopt

// A folder of images as a data set.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "lib/data/row_source.h"

namespace infopt {

struct LabelledImage {
  std::string path;
  int64_t label = -1;
};

/// The images below `path` and their labels (-1 where there are none), all or none labelled:
/// - `options.image.labels`, `path` itself if it is a `.csv` file, or `labels.csv` in the folder: lines "file,label" in their order, files
///   relative to `path` if it is a folder, else to the CSV's. A first line "file,label" is skipped. Labels are class numbers, or names,
///   which are numbered in the order of their bytes;
/// - else subfolders: the n-th subfolder, by the bytes of its name, is class n; files within it by the bytes of their names;
/// - else the images in the folder, by the bytes of their names, without labels.
/// Files are those that end in .jpg, .jpeg or .png in any case. Throws Error(Malformed) naming the CSV's line for what isn't so.
std::vector<LabelledImage> list_images(const std::string& path, const DataOptions& options);

/// One row an image, label int64 [1].
std::unique_ptr<RowSource> image_rows(std::vector<LabelledImage> images, const DataOptions& options);

}  // namespace infopt

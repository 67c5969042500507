// The memory that a model's tensors lie in: its file, and the files of external data beside it.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "lib/base/mapped_file.h"

namespace infopt {

std::string_view view_of(const MappedFile& file);
/// The folder that a model file's external data is relative to: "." where the path names none.
std::string folder_of(const std::string& path);

/// What a TensorProto's elements are taken from.
struct TensorSource {
  std::string_view bytes;            ///< of the model, that segments point into
  std::shared_ptr<const void> keep;  ///< keeps `bytes` alive
  std::string folder;                ///< of the model; empty where there is none, and external data is refused
  std::map<std::string, std::shared_ptr<const MappedFile>> external = {};

  /// The external file at `location`, relative to the folder. Throws Error(Escape) where it leaves the folder by an
  /// absolute path, "..", a symbolic link, or is reachable under another name by a hard link; Error(Io) where it isn't there.
  std::shared_ptr<const MappedFile> open_external(const std::string& location);
};

}  // namespace infopt

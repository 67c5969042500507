// The memory that a model's tensors lie in: its file, and the files of external data beside it.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace infopt {

/// A file mapped for reading, private to the process.
class MappedFile {
 public:
  /// Throws Error(Io) where it isn't a regular file that can be read.
  static std::shared_ptr<MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view bytes() const { return {data_, size_}; }
  bool hard_linked() const { return links_ > 1; }
  /// Gives the pages within `part` back to the system: whoever copied it needs them no more. They come again when touched.
  void release(std::string_view part) const;

 private:
  MappedFile() = default;
  const char* data_ = nullptr;
  size_t size_ = 0, links_ = 1;
};

/// What a TensorProto's elements are taken from.
struct TensorSource {
  std::string_view bytes;            ///< of the model, that segments point into
  std::shared_ptr<const void> keep;  ///< keeps `bytes` alive
  std::shared_ptr<MappedFile> file;  ///< that `bytes` are, null where they are in memory
  std::string folder;                ///< of the model; empty where there is none, and external data is refused
  std::map<std::string, std::shared_ptr<MappedFile>> external = {};

  /// The external file at `location`, relative to the folder. Throws Error(Escape) where it leaves the folder by an
  /// absolute path, "..", a symbolic link, or is reachable under another name by a hard link; Error(Io) where it isn't there.
  std::shared_ptr<MappedFile> open_external(const std::string& location);
};

}  // namespace infopt

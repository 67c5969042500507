// Files mapped into memory, read-only.
#pragma once
#include <cstddef>
#include <memory>
#include <string>

namespace infopt {

class MappedFile {
 public:
  /// Throws Error(Io) where the file can't be opened or mapped, or isn't a regular file.
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  /// The same for a descriptor that is open for reading; it stays the caller's to close. `path` is for messages.
  static std::shared_ptr<const MappedFile> of_descriptor(int fd, const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  MappedFile() = default;
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// If [data, data+bytes) lies in a mapped file, the system may take its whole pages back until they are read again.
void release_mapped_pages(const void* data, size_t bytes);

}  // namespace infopt

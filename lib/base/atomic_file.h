// Files that appear whole or not at all.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace infopt {

/// Writes to a temporary file beside `path`; `commit` syncs it, renames it to `path` and syncs the folder. Destroyed
/// without a commit (or when the process is interrupted, see install_signal_handlers) the temporary file goes away.
/// Throws Error(Io) where the folder isn't there, can't be written, or the disk is full.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();
  const std::string& path() const { return path_; }

 private:
  std::string path_, temporary_;
  int fd_ = -1;
};

/// Writes `text` to `path` atomically.
void write_file(const std::string& path, std::string_view text);
/// Throws Error(Io) if a file at `path` could not be created: asked before long work begins. Leaves nothing behind.
void check_writable(const std::string& path);
/// The whole file. Throws Error(Io) where it can't be read, Error(Limit) where it has more than `limit` bytes.
std::string read_file(const std::string& path, size_t limit = size_t{1} << 30);

}  // namespace infopt

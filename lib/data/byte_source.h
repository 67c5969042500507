// Bytes in order, from a file or from a member of a zip archive.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace infopt {

/// An open file, read by position: several readers share it.
class InputFile {
 public:
  /// Throws Error(Io) where it can't be opened or isn't a regular file.
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  /// Exactly `bytes` bytes at `offset`. Throws Error(Malformed) where the file is shorter, Error(Io) where it can't be read.
  void read_at(uint64_t offset, void* out, size_t bytes) const;

 private:
  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Bytes from begin to end; known beforehand.
  virtual uint64_t size() const = 0;
  /// The next `bytes` bytes. Throws Error(Malformed) where there are fewer.
  virtual void read(void* out, size_t bytes) = 0;
  /// To be called after the last byte was read: throws Error(Malformed) where there are more, or where they fail their checksum.
  virtual void finish() {}
  virtual void rewind() = 0;
};

/// `size` bytes of a file from `offset` on.
std::unique_ptr<ByteSource> file_source(std::shared_ptr<const InputFile> file, uint64_t offset, uint64_t size);

}  // namespace infopt

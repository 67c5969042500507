#include "lib/data/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "lib/base/error.h"

namespace infopt {
namespace {

class FileSource final : public ByteSource {
 public:
  FileSource(std::shared_ptr<const InputFile> file, uint64_t offset, uint64_t size)
      : file_(std::move(file)), offset_(offset), size_(size) {}

  uint64_t size() const override { return size_; }
  void read(void* out, size_t bytes) override {
    if (bytes > size_ - position_) throw Error(ErrorKind::Malformed, "ends before its data does", file_->path());
    file_->read_at(offset_ + position_, out, bytes);
    position_ += bytes;
  }
  void rewind() override { position_ = 0; }

 private:
  std::shared_ptr<const InputFile> file_;
  uint64_t offset_, size_, position_ = 0;
};

}  // namespace

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) throw Error(ErrorKind::Io, std::string("can't be read: ") + std::strerror(errno), path_);
  struct stat info;
  const bool known = ::fstat(fd_, &info) == 0;
  if (!known || !S_ISREG(info.st_mode)) {
    ::close(fd_);
    throw Error(ErrorKind::Io, "isn't a regular file", path_);
  }
  size_ = static_cast<uint64_t>(info.st_size);
}

InputFile::~InputFile() { ::close(fd_); }

void InputFile::read_at(uint64_t offset, void* out, size_t bytes) const {
  if (offset > size_ || bytes > size_ - offset) throw Error(ErrorKind::Malformed, "is truncated", path_);
  auto* p = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t n = ::pread(fd_, p, std::min(bytes, size_t{1} << 30), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Error(ErrorKind::Io, std::string("can't be read: ") + std::strerror(errno), path_);
    if (n == 0) throw Error(ErrorKind::Malformed, "is truncated", path_);
    p += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<size_t>(n);
  }
}

std::unique_ptr<ByteSource> file_source(std::shared_ptr<const InputFile> file, uint64_t offset, uint64_t size) {
  return std::make_unique<FileSource>(std::move(file), offset, size);
}

}  // namespace infopt

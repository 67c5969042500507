#include "lib/base/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "lib/base/error.h"
#include "lib/base/interrupt.h"

namespace infopt {
namespace {

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

[[noreturn]] void fail(const std::string& what, const std::string& path) {
  throw Error(ErrorKind::Io, what + ": " + std::strerror(errno), path);
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  struct stat info;
  if (::stat(path_.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) throw Error(ErrorKind::Io, "is a folder, a file was expected", path_);
  temporary_ = path_ + ".infopt-" + std::to_string(::getpid()) + ".tmp";
  remove_on_signal(temporary_);
  fd_ = ::open(temporary_.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666);
  if (fd_ < 0) {
    const int saved = errno;
    forget_on_signal(temporary_);
    errno = saved;
    fail("can't be written", path_);
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) {
    ::unlink(temporary_.c_str());
    forget_on_signal(temporary_);
  }
}

void AtomicFile::write(const void* data, size_t bytes) {
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(fd_, p, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("can't be written", path_);
    p += n;
    bytes -= static_cast<size_t>(n);
  }
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0) fail("can't be written", path_);
  if (::close(std::exchange(fd_, -1)) != 0) fail("can't be written", path_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("can't be renamed into place", path_);
  forget_on_signal(temporary_);
  temporary_.clear();
  const int folder = ::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    ::fsync(folder);
    ::close(folder);
  }
}

void write_file(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void check_writable(const std::string& path) { AtomicFile probe(path); }

std::string read_file(const std::string& path, size_t limit) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("can't be read", path);
  struct Closer { int fd; ~Closer() { ::close(fd); } } closer{fd};
  std::string text;
  char buffer[1 << 16];
  while (true) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("can't be read", path);
    if (n == 0) return text;
    if (text.size() + static_cast<size_t>(n) > limit) throw Error(ErrorKind::Limit, "is larger than " + std::to_string(limit) + " bytes", path);
    text.append(buffer, static_cast<size_t>(n));
  }
}

}  // namespace infopt

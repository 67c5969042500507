#include "lib/data/spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "lib/base/error.h"

namespace infopt {
namespace {

constexpr size_t kInMemory = 1 << 20;

[[noreturn]] void fail(const std::string& folder) {
  throw Error(ErrorKind::Io, std::string("a temporary file can't be written: ") + std::strerror(errno), folder);
}

int open_unnamed(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0) return fd;
  std::string name = folder + "/.infopt-XXXXXX";
  const int named = ::mkostemp(name.data(), O_CLOEXEC);
  if (named < 0) fail(folder);
  ::unlink(name.c_str());
  return named;
}

}  // namespace

Spool::~Spool() {
  if (fd_ >= 0) ::close(fd_);
}

void Spool::write(const void* data, size_t bytes) {
  const auto* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const size_t n = std::min(bytes, kInMemory - memory_.size());
    memory_.append(p, n);
    p += n;
    bytes -= n;
    if (memory_.size() == kInMemory) spill();
  }
}

void Spool::spill() {
  if (fd_ < 0) fd_ = open_unnamed(folder_);
  for (size_t done = 0; done < memory_.size();) {
    const ssize_t n = ::write(fd_, memory_.data() + done, memory_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(folder_);
    done += static_cast<size_t>(n);
  }
  spilled_ += memory_.size();
  memory_.clear();
}

void Spool::read(const std::function<void(std::string_view)>& take) const {
  std::string buffer(1 << 18, '\0');
  for (uint64_t at = 0; at < spilled_;) {
    const ssize_t n =
        ::pread(fd_, buffer.data(), static_cast<size_t>(std::min<uint64_t>(buffer.size(), spilled_ - at)), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw Error(ErrorKind::Io, "a temporary file can't be read back", folder_);
    take(std::string_view(buffer).substr(0, static_cast<size_t>(n)));
    at += static_cast<uint64_t>(n);
  }
  take(memory_);
}

}  // namespace infopt

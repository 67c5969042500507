#include "lib/onnx/source.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "lib/base/error.h"

namespace infopt {
namespace {

[[noreturn]] void fail(const std::string& path) { throw Error(ErrorKind::Io, std::string("can't be read: ") + std::strerror(errno), path); }

std::string real_path(const std::string& path) {
  char resolved[PATH_MAX];
  if (!::realpath(path.c_str(), resolved)) fail(path);
  return resolved;
}

[[noreturn]] void escapes(const std::string& location, const std::string& how) {
  throw Error(ErrorKind::Escape, "external data at '" + location + "' leaves the model's folder: " + how);
}

void check_location(const std::string& location) {
  if (location.empty() || location.find('\0') != std::string::npos) throw Error(ErrorKind::Malformed, "external data has no usable location");
  if (location.front() == '/') escapes(location, "an absolute path");
  for (size_t begin = 0; begin <= location.size();) {
    const size_t end = std::min(location.find('/', begin), location.size());
    if (location.compare(begin, end - begin, "..") == 0) escapes(location, "'..' in the path");
    begin = end + 1;
  }
}

}  // namespace

std::shared_ptr<MappedFile> MappedFile::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail(path);
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  } closer{fd};
  struct stat info;
  if (::fstat(fd, &info) != 0) fail(path);
  if (!S_ISREG(info.st_mode)) throw Error(ErrorKind::Io, S_ISDIR(info.st_mode) ? "is a folder, a file was expected" : "isn't a regular file", path);
  std::shared_ptr<MappedFile> file(new MappedFile());
  file->links_ = info.st_nlink;
  if (info.st_size == 0) return file;
  void* data = ::mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) fail(path);
  file->data_ = static_cast<const char*>(data);
  file->size_ = static_cast<size_t>(info.st_size);
  return file;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<char*>(data_), size_);
}

void MappedFile::release(std::string_view part) const {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(part.data() + part.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::shared_ptr<MappedFile> TensorSource::open_external(const std::string& location) {
  check_location(location);
  if (folder.empty()) throw Error(ErrorKind::Unsupported, "external data in a model that isn't read from a file");
  auto& known = external[location];
  if (known) return known;
  const std::string root = real_path(folder), path = real_path(folder + "/" + location);
  if (root != "/" && path.compare(0, root.size() + 1, root + "/") != 0) escapes(location, "a symbolic link");
  auto opened = MappedFile::open(path);
  if (opened->hard_linked()) escapes(location, "a hard link to a file that has another name too");
  return known = std::move(opened);
}

}  // namespace infopt

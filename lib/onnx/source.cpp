#include "lib/onnx/source.h"

#include <fcntl.h>
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
  if (location.empty() || location.find('\0') != std::string::npos)
    throw Error(ErrorKind::Malformed, "external data has no usable location");
  if (location.front() == '/') escapes(location, "an absolute path");
  for (size_t begin = 0; begin <= location.size();) {
    const size_t end = std::min(location.find('/', begin), location.size());
    if (location.compare(begin, end - begin, "..") == 0) escapes(location, "'..' in the path");
    begin = end + 1;
  }
}

}  // namespace

std::string_view view_of(const MappedFile& file) { return {reinterpret_cast<const char*>(file.data()), file.size()}; }

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

std::shared_ptr<const MappedFile> TensorSource::open_external(const std::string& location) {
  check_location(location);
  if (folder.empty()) throw Error(ErrorKind::Unsupported, "external data in a model that isn't read from a file");
  auto& known = external[location];
  if (known) return known;
  const std::string root = real_path(folder), path = real_path(folder + "/" + location);
  if (root != "/" && path.compare(0, root.size() + 1, root + "/") != 0) escapes(location, "a symbolic link");
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
  if (fd < 0) fail(path);
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  } closer{fd};
  struct stat info;
  if (::fstat(fd, &info) != 0) fail(path);
  if (S_ISREG(info.st_mode) && info.st_nlink > 1) escapes(location, "a hard link to a file that has another name too");
  return known = MappedFile::of_descriptor(fd, path);
}

}  // namespace infopt

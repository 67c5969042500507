#include "lib/base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>

#include "lib/base/error.h"

namespace infopt {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<uintptr_t, size_t> regions;
};

Registry& registry() {
  static Registry* instance = new Registry;  // never destroyed: mappings in static storage may outlive it
  return *instance;
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe is refused, not waited for
  if (fd < 0) throw Error(ErrorKind::Io, std::string("can't be read: ") + std::strerror(errno), path);
  struct Closer { int fd; ~Closer() { ::close(fd); } } closer{fd};
  return of_descriptor(fd, path);
}

std::shared_ptr<const MappedFile> MappedFile::of_descriptor(int fd, const std::string& path) {
  struct stat info;
  if (::fstat(fd, &info) != 0) throw Error(ErrorKind::Io, std::string("can't be read: ") + std::strerror(errno), path);
  if (!S_ISREG(info.st_mode)) throw Error(ErrorKind::Io, S_ISDIR(info.st_mode) ? "is a folder, a file was expected" : "isn't a regular file", path);
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  file->size_ = static_cast<size_t>(info.st_size);
  if (file->size_ == 0) return file;
  void* p = ::mmap(nullptr, file->size_, PROT_READ, MAP_PRIVATE, fd, 0);
  if (p == MAP_FAILED) throw Error(ErrorKind::Io, std::string("can't be mapped: ") + std::strerror(errno), path);
  file->data_ = static_cast<const std::byte*>(p);
  std::lock_guard lock(registry().mutex);
  registry().regions[reinterpret_cast<uintptr_t>(p)] = file->size_;
  return file;
}

MappedFile::~MappedFile() {
  if (!data_) return;
  std::lock_guard lock(registry().mutex);
  registry().regions.erase(reinterpret_cast<uintptr_t>(data_));
  ::munmap(const_cast<std::byte*>(data_), size_);
}

void release_mapped_pages(const void* data, size_t bytes) {
  static const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  if (begin >= end) return;
  std::lock_guard lock(registry().mutex);
  auto it = registry().regions.upper_bound(begin);
  if (it == registry().regions.begin()) return;
  --it;
  if (end <= it->first + it->second) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace infopt

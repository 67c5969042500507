#include "calibration/tensor_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "lib/base/error.h"

namespace infopt {
namespace {

[[noreturn]] void fail(const std::string& what) { throw Error(ErrorKind::Io, what + ": " + std::strerror(errno)); }

int open_temporary() {
  std::string path = (std::filesystem::temp_directory_path() / "infopt-XXXXXX").string();
  const int file = ::mkostemp(path.data(), O_CLOEXEC);
  if (file < 0) fail("a temporary file for activations can't be made in " + path.substr(0, path.rfind('/')));
  ::unlink(path.c_str());
  return file;
}

}  // namespace

TensorStore::~TensorStore() {
  if (file_ >= 0) ::close(file_);
}

int64_t TensorStore::put(const Tensor& tensor) {
  std::lock_guard lock(mutex_);
  const auto bytes = static_cast<int64_t>(tensor.bytes());
  Entry entry{{}, tensor.dtype(), tensor.shape(), 0, bytes};
  if (tensor.dtype() == DType::String || held_ + bytes <= memory_) {
    entry.tensor = tensor;
    held_ += bytes;
  } else {
    entry.offset = spill(tensor);
    spilled_ += bytes;
  }
  entries_.emplace(next_, std::move(entry));
  return next_++;
}

int64_t TensorStore::spill(const Tensor& tensor) {
  if (file_ < 0) file_ = open_temporary();
  const int64_t offset = end_;
  const std::byte* from = tensor.raw();
  for (size_t done = 0; done < tensor.bytes();) {
    const ssize_t n = ::pwrite(file_, from + done, tensor.bytes() - done, offset + static_cast<int64_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail("activations can't be written to a temporary file");
    done += static_cast<size_t>(n);
  }
  constexpr int64_t kPage = 4096;  // so that dropped tensors' pages can be given back
  end_ = (offset + static_cast<int64_t>(tensor.bytes()) + kPage - 1) / kPage * kPage;
  return offset;
}

Tensor TensorStore::get(int64_t ticket) const {
  Entry entry;
  {
    std::lock_guard lock(mutex_);
    entry = entries_.at(ticket);
  }
  if (entry.tensor.defined()) return entry.tensor;
  Tensor tensor(entry.dtype, entry.shape);
  for (int64_t done = 0; done < entry.bytes;) {
    const ssize_t n = ::pread(file_, tensor.mutable_raw() + done, static_cast<size_t>(entry.bytes - done), entry.offset + done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail("activations can't be read back from a temporary file");
    done += n;
  }
  return tensor;
}

void TensorStore::drop(int64_t ticket) {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(ticket);
  if (it == entries_.end()) return;
  const Entry& e = it->second;
  if (e.tensor.defined()) {
    held_ -= e.bytes;
  } else {
    spilled_ -= e.bytes;
    if (e.bytes > 0) ::fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, e.offset, e.bytes);  // where the file system can't, it stays until the end
  }
  entries_.erase(it);
  if (spilled_ == 0) end_ = 0;
}

int64_t TensorStore::held() const {
  std::lock_guard lock(mutex_);
  return held_;
}

int64_t TensorStore::spilled() const {
  std::lock_guard lock(mutex_);
  return spilled_;
}

}  // namespace infopt

// The emulated device: memory of the host, fenced and poisoned; a stream does its work at once, or records it for a graph.
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/runtime/cuda/fault.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/pool.h"
#include "lib/runtime/cuda/runtime.h"

namespace infopt::cuda {

class Recording {
 public:
  std::vector<std::function<void()>> work;
};

namespace {

constexpr size_t kPage = 4096, kAlign = 16;
std::atomic<size_t> used{0}, peak{0}, copied_back{0};
std::atomic<int64_t> launched{0};
std::mutex mutex;

struct Block { std::byte* map; size_t map_bytes, bytes; };
std::map<void*, Block>& blocks() {
  static auto& all = *new std::map<void*, Block>;  // devices that are static end after it would
  return all;
}

Faults from_environment() {
  Faults f;
  const char* text = std::getenv("INFOPT_EMULATE");
  if (!text) return f;
  const std::string s = text;
  f.no_device = s.find("no_device") != std::string::npos;
  f.takes_times = s.find("times") != std::string::npos;
  f.no_sparse_library = s.find("no_sparse_library") != std::string::npos;
  if (const size_t at = s.find("memory="); at != std::string::npos) f.memory_limit = std::strtoull(s.c_str() + at + 7, nullptr, 10);
  if (const size_t at = s.find("launch="); at != std::string::npos) f.fail_launch_after = std::strtoll(s.c_str() + at + 7, nullptr, 10);
  return f;
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

const bool kKeepBlocks = false;

Faults& faults() {
  static Faults f = from_environment();
  return f;
}
size_t device_bytes_used() { return used; }
size_t device_bytes_peak() { return peak; }
size_t bytes_to_host() { return copied_back; }
int64_t launches() { return launched; }

bool events_have_times() { return faults().takes_times; }

void note_launch(const char* name) {
  ++launched;
  if (int64_t& left = faults().fail_launch_after; left >= 0 && left-- == 0) throw Error(ErrorKind::Defect, std::string("the CUDA kernel ") + name + " could not be launched: an injected fault");
}

DeviceFacts open_device() {
  if (faults().no_device) throw Error(ErrorKind::Unsupported, "no CUDA device: there is no NVIDIA driver on this machine (libcuda.so.1)");
  DeviceFacts f;
  f.name = "emulated CUDA device";
  f.major = 9;
  f.multiprocessors = 1;
  f.memory = size_t{16} << 30;
  f.shared_memory = 227 * 1024;
  f.driver = "none";
  return f;
}

void* device_malloc(size_t bytes) {
  const size_t room = std::max<size_t>((bytes + kAlign - 1) / kAlign * kAlign, kAlign), map_bytes = (room + kPage - 1) / kPage * kPage + kPage;
  if (used + room > faults().memory_limit) throw Error(ErrorKind::Limit, "the CUDA device has no memory left for " + std::to_string(bytes) + " bytes");
  void* map = mmap(nullptr, map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) throw Error(ErrorKind::Limit, "the emulated CUDA device has no memory left for " + std::to_string(bytes) + " bytes");
  auto* base = static_cast<std::byte*>(map);
  mprotect(base + map_bytes - kPage, kPage, PROT_NONE);
  std::byte* data = base + map_bytes - kPage - room;
  std::memset(data, 0xFF, room);
  used += room;
  size_t most = peak;
  while (most < used && !peak.compare_exchange_weak(most, used)) {}
  std::lock_guard lock(mutex);
  blocks()[data] = {base, map_bytes, room};
  return data;
}

void device_free(void* memory) noexcept {
  if (!memory) return;
  std::lock_guard lock(mutex);
  const auto it = blocks().find(memory);
  if (it == blocks().end()) std::abort();
  used -= it->second.bytes;
  munmap(it->second.map, it->second.map_bytes);
  blocks().erase(it);
}

void* pinned_malloc(size_t bytes) {
  void* p = std::malloc(std::max<size_t>(bytes, 1));
  if (!p) throw Error(ErrorKind::Limit, "there is no page-locked memory left for " + std::to_string(bytes) + " bytes");
  return p;
}
void pinned_free(void* memory) noexcept { std::free(memory); }

Stream::Stream() = default;
Stream::~Stream() { delete recording_; }

void Stream::emulate(std::function<void()> work) {
  if (capturing_) recording_->work.push_back(std::move(work));
  else work();
}
void Stream::copy_to_device(void* to, const void* from, size_t bytes) {
  if (bytes) emulate([=] { std::memcpy(to, from, bytes); });
}
void Stream::copy_to_host(void* to, const void* from, size_t bytes) {
  if (bytes) emulate([=] { std::memcpy(to, from, bytes), copied_back += bytes; });
}
void Stream::copy_on_device(void* to, const void* from, size_t bytes) {
  if (bytes) emulate([=] { std::memmove(to, from, bytes); });
}
void Stream::fill(void* to, int byte, size_t bytes) {
  if (bytes) emulate([=] { std::memset(to, byte, bytes); });
}
void Stream::wait() {
  if (capturing_) throw Error(ErrorKind::Defect, "a stream was waited for while it was captured");
}

void Stream::begin_capture() {
  recording_ = new Recording;
  capturing_ = true;
}
Recording* Stream::end_capture() {
  capturing_ = false;
  return std::exchange(recording_, nullptr);
}
void Stream::replay(Recording* recording) {
  for (const auto& work : recording->work) work();
}
void Stream::destroy(Recording* recording) noexcept { delete recording; }

Event::Event() = default;
Event::~Event() = default;
void Event::record(Stream& stream) {
  if (!stream.capturing()) time_ = seconds();
}
void Event::wait() {}
float Event::milliseconds(const Event& from, const Event& to) { return static_cast<float>((to.time_ - from.time_) * 1e3); }

}  // namespace infopt::cuda

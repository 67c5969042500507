// What is used of CUDA's runtime: device, memory, streams, events, graphs. Two implementations: the real one and the emulation's.
// Every function throws infopt::Error: Unsupported where there is no device, Limit where there is no memory, Defect for what a kernel did.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace infopt::cuda {

struct DeviceFacts {
  std::string name;
  int major = 0, minor = 0;     ///< compute capability
  int multiprocessors = 0;
  size_t memory = 0;            ///< bytes
  size_t shared_memory = 0;     ///< bytes that a block may ask for
  std::string driver;
  std::string bus_id;           ///< PCI; empty for the emulation
};
/// The first device. Throws Error(Unsupported) saying what is missing: driver, device, or a version that fits.
DeviceFacts open_device();

void* device_malloc(size_t bytes);
void device_free(void* memory) noexcept;
/// Page-locked memory of the host, which copies without a detour.
void* pinned_malloc(size_t bytes);
void pinned_free(void* memory) noexcept;

/// Work in the order in which it was given. Owned by one thread at a time.
class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void* native() const { return native_; }  ///< cudaStream_t
  void copy_to_device(void* to, const void* from, size_t bytes);
  void copy_to_host(void* to, const void* from, size_t bytes);
  void copy_on_device(void* to, const void* from, size_t bytes);
  void fill(void* to, int byte, size_t bytes);
  /// Until everything given so far is done; throws what went wrong in it.
  void wait();

  /// What is given from now on is recorded instead of done, until end_capture.
  void begin_capture();
  class Recording* end_capture();  ///< the caller owns it: replay, then destroy
  bool capturing() const { return capturing_; }
  void replay(class Recording* recording);
  static void destroy(class Recording* recording) noexcept;

  /// The emulation's: does the work, or records it.
  void emulate(std::function<void()> work);

 private:
  void* native_ = nullptr;
  bool capturing_ = false;
  class Recording* recording_ = nullptr;
};

/// A point in a stream.
class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(Stream& stream);
  void wait();
  /// Milliseconds of the device's time between two recorded events, both done.
  static float milliseconds(const Event& from, const Event& to);

 private:
  void* native_ = nullptr;
  double time_ = 0;
};

/// Whether the times between events are a device's: not in the emulation.
bool events_have_times();

}  // namespace infopt::cuda

// CUDA's runtime, linked statically: without a driver its first call says so.
#include <cuda_runtime_api.h>

#include <string>
#include <utility>

#include "lib/base/error.h"
#include "lib/runtime/cuda/pool.h"
#include "lib/runtime/cuda/runtime.h"

namespace infopt::cuda {

class Recording {
 public:
  cudaGraphExec_t graph = nullptr;
};

const bool kKeepBlocks = true;

void note_launch(const char*) {}
bool events_have_times() { return true; }

namespace {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  const ErrorKind kind = status == cudaErrorMemoryAllocation ? ErrorKind::Limit : ErrorKind::Defect;
  throw Error(kind, std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

cudaStream_t as_stream(void* native) { return static_cast<cudaStream_t>(native); }

std::string version(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

}  // namespace

DeviceFacts open_device() {
  int driver = 0, count = 0;
  cudaDriverGetVersion(&driver);
  if (driver == 0) throw Error(ErrorKind::Unsupported, "no CUDA device: there is no NVIDIA driver on this machine (libcuda.so.1)");
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver)
    throw Error(ErrorKind::Unsupported, "no CUDA device: the NVIDIA driver supports CUDA " + version(driver) + ", this infopt needs " + version(CUDART_VERSION));
  if (status != cudaSuccess || count == 0) throw Error(ErrorKind::Unsupported, std::string("no CUDA device: ") + (status == cudaSuccess ? "the driver sees none" : cudaGetErrorString(status)));
  check(cudaSetDevice(0), "choosing the device");
  cudaDeviceProp p;
  check(cudaGetDeviceProperties(&p, 0), "asking for the device's properties");
  if (p.major < 8) throw Error(ErrorKind::Unsupported, std::string("the CUDA device ") + p.name + " is of compute capability " + std::to_string(p.major) + "." + std::to_string(p.minor) + ", infopt needs 8.0");
  DeviceFacts f;
  f.name = p.name;
  f.major = p.major;
  f.minor = p.minor;
  f.multiprocessors = p.multiProcessorCount;
  f.memory = p.totalGlobalMem;
  f.shared_memory = p.sharedMemPerBlockOptin;
  f.driver = version(driver);
  char bus[32] = {};
  if (cudaDeviceGetPCIBusId(bus, sizeof bus, 0) == cudaSuccess) f.bus_id = bus;
  return f;
}

void* device_malloc(size_t bytes) {
  void* p = nullptr;
  const cudaError_t status = cudaMalloc(&p, bytes ? bytes : 1);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error(ErrorKind::Limit, "the CUDA device has no memory left for " + std::to_string(bytes) + " bytes");
  }
  check(status, "allocating memory");
  return p;
}
void device_free(void* memory) noexcept { cudaFree(memory); }

void* pinned_malloc(size_t bytes) {
  void* p = nullptr;
  check(cudaMallocHost(&p, bytes ? bytes : 1), "allocating page-locked memory");
  return p;
}
void pinned_free(void* memory) noexcept { cudaFreeHost(memory); }

Stream::Stream() {
  cudaStream_t s = nullptr;
  check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "making a stream");
  native_ = s;
}
Stream::~Stream() { cudaStreamDestroy(as_stream(native_)); }

void Stream::copy_to_device(void* to, const void* from, size_t bytes) {
  if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, as_stream(native_)), "copying to the device");
}
void Stream::copy_to_host(void* to, const void* from, size_t bytes) {
  if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, as_stream(native_)), "copying to the host");
}
void Stream::copy_on_device(void* to, const void* from, size_t bytes) {
  if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, as_stream(native_)), "copying on the device");
}
void Stream::fill(void* to, int byte, size_t bytes) {
  if (bytes) check(cudaMemsetAsync(to, byte, bytes, as_stream(native_)), "filling memory");
}
void Stream::wait() { check(cudaStreamSynchronize(as_stream(native_)), "running kernels"); }

void Stream::begin_capture() {
  check(cudaStreamBeginCapture(as_stream(native_), cudaStreamCaptureModeRelaxed), "beginning a graph");
  capturing_ = true;
}
Recording* Stream::end_capture() {
  capturing_ = false;
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(as_stream(native_), &graph), "ending a graph");
  auto recording = std::make_unique<Recording>();
  const cudaError_t status = cudaGraphInstantiate(&recording->graph, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "instantiating a graph");
  return recording.release();
}
void Stream::replay(Recording* recording) { check(cudaGraphLaunch(recording->graph, as_stream(native_)), "launching a graph"); }
void Stream::destroy(Recording* recording) noexcept {
  if (!recording) return;
  cudaGraphExecDestroy(recording->graph);
  delete recording;
}
void Stream::emulate(std::function<void()>) {}

Event::Event() {
  cudaEvent_t e = nullptr;
  check(cudaEventCreate(&e), "making an event");
  native_ = e;
}
Event::~Event() { cudaEventDestroy(static_cast<cudaEvent_t>(native_)); }
void Event::record(Stream& stream) { check(cudaEventRecord(static_cast<cudaEvent_t>(native_), as_stream(stream.native())), "recording an event"); }
void Event::wait() { check(cudaEventSynchronize(static_cast<cudaEvent_t>(native_)), "waiting for an event"); }
float Event::milliseconds(const Event& from, const Event& to) {
  float ms = 0;
  check(cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(from.native_), static_cast<cudaEvent_t>(to.native_)), "reading an event");
  return ms;
}

}  // namespace infopt::cuda

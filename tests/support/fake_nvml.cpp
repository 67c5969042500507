// A stand-in for NVIDIA's management library, for tests: one GPU, at 0000:3b:00.0, whose memory and clock change from sample to sample.
#include <cstring>

namespace {
int gpu = 0;
unsigned long long asked = 0;
}  // namespace

extern "C" {
int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char* bus, void** device) {
  *device = &gpu;
  return std::strcmp(bus, "0000:3b:00.0") ? 6 : 0;  // NVML_ERROR_NOT_FOUND
}
int nvmlDeviceGetName(void*, char* name, unsigned length) {
  std::strncpy(name, "NVIDIA Test", length);
  return 0;
}
struct Memory { unsigned long long total, free, used; };
int nvmlDeviceGetMemoryInfo(void*, Memory* m) {
  ++asked;
  *m = {1000, 0, asked == 1 ? 700ull : 600ull};
  return 0;
}
int nvmlDeviceGetClockInfo(void*, unsigned, unsigned* mhz) {
  *mhz = asked == 1 ? 1200 : 1980;
  return 0;
}
struct Utilization { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(void* device, Utilization* u) {
  *u = {80, 10};
  return device == &gpu ? 0 : 2;
}
}

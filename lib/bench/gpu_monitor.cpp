#include "lib/bench/gpu_monitor.h"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace infopt {
namespace {

// NVML's binary interface, as far as it is used.
using Device = void*;
constexpr int kSuccess = 0;
constexpr unsigned kSmClock = 1;
struct Utilization { unsigned gpu, memory; };
struct Memory { unsigned long long total, free, used; };

constexpr auto kBetweenSamples = std::chrono::milliseconds(50);

struct Nvml {
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*by_bus)(const char*, Device*) = nullptr;
  int (*name)(Device, char*, unsigned) = nullptr;
  int (*utilization)(Device, Utilization*) = nullptr;
  int (*memory)(Device, Memory*) = nullptr;
  int (*clock)(Device, unsigned, unsigned*) = nullptr;

  bool load(const char* path) {
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);  // stays: a process asks more than once
    if (!library) return false;
    const auto find = [library](auto& function, const char* symbol) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, symbol));
      return function != nullptr;
    };
    find(name, "nvmlDeviceGetName");
    find(utilization, "nvmlDeviceGetUtilizationRates");
    find(memory, "nvmlDeviceGetMemoryInfo");
    find(clock, "nvmlDeviceGetClockInfo");
    return find(init, "nvmlInit_v2") && find(shutdown, "nvmlShutdown") && find(by_bus, "nvmlDeviceGetHandleByPciBusId_v2");
  }
};

}  // namespace

struct GpuMonitor::State {
  Nvml nvml;
  Device device = nullptr;
  GpuFigures figures;
  double utilization_sum = 0;
  int64_t utilization_samples = 0;
  std::mutex mutex;
  std::condition_variable wake;
  bool ended = false;
  std::thread thread;

  void sample() {
    if (Utilization u; nvml.utilization && nvml.utilization(device, &u) == kSuccess) utilization_sum += u.gpu, ++utilization_samples;
    if (Memory m; nvml.memory && nvml.memory(device, &m) == kSuccess) {
      figures.memory_total = static_cast<int64_t>(m.total);
      figures.memory_peak = std::max(figures.memory_peak.value_or(0), static_cast<int64_t>(m.used));
    }
    if (unsigned mhz = 0; nvml.clock && nvml.clock(device, kSmClock, &mhz) == kSuccess) {
      figures.clock_low = std::min(figures.clock_low.value_or(mhz), static_cast<int64_t>(mhz));
      figures.clock_high = std::max(figures.clock_high.value_or(mhz), static_cast<int64_t>(mhz));
    }
  }
  void run() {
    std::unique_lock lock(mutex);
    do sample();
    while (!wake.wait_for(lock, kBetweenSamples, [this] { return ended; }));
    sample();
  }
  void end() {
    {
      std::lock_guard lock(mutex);
      ended = true;
    }
    wake.notify_all();
    if (thread.joinable()) thread.join();
  }
};

GpuMonitor::GpuMonitor(std::unique_ptr<State> state) : state_(std::move(state)) {
  state_->thread = std::thread([s = state_.get()] { s->run(); });
}

std::unique_ptr<GpuMonitor> GpuMonitor::start(const std::string& bus_id, const char* library) {
  auto state = std::make_unique<State>();
  if (bus_id.empty() || !state->nvml.load(library) || state->nvml.init() != kSuccess) return nullptr;
  if (state->nvml.by_bus(bus_id.c_str(), &state->device) != kSuccess) {
    state->nvml.shutdown();
    return nullptr;
  }
  char name[96] = {};
  if (state->nvml.name && state->nvml.name(state->device, name, sizeof name) == kSuccess) state->figures.name = name;
  return std::unique_ptr<GpuMonitor>(new GpuMonitor(std::move(state)));
}

GpuFigures GpuMonitor::stop() {
  state_->end();
  if (state_->utilization_samples > 0) state_->figures.utilization = state_->utilization_sum / static_cast<double>(state_->utilization_samples);
  return state_->figures;
}

GpuMonitor::~GpuMonitor() {
  state_->end();
  state_->nvml.shutdown();
}

}  // namespace infopt

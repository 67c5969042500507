// What NVIDIA's management library (NVML) says of a GPU while something runs on it. https://docs.nvidia.com/deploy/nvml-api/
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace infopt {

struct GpuFigures {
  std::string name;
  std::optional<double> utilization;               ///< percent of the time in which a kernel ran: the samples' mean
  std::optional<int64_t> memory_peak, memory_total;  ///< bytes in use on the GPU, other processes' included: the most that a sample saw
  std::optional<int64_t> clock_low, clock_high;    ///< MHz of the multiprocessors
};

/// Samples the GPU in a thread of its own, from its making on.
class GpuMonitor {
 public:
  static constexpr const char* kLibrary = "libnvidia-ml.so.1";
  /// `bus_id`: PCI, as in "0000:3b:00.0". Null where the library can't be loaded or doesn't know the GPU.
  static std::unique_ptr<GpuMonitor> start(const std::string& bus_id, const char* library = kLibrary);
  ~GpuMonitor();
  /// Ends the sampling. What the GPU doesn't say is left out.
  GpuFigures stop();

 private:
  struct State;
  explicit GpuMonitor(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace infopt

// Faults on demand, and what a test may ask of the emulated device.
#pragma once
#include <cstddef>
#include <cstdint>

namespace infopt::cuda {

struct Faults {
  int64_t fail_launch_after = -1;   ///< launches until one fails; negative: never
  size_t memory_limit = SIZE_MAX;   ///< bytes of device memory that there are
  bool no_device = false;
  bool no_sparse_library = false;   ///< as built without cuSPARSELt
  bool takes_times = false;         ///< what is chosen by time is chosen by the host's
};
/// Read by the emulation. Set it before a session is made; the environment's INFOPT_EMULATE (no_device, no_sparse_library, memory=BYTES, launch=N) sets it at first.
Faults& faults();
size_t device_bytes_used();
size_t device_bytes_peak();
/// Copied from the device to the host so far.
size_t bytes_to_host();
int64_t launches();
/// On a GPU too: kernels count elements as in tensors of 2^31 and more.
bool& wide_indices();

}  // namespace infopt::cuda

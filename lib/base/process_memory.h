// The memory of this process that is in use, as the system counts it.
#pragma once
#include <cstdint>
#include <optional>

namespace infopt {

/// Resident bytes now, and the most there were since the start or reset_peak_memory; empty where the system doesn't tell
/// (Linux: VmRSS and VmHWM in /proc/self/status).
std::optional<int64_t> resident_memory();
std::optional<int64_t> peak_memory();
/// Makes the peak what is resident now. False where the system doesn't let us.
bool reset_peak_memory();

}  // namespace infopt

#include "lib/base/process_memory.h"

#include <fstream>
#include <string>

namespace infopt {
namespace {

std::optional<int64_t> status_bytes(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) * 1024;
  return {};
}

}  // namespace

std::optional<int64_t> resident_memory() { return status_bytes("VmRSS"); }
std::optional<int64_t> peak_memory() { return status_bytes("VmHWM"); }

bool reset_peak_memory() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good();
}

}  // namespace infopt

// --device: what a command runs on.
#pragma once
#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "lib/runtime/device.h"

namespace infopt {

struct DeviceChoice {
  std::string name = "auto";
  bool tf32 = false;
  std::string sparse = "auto";
};

/// --device, --tf32 and --sparse of a command.
void add_device_options(CLI::App& command, DeviceChoice& choice);
/// Null for the CPU. Throws Error(Unsupported) saying what is missing.
std::shared_ptr<const Device> open_device(const DeviceChoice& choice);
/// For reports.
std::string device_text(const std::shared_ptr<const Device>& device);

}  // namespace infopt

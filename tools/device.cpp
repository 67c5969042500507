#include "tools/device.h"

#include "lib/base/error.h"

namespace infopt {

void add_device_options(CLI::App& command, DeviceChoice& choice) {
  command.add_option("--device", choice.name, "cpu, cuda, or auto: the CPU, until the CUDA runtime has been measured on a GPU")->check(CLI::IsMember({"auto", "cpu", "cuda"}))->type_name("DEVICE");
  command.add_flag("--tf32", choice.tf32, "CUDA: float32 products and convolutions may round their operands to 10 bits of mantissa");
}

std::shared_ptr<const Device> open_device(const DeviceChoice& choice) {
  if (choice.name != "cuda") {
    if (choice.tf32) throw Error(ErrorKind::Usage, "it is for --device cuda", "--tf32");
    return nullptr;
  }
  return open_cuda({.tf32 = choice.tf32});
}

std::string device_text(const std::shared_ptr<const Device>& device) { return device ? device->name() + " (" + device->description() + ")" : "cpu"; }

}  // namespace infopt

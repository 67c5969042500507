#include "tools/device.h"

#include "lib/base/error.h"

namespace infopt {

void add_device_options(CLI::App& command, DeviceChoice& choice) {
  command.add_option("--device", choice.name, "cpu, cuda, or auto: the CPU, until the CUDA runtime has been measured on a GPU")->check(CLI::IsMember({"auto", "cpu", "cuda"}))->type_name("DEVICE");
  command.add_flag("--tf32", choice.tf32, "CUDA: float32 products and convolutions may round their operands to 10 bits of mantissa");
  command.add_option("--sparse", choice.sparse, "CUDA: leave zeros of weights out that lie 2:4 or in blocks: where it is measured to be faster (auto), wherever it can be done, or never")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->type_name("auto|always|never");
}

std::shared_ptr<const Device> open_device(const DeviceChoice& choice) {
  if (choice.name != "cuda") {
    if (choice.tf32) throw Error(ErrorKind::Usage, "it is for --device cuda", "--tf32");
    if (choice.sparse != "auto") throw Error(ErrorKind::Usage, "it is for --device cuda", "--sparse");
    return nullptr;
  }
  const SparseUse sparse = choice.sparse == "always" ? SparseUse::Always : choice.sparse == "never" ? SparseUse::Never : SparseUse::Auto;
  return open_cuda({.tf32 = choice.tf32, .sparse = sparse});
}

std::string device_text(const std::shared_ptr<const Device>& device) { return device ? device->name() + " (" + device->description() + ")" : "cpu"; }

}  // namespace infopt

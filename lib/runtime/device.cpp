#include "lib/runtime/device.h"

#include "lib/base/error.h"

namespace infopt {
namespace {
DeviceOpener cuda_opener = nullptr;
}

void set_cuda(DeviceOpener opener) { cuda_opener = opener; }

std::shared_ptr<const Device> open_cuda(const DeviceOptions& options) {
  if (!cuda_opener) throw Error(ErrorKind::Unsupported, "this infopt was built without CUDA (INFOPT_CUDA); use --device cpu or auto", "--device cuda");
  try {
    return cuda_opener(options);
  } catch (const Error& e) {
    throw e.within("--device cuda");
  }
}

}  // namespace infopt

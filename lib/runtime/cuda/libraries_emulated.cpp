// Stand-ins for the libraries, with their limits.
#include <vector>

#include "lib/base/error.h"
#include "lib/runtime/cuda/libraries.h"

namespace infopt::cuda {
namespace {

class EmulatedLibraries : public Libraries {
 public:
  std::string versions() const override { return "emulated libraries"; }
  void multiply(Stream&, const MatrixProduct&, const void*, const void*, void*, const void*) override { throw Error(ErrorKind::Defect, "not yet"); }
};

}  // namespace

std::unique_ptr<Libraries> Libraries::open(const DeviceFacts&, bool) { return std::make_unique<EmulatedLibraries>(); }

}  // namespace infopt::cuda

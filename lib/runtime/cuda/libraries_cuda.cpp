// cuBLASLt, opened when it is needed.
#include <vector>

#include "lib/base/error.h"
#include "lib/runtime/cuda/libraries.h"

namespace infopt::cuda {
namespace {

class CublasLibraries : public Libraries {
 public:
  std::string versions() const override { return "cuBLASLt"; }
  void multiply(Stream&, const MatrixProduct&, const void*, const void*, void*, const void*) override { throw Error(ErrorKind::Defect, "not yet"); }
};

}  // namespace

std::unique_ptr<Libraries> Libraries::open(const DeviceFacts&, bool) { return std::make_unique<CublasLibraries>(); }

}  // namespace infopt::cuda

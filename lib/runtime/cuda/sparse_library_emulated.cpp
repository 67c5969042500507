// cuSPARSELt's stand-in: compressed weights hold the kept values of each four, then two bits for the place of each. What was never compressed
// is poison, whose places can't be.
#include <algorithm>
#include <cstring>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/tensor.h"
#include "lib/runtime/cuda/fault.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/sparse_library.h"

namespace infopt::cuda {
namespace {

constexpr size_t kBuffer = 64, kWorkspace = 256;

int64_t bytes_of(DType type) { return static_cast<int64_t>(bits_of(type) / 8); }

/// Of groups of four: two values in their order, and a byte for two groups' places.
void compress_groups(int64_t size, int64_t groups, const std::byte* dense, std::byte* values, uint8_t* places) {
  std::fill_n(places, (groups + 1) / 2, uint8_t{0});
  for (int64_t g = 0; g < groups; ++g) {
    int found = 0, at[2] = {0, 0};
    for (int i = 0; i < 4; ++i) {
      const std::byte* v = dense + (4 * g + i) * size;
      const bool zero = std::all_of(v, v + size - 1, [](std::byte b) { return b == std::byte{0}; }) && (size == 1 ? v[0] == std::byte{0} : (v[size - 1] & std::byte{0x7f}) == std::byte{0});
      if (zero) continue;
      if (found == 2) throw Error(ErrorKind::Defect, "cuSPARSELt was given weights that aren't 2:4");
      at[found++] = i;
    }
    if (found == 0) at[1] = 1;
    if (found == 1) at[0] == 3 ? (at[1] = 3, at[0] = 2) : (at[1] = at[0] + 1);
    for (int i = 0; i < 2; ++i) std::memcpy(values + (2 * g + i) * size, dense + (4 * g + at[i]) * size, static_cast<size_t>(size));
    places[g / 2] = static_cast<uint8_t>(places[g / 2] | (at[0] | at[1] << 2) << (g % 2 * 4));
  }
}

/// Back to dense; throws where no weights were ever compressed there.
Tensor expand(DType type, int64_t n, int64_t k, const std::byte* compressed) {
  Tensor dense = Tensor::zeros(type, {n, k});
  const int64_t size = bytes_of(type), groups = n * k / 4;
  const auto* places = reinterpret_cast<const uint8_t*>(compressed + n * k / 2 * size);
  for (int64_t g = 0; g < groups; ++g) {
    const int both = places[g / 2] >> (g % 2 * 4), at[2] = {both & 3, both >> 2 & 3};
    if (at[0] >= at[1]) throw Error(ErrorKind::Defect, "cuSPARSELt was given weights that weren't compressed");
    for (int i = 0; i < 2; ++i) std::memcpy(dense.mutable_raw() + (4 * g + at[i]) * size, compressed + (2 * g + i) * size, static_cast<size_t>(size));
  }
  return dense;
}

class EmulatedSparseLibrary : public SparseLibrary {
 public:
  EmulatedSparseLibrary() : workspace_(device_malloc(kWorkspace)), libraries_(Libraries::open({}, false)) {}
  ~EmulatedSparseLibrary() override { device_free(workspace_); }
  std::string version() const override { return "emulated cuSPARSELt"; }

  CompressedSize compressed_size(DType type, int64_t n, int64_t k) override { return {static_cast<size_t>(n * k / 2 * bytes_of(type) + (n * k / 4 + 1) / 2), kBuffer}; }

  void compress(Stream& stream, DType type, int64_t n, int64_t k, const void* dense, void* compressed, void* buffer) override {
    note_launch("compression of weights");
    if (const std::string misfit = sparse_weights_misfit(type, n, k); !misfit.empty()) throw Error(ErrorKind::Defect, "weights that cuSPARSELt doesn't take: " + misfit);
    stream.emulate([=] {
      std::memset(buffer, 0, kBuffer);
      auto* values = static_cast<std::byte*>(compressed);
      compress_groups(bytes_of(type), n * k / 4, static_cast<const std::byte*>(dense), values, reinterpret_cast<uint8_t*>(values + n * k / 2 * bytes_of(type)));
    });
  }

  void multiply(Stream& stream, const MatrixProduct& p, const void* a, const void* compressed, void* c, const void* bias, const void* added) override {
    if (p.m == 0 || p.n == 0) return;
    if (!added) added = c;
    check_sparse_limits(p, a, compressed, c, bias, added);
    MatrixProduct whole = p;
    whole.ldb = p.k;
    stream.emulate([=, this, workspace = workspace_] {
      std::memset(workspace, 0, kWorkspace);
      const Tensor dense = expand(p.type, p.n, p.k, static_cast<const std::byte*>(compressed));
      Stream now;  // at once, also where the given one is recorded
      libraries_->multiply(now, whole, a, dense.raw(), c, bias, added);
    });
  }

 private:
  void* workspace_;
  std::unique_ptr<Libraries> libraries_;
};

}  // namespace

std::string sparse_library_missing() { return faults().no_sparse_library ? "built without cuSPARSELt" : ""; }

std::unique_ptr<SparseLibrary> SparseLibrary::open() {
  if (const std::string missing = sparse_library_missing(); !missing.empty()) throw Error(ErrorKind::Unsupported, missing);
  return std::make_unique<EmulatedSparseLibrary>();
}

}  // namespace infopt::cuda

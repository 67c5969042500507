#include "lib/runtime/cpu/sparse_tiles.h"

#include "lib/runtime/cpu/float_tiles.h"

namespace infopt::cpu {

const SparseTiles* sparse_tiles() {
#if defined(__x86_64__)
  if (&float_tiles() == &avx512_float_tiles()) return &avx512_sparse_tiles();
  if (&float_tiles() == &avx2_float_tiles()) return &avx2_sparse_tiles();
#endif
  return nullptr;
}

}  // namespace infopt::cpu

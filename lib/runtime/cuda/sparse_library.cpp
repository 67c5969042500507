#include "lib/runtime/cuda/sparse_library.h"

#include "lib/base/error.h"

namespace infopt::cuda {
namespace {

std::string not_multiple(const char* name, int64_t v, int64_t of) { return v % of == 0 ? std::string() : std::to_string(v) + " " + name + " aren't a multiple of " + std::to_string(of); }
int64_t weights_step(DType type) { return type == DType::I8 ? 32 : 16; }
int64_t dense_step(DType type) { return type == DType::I8 ? 16 : 8; }

}  // namespace

std::string sparse_weights_misfit(DType type, int64_t n, int64_t k) {
  const std::string outputs = not_multiple("outputs", n, weights_step(type));
  return outputs.empty() ? not_multiple("inputs", k, weights_step(type)) : outputs;
}
std::string sparse_rows_misfit(DType type, int64_t m) { return not_multiple("rows", m, dense_step(type)); }

void check_sparse_limits(const MatrixProduct& p, const void* a, const void* compressed, const void* c, const void* bias, const void* added) {
  const auto need = [](bool holds, const std::string& what) {
    if (!holds) throw Error(ErrorKind::Defect, "a product that cuSPARSELt doesn't take: " + what);
  };
  const auto fits = [&](const std::string& misfit) { need(misfit.empty(), misfit); };
  const bool integer = p.type == DType::I8;
  need(integer || p.type == DType::F16 || p.type == DType::BF16, "its type");
  need(p.out == (integer ? DType::I32 : p.type), "its result's type");
  need(!p.transpose_a && p.transpose_b && p.batch == 1 && p.alpha == 1, "operands in another order, a batch or a factor");
  fits(sparse_weights_misfit(p.type, p.n, p.k));
  fits(sparse_rows_misfit(p.type, p.m));
  need(p.lda >= p.k && p.ldc >= p.n, "rows that overlap");
  need(p.lda % dense_step(p.type) == 0 && p.ldc % dense_step(p.type) == 0, "rows that aren't aligned");
  const auto aligned = [](const void* q) { return reinterpret_cast<uintptr_t>(q) % 16 == 0; };
  need(aligned(a) && aligned(compressed) && aligned(c) && aligned(bias) && aligned(added), "pointers that aren't aligned to 16 bytes");
  need(!p.bias || bias, "a bias of nothing");
  need(p.activation != MatrixProduct::Gelu, "an epilogue with GELU");
  need(!integer || (p.beta == 0 && !p.bias && p.activation == MatrixProduct::None), "an epilogue of an integer product");
}

}  // namespace infopt::cuda

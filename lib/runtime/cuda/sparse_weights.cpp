#include "lib/runtime/cuda/sparse_weights.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "lib/runtime/cuda/pack.h"
#include "lib/runtime/cuda/product.h"
#include "lib/runtime/cuda/sparse_library.h"

namespace infopt::cuda {

std::string percent_text(double share) { return std::to_string(static_cast<int>(std::lround(share * 100))) + " %"; }

const void* CompressedWeights::get(CudaRun& run) const {
  std::lock_guard lock(mutex_);
  if (compressed_.defined()) return compressed_.raw();
  const DType type = weights_.data.dtype() == DType::U8 ? DType::I8 : weights_.data.dtype();
  SparseLibrary& library = run.libraries().sparse();
  const CompressedSize size = library.compressed_size(type, weights_.n, weights_.k);
  const Tensor dense = run.to_device(dense_rows(weights_));
  Tensor compressed = run.make(DType::U8, {static_cast<int64_t>(size.weights)}), buffer = run.make(DType::U8, {static_cast<int64_t>(std::max<size_t>(size.buffer, 16))});
  library.compress(run.stream(), type, weights_.n, weights_.k, dense.raw(), compressed.mutable_raw(), buffer.mutable_raw());
  run.wait();  // other streams will read it
  weights_.data.release_pages();
  compressed_ = std::move(compressed);
  return compressed_.raw();
}

bool CompressedWeights::there() const {
  std::lock_guard lock(mutex_);
  return compressed_.defined();
}

void CompressedWeights::drop() const {
  std::lock_guard lock(mutex_);
  compressed_ = {};
}

SparseWeights::SparseWeights(const WeightMatrix& weights, SparseUse use) : choice_(use) {
  if (use == SparseUse::Never) return;
  const SparsePattern pattern = find_pattern(weights);
  const DType type = weights.data.dtype();
  const auto add = [&](const std::string& why) { why_dense_ += (why_dense_.empty() ? "" : "; ") + why; };
  if (pattern.panels <= kMostPanels) blocks_ = std::make_unique<BlockWeights>(weights);
  if (pattern.two_of_four) {
    const std::string misfit = sparse_weights_misfit(type, weights.n, weights.k), missing = sparse_library_missing();
    if (type == DType::F32) add("2:4, dense: float32 would be rounded to TF32");
    else if (!misfit.empty()) add("2:4, dense: " + misfit);
    else if (!missing.empty()) add("2:4, dense: " + missing);
    else compressed_ = std::make_unique<CompressedWeights>(weights);
  } else if (!blocks_ && pattern.zeros >= kWorthSaying) {
    add(percent_text(pattern.zeros) + " zeros, neither 2:4 nor in blocks of 16 outputs: dense");
  }
}

std::string SparseWeights::describe() const {
  std::string text;
  const auto add = [&](const std::string& piece) {
    if (!piece.empty()) text += (text.empty() ? "" : "; ") + piece;
  };
  if (has_choice()) add(choice_.describe(compressed_ ? blocks_ ? "2:4 and in blocks" : "2:4" : "in blocks"));
  add(why_dense_);
  return text;
}

void SparseWeights::multiply_2_of_4(CudaRun& run, MatrixProduct p, const void* a, void* c, const Finish& finish) const {
  p.out = p.type;
  p.transpose_a = false, p.transpose_b = true;
  p.ldb = p.k, p.ldc = p.n;
  Ending end = end_in_library(p, finish, true);
  if (p.activation == MatrixProduct::Gelu) {
    p.activation = MatrixProduct::None;
    end.left.post = finish.post;
  }
  run.libraries().sparse().multiply(run.stream(), p, a, compressed_->get(run), c, end.bias, end.added);
  finish_rows(run.stream(), p.type, c, p.m, p.n, end.left);
}

void SparseWeights::multiply(CudaRun& run, MatrixProduct p, const void* a, void* c, const Finish& finish, std::function<void()> dense) const {
  if (p.m == 0) return dense();
  std::vector<Candidate> candidates{{"dense", std::move(dense)}};
  const bool capturing = run.stream().capturing();
  if (compressed_) {
    const std::string misfit = sparse_rows_misfit(p.type, p.m);
    const bool aligned = aligned_16(a) && aligned_16(c) && aligned_16(finish.bias) && aligned_16(finish.residual) && p.lda % 8 == 0;
    if (!misfit.empty()) choice_.note("2:4, dense: " + misfit);
    else if (!aligned) choice_.note("2:4, dense: operands that aren't aligned to 16 bytes");
    else if (!capturing || compressed_->there()) candidates.push_back({"2:4", [&] { multiply_2_of_4(run, p, a, c, finish); }, [&] { compressed_->drop(); }});
  }
  if (blocks_ && (!capturing || blocks_->prepared())) candidates.push_back({"blocks", [&] { blocks_->run(run, a, p.m, p.lda, c, finish); }, [&] { blocks_->drop(); }});
  candidates[choice_.choose(run, p.m, candidates)].run();
}

}  // namespace infopt::cuda

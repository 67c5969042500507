#include "lib/runtime/cuda/product.h"

#include <algorithm>
#include <limits>

#include "lib/ops/broadcast.h"

namespace infopt::cuda {

std::vector<Batches> regular_batches(const LeadingAxes& lead) {
  const int64_t all = element_count(lead.result);
  std::vector<Batches> out;
  if (all == 0) return out;
  const Loops loops = plan_loops(lead.result, {lead.a, lead.b});
  const size_t depth = loops.sizes.size();
  const size_t longest = static_cast<size_t>(std::max_element(loops.sizes.begin(), loops.sizes.end()) - loops.sizes.begin());
  int64_t inside = 1;  // results of the loops inside of the longest
  for (size_t d = longest + 1; d < depth; ++d) inside *= loops.sizes[d];
  const int64_t count = loops.sizes[longest];
  for (int64_t i = 0; i < all / count; ++i) {
    Batches b{count, 0, 0, i / inside * inside * count + i % inside, loops.strides[0][longest], loops.strides[1][longest], inside};
    int64_t rest = i;
    for (size_t d = depth; d-- > 0;) {
      if (d == longest) continue;
      const int64_t place = rest % loops.sizes[d];
      rest /= loops.sizes[d];
      b.a += place * loops.strides[0][d];
      b.b += place * loops.strides[1][d];
    }
    out.push_back(b);
  }
  return out;
}

namespace {

bool library_knows(const PostActivation& post, MatrixProduct& p) {
  if (post.kind == PostActivation::Clip && post.low == 0 && post.high == std::numeric_limits<float>::infinity()) p.activation = MatrixProduct::Relu;
  else if (post.kind == PostActivation::GeluTanh) p.activation = MatrixProduct::Gelu;
  return p.activation != MatrixProduct::None;
}

const std::byte* moved(const void* p, int64_t bytes) { return static_cast<const std::byte*>(p) + bytes; }

}  // namespace

void multiply_floats(CudaRun& run, MatrixProduct p, const LeadingAxes& lead, const void* a, const void* b, void* c, const Finish& finish) {
  const int64_t all = element_count(lead.result), size = static_cast<int64_t>(bits_of(p.type) / 8);
  p.out = p.type;
  Finish left = finish;
  p.ldc = p.n;
  if (p.k == 0) {
    run.stream().fill(c, 0, static_cast<size_t>(all * p.m * p.n * size));
    return finish_rows(run.stream(), p.type, c, all * p.m, p.n, left);
  }
  p.lda = p.transpose_a ? p.m : p.k;
  p.ldb = p.transpose_b ? p.k : p.n;
  const void* residual = nullptr;
  // A whole C of Gemm is a residual too.
  const bool whole = left.bias && left.bias_row == p.n && left.bias_column == 1 && all == 1 && !left.residual;
  if (left.bias && left.bias_row == 0 && left.bias_column == 1 && left.bias_scale == 1 && p.n > 1) p.bias = true;
  else if (whole) residual = left.bias, p.beta = left.bias_scale;
  const void* bias = p.bias ? left.bias : nullptr;
  if (p.bias || whole) left.bias = nullptr;
  if (!left.bias && left.residual) {
    residual = left.residual;
    left.residual = nullptr;
    p.beta = 1;
  }
  if (!left.bias && !left.residual && library_knows(left.post, p)) left.post = {};
  for (const Batches& g : regular_batches(lead)) {
    p.batch = g.count;
    p.stride_a = g.stride_a * p.m * p.k;
    p.stride_b = g.stride_b * p.k * p.n;
    p.stride_c = g.stride_c * p.m * p.n;
    const int64_t at = g.c * p.m * p.n * size;
    run.libraries().multiply(run.stream(), p, moved(a, g.a * p.m * p.k * size), moved(b, g.b * p.k * p.n * size), const_cast<std::byte*>(moved(c, at)), bias, residual ? moved(residual, at) : nullptr);
  }
  finish_rows(run.stream(), p.type, c, all * p.m, p.n, left);
}

}  // namespace infopt::cuda

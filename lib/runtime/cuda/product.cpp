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

Ending end_in_library(MatrixProduct& p, const Finish& finish, bool one_bias) {
  Ending end{.left = finish};
  Finish& left = end.left;
  // A bias as large as the result is a residual too.
  const bool whole = left.bias && left.bias_row == p.n && left.bias_column == 1 && one_bias && !left.residual;
  p.bias = left.bias && one_bias && left.bias_row == 0 && left.bias_column == 1 && left.bias_scale == 1;
  if (p.bias) end.bias = left.bias;
  else if (whole) end.added = left.bias, p.beta = left.bias_scale;
  if (p.bias || whole) left.bias = nullptr;
  if (!left.bias && left.residual) {
    end.added = left.residual;
    left.residual = nullptr;
    p.beta = 1;
  }
  if (!left.bias && !left.residual && library_knows(left.post, p)) left.post = {};
  return end;
}

void multiply_floats(CudaRun& run, MatrixProduct p, const LeadingAxes& lead, const void* a, const void* b, void* c, const Finish& finish) {
  const int64_t all = element_count(lead.result), size = static_cast<int64_t>(bits_of(p.type) / 8);
  p.out = p.type;
  p.ldc = p.n;
  if (p.k == 0) {
    run.stream().fill(c, 0, static_cast<size_t>(all * p.m * p.n * size));
    return finish_rows(run.stream(), p.type, c, all * p.m, p.n, finish);
  }
  p.lda = p.transpose_a ? p.m : p.k;
  p.ldb = p.transpose_b ? p.k : p.n;
  const Ending end = end_in_library(p, finish, true);
  for (const Batches& g : regular_batches(lead)) {
    p.batch = g.count;
    p.stride_a = g.stride_a * p.m * p.k;
    p.stride_b = g.stride_b * p.k * p.n;
    p.stride_c = g.stride_c * p.m * p.n;
    const int64_t at = g.c * p.m * p.n * size;
    run.libraries().multiply(run.stream(), p, moved(a, g.a * p.m * p.k * size), moved(b, g.b * p.k * p.n * size), const_cast<std::byte*>(moved(c, at)), end.bias, end.added ? moved(end.added, at) : nullptr);
  }
  finish_rows(run.stream(), p.type, c, all * p.m, p.n, end.left);
}

}  // namespace infopt::cuda

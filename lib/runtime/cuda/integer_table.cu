// A function of codes: 256 answers in shared memory, 16 codes a thread, in any layout.
#include "lib/base/error.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/launch.h"

namespace infopt::cuda {
namespace {

constexpr int kThreads = 256;

INFOPT_DEVICE unsigned look_up(const uint8_t* table, unsigned word) {
  return static_cast<unsigned>(table[word & 255u]) | static_cast<unsigned>(table[word >> 8 & 255u]) << 8 | static_cast<unsigned>(table[word >> 16 & 255u]) << 16 |
         static_cast<unsigned>(table[word >> 24]) << 24;
}

/// `aligned`: x and y are, to 16 bytes.
__global__ void look_up_codes(const uint8_t* x, uint8_t* y, int64_t count, const uint8_t* table, bool aligned) {
  __shared__ uint8_t answers[256];
  answers[threadIdx.x] = table[threadIdx.x];
  __syncthreads();
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, step = static_cast<int64_t>(gridDim.x) * kThreads, words = aligned ? count / 16 : 0;
  for (int64_t i = thread; i < words; i += step) {
    const uint4 w = reinterpret_cast<const uint4*>(x)[i];
    reinterpret_cast<uint4*>(y)[i] = make_uint4(look_up(answers, w.x), look_up(answers, w.y), look_up(answers, w.z), look_up(answers, w.w));
  }
  for (int64_t i = words * 16 + thread; i < count; i += step) y[i] = answers[x[i]];
}

class TableKernel : public CudaKernel {
 public:
  explicit TableKernel(const IntegerTable& how) : from_(how.from.dtype), to_(how.to.dtype), rank_(how.rank), entries_(Tensor::of<uint8_t>({256}, how.entries)) {}

  void run_cuda(CudaContext& c) const override {
    Layout layout;
    const Tensor* x = &c.in_any(0, layout);
    if (x->dtype() != from_) throw Error(ErrorKind::Malformed, "codes of " + std::string(name_of(x->dtype())) + " with a zero point of " + std::string(name_of(from_)));
    Shape shape = x->shape();
    if (shape.size() < rank_) {  // a constant in the table has more axes
      x = &c.in(0);
      layout = Layout::Plain;
      shape.insert(shape.begin(), rank_ - shape.size(), 1);
    }
    Tensor& y = c.out(0, to_, shape, layout);
    if (y.size() == 0) return;
    const auto* from = reinterpret_cast<const uint8_t*>(x->raw());
    const bool aligned = reinterpret_cast<uintptr_t>(from) % 16 == 0;
    INFOPT_LAUNCH(c.stream(), look_up_codes, {grid_for(y.size(), kThreads * 16)}, {kThreads}, 0, from, reinterpret_cast<uint8_t*>(y.mutable_raw()), y.size(),
                  entries_.get(c.run()).data<uint8_t>(), aligned);
  }
  std::string describe() const override { return "table of 256 codes"; }

 private:
  DType from_, to_;
  size_t rank_;
  OnDevice entries_;
};

}  // namespace

std::unique_ptr<Kernel> make_integer_table(IntegerTable how) { return std::make_unique<TableKernel>(how); }

}  // namespace infopt::cuda

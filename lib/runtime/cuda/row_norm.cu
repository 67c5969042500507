#include "lib/runtime/cuda/row_norm.h"

#include "lib/base/error.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/element.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/team.h"

namespace infopt::cuda {
namespace {

struct Plan {
  RowNorm norm;
  int64_t room;   ///< elements that each row has in shared memory; 0: none
  bool by_four, gain_by_four, bias_by_four, other_by_four, codes_by_four;
};

template <class W> INFOPT_DEVICE void read_factor(const RowFactor& f, bool by_four, int64_t row, int64_t i, int count, W (&v)[4]) {
  const int64_t at = row * f.stride + i;
  if (by_four) return load_four(f.type, f.data, at, v);
  INFOPT_UNROLL for (int k = 0; k < 4; ++k) v[k] = k < count ? load_one<W>(f.type, f.data, at + k) : W(0);
}

/// v += other, which `sum` then gets.
template <class W> INFOPT_DEVICE void add_row(const RowNorm& norm, bool by_four, int64_t row, int64_t i, int count, W (&v)[4]) {
  W more[4];
  read_factor({norm.other, norm.from, norm.n}, by_four, row, i, count, more);
  INFOPT_UNROLL for (int k = 0; k < 4; ++k) {
    v[k] += more[k];
    if (norm.from == DType::F16) v[k] = static_cast<W>(Quantizer::rounded<half>(static_cast<float>(v[k])));
    if (norm.from == DType::BF16) v[k] = static_cast<W>(Quantizer::rounded<bfloat16>(static_cast<float>(v[k])));
  }
  if (!norm.sum) return;
  const int64_t at = row * norm.n + i;
  if (by_four) return store_some(norm.from, norm.sum, at, v, 4);
  INFOPT_UNROLL for (int k = 0; k < 4; ++k)
    if (k < count) store_one(norm.from, norm.sum, at + k, v[k]);
}

/// A team for each row: its mean, what is left around it, and the result; the row is read once where shared memory holds it.
template <class W, bool kBlock> __global__ void __launch_bounds__(1024) normalize_rows(const __grid_constant__ Plan plan) {
  const RowNorm& norm = plan.norm;
  const int lanes = kBlock ? static_cast<int>(blockDim.x) : 32, teams = static_cast<int>(blockDim.x) / lanes, team = static_cast<int>(threadIdx.x) / lanes;
  W* cache = plan.room ? shared_memory<W>() + team * plan.room : nullptr;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * teams + team; row < norm.rows; row += static_cast<int64_t>(gridDim.x) * teams) {
    const RowPart<W> part{norm.x, row * norm.n, norm.n, cache, static_cast<int>(threadIdx.x) % lanes, lanes, norm.from, plan.by_four};
    W total = W(0), mean = W(0), v[4];
    for (int64_t i = part.first(); i < norm.n; i += part.step()) {
      part.read(i, v, W(0));
      if (norm.other) add_row(norm, plan.other_by_four, row, i, part.count(i), v);
      part.keep(i, v);
      total += norm.centered ? (v[0] + v[1]) + (v[2] + v[3]) : (v[0] * v[0] + v[1] * v[1]) + (v[2] * v[2] + v[3] * v[3]);
    }
    total = team_combine<kBlock>(total, Plus<W>{}, W(0));
    if (norm.centered) {
      mean = total / static_cast<W>(norm.n);
      total = W(0);
      for (int64_t i = part.first(); i < norm.n; i += part.step()) {
        part.again(i, v, mean);
        const int count = part.count(i);
        INFOPT_UNROLL for (int k = 0; k < 4; ++k)
          if (k < count) total += (v[k] - mean) * (v[k] - mean);
      }
      total = team_combine<kBlock>(total, Plus<W>{}, W(0));
    }
    const W inverse = W(1) / std::sqrt(total / static_cast<W>(norm.n) + static_cast<W>(norm.epsilon));
    for (int64_t i = part.first(); i < norm.n; i += part.step()) {
      const int count = part.count(i);
      W gain[4], bias[4] = {};
      part.again(i, v, W(0));
      read_factor(norm.gain, plan.gain_by_four, row, i, count, gain);
      if (norm.bias.data) read_factor(norm.bias, plan.bias_by_four, row, i, count, bias);
      INFOPT_UNROLL for (int k = 0; k < 4; ++k) v[k] = (v[k] - mean) * inverse * gain[k] + bias[k];
      if (norm.codes.codes) norm.codes.store(row * norm.n + i, v, count, plan.codes_by_four);
      if (!norm.y) continue;
      if (plan.by_four) {
        store_some(norm.to, norm.y, row * norm.n + i, v, 4);
      } else {
        INFOPT_UNROLL for (int k = 0; k < 4; ++k)
          if (k < count) store_one(norm.to, norm.y, row * norm.n + i + k, v[k]);
      }
    }
    if (threadIdx.x % lanes == 0) {
      if (norm.means) norm.means[row] = static_cast<float>(mean);
      if (norm.inverses) norm.inverses[row] = static_cast<float>(inverse);
    }
  }
}

template <class W> void start(Stream& stream, const RowNorm& norm) {
  const RowPlan rows = plan_rows(norm.rows, norm.n, sizeof(W), true);
  Plan plan{norm, rows.shared ? rows.room : 0, rows_by_four(norm.from, norm.x, norm.n), rows_by_four(norm.gain.type, norm.gain.data, norm.n), rows_by_four(norm.bias.type, norm.bias.data, norm.n), rows_by_four(norm.from, norm.other, norm.n) && rows_by_four(norm.from, norm.sum, norm.n),
            rows_by_four(DType::U8, norm.codes.codes, norm.n)};
  if (rows.lanes == 32) INFOPT_LAUNCH(stream, (normalize_rows<W, false>), rows.blocks, rows.threads, rows.shared, plan);
  else INFOPT_LAUNCH(stream, (normalize_rows<W, true>), rows.blocks, rows.threads, rows.shared, plan);
}

class FusedRowNormKernel : public CudaKernel {
 public:
  explicit FusedRowNormKernel(FusedRowNorm how)
      : gain_(std::move(how.gain)), bias_(std::move(how.bias)), epsilon_(how.epsilon), centered_(how.centered), adds_(how.adds), keeps_sum_(how.keeps_sum), sum_output_(how.sum_output),
        codes_(how.codes), writes_rows_(!how.codes || how.keeps_rows), rows_output_(how.rows_output) {}

  void run_cuda(CudaContext& context) const override {
    Tensor x = context.in(0);
    const DType dtype = x.dtype();
    const int64_t n = gain_.host().size();
    if (dtype != gain_.host().dtype()) throw Error(ErrorKind::Malformed, "a normalization of " + std::string(name_of(dtype)) + " by " + std::string(name_of(gain_.host().dtype())));
    if (bias_.defined() && bias_.host().size() != n) throw Error(ErrorKind::Malformed, "a gain of " + std::to_string(n) + " and a bias of " + std::to_string(bias_.host().size()));
    Tensor other, sum;
    if (adds_) {
      other = context.in(1);
      if (other.dtype() != dtype || (dtype != DType::F32 && !is_16_bit_float(dtype))) throw Error(ErrorKind::Malformed, "a sum of " + std::string(name_of(dtype)) + " and " + std::string(name_of(other.dtype())));
      const Shape shape = broadcast_shape(x.shape(), other.shape());
      if (keeps_sum_) sum = context.out(sum_output_, dtype, shape);
      if (shape.empty() || x.shape() != shape || other.shape() != shape || shape.back() != n || !row_norm_adds(n)) {
        if (!keeps_sum_) sum = context.scratch(dtype, shape);
        run_elements(context.stream(), Compute::Float, {load(0), with_operand(Fn::Add, 1)}, {operand_of(x), operand_of(other)}, shape, dtype, sum.mutable_raw());
        x = sum;
        other = sum = {};
      }
    }
    if (x.rank() < 1) throw Error(ErrorKind::Malformed, "a normalization of one number");
    if (x.dim(-1) == 1) {  // one number a row, which the gain makes n: as many equal ones have the same mean
      Shape wide = x.shape();
      wide.back() = n;
      Tensor repeated = context.scratch(dtype, wide);
      run_elements(context.stream(), Compute::Float, {load(0)}, {operand_of(x)}, wide, dtype, repeated.mutable_raw());
      x = repeated;
    }
    if (x.dim(-1) != n) throw Error(ErrorKind::Malformed, "the shape " + to_string(x.shape()) + " doesn't end with the gain's " + std::to_string(n));
    Tensor y, codes;
    if (writes_rows_) y = context.out(rows_output_, dtype, x.shape());
    if (codes_) codes = context.out(0, codes_->type, x.shape());
    if (x.size() == 0) return;
    RowNorm norm{x.raw(), y.defined() ? y.mutable_raw() : nullptr, x.size() / n, n, dtype, dtype, {gain_.get(context.run()).raw(), gain_.host().dtype()}, {}, epsilon_, centered_};
    if (bias_.defined()) norm.bias = {bias_.get(context.run()).raw(), bias_.host().dtype()};
    if (other.defined()) norm.other = other.raw();
    if (sum.defined()) norm.sum = sum.mutable_raw();
    if (codes_) norm.codes = CodeWriter::of(*codes_, dtype, codes.mutable_raw());
    run_row_norm(context.stream(), norm);
  }

  std::string describe() const override { return what() + (adds_ ? ", with the sum before it" : "") + (codes_ ? ", to codes" : ""); }

 private:
  std::string what() const { return centered_ ? "layer normalization of rows" : "root mean square normalization of rows"; }
  OnDevice gain_, bias_;
  float epsilon_;
  bool centered_, adds_, keeps_sum_;
  size_t sum_output_;
  std::optional<CodeEnd> codes_;
  bool writes_rows_;
  size_t rows_output_;
};

}  // namespace

bool row_norm_adds(int64_t n) { return plan_rows(1, n, sizeof(float), true).shared > 0; }

void run_row_norm(Stream& stream, const RowNorm& norm) {
  if (norm.rows == 0) return;
  if (norm.from == DType::F64) start<double>(stream, norm);
  else start<float>(stream, norm);
}

std::unique_ptr<Kernel> make_row_norm(FusedRowNorm how) { return std::make_unique<FusedRowNormKernel>(std::move(how)); }

}  // namespace infopt::cuda

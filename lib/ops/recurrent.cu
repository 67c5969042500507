// RNN, GRU and LSTM on the device: the inputs' share of all gates is one product; then a kernel for each step (GRU, where the reset comes before the
// product: two) has a warp for each unit of the state, which reads the unit's rows of R once for several entries of the batch. Both directions at once.
#include "lib/ops/recurrent.h"

#include <algorithm>

#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/element.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/moves.h"
#include "lib/runtime/cuda/product.h"

namespace infopt::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kEntries = 8;  ///< of the batch, that a warp takes where there are several

enum class Phase { Rnn, Lstm, Gru, GruReset, GruRest };

template <Phase phase> inline constexpr int kGates = phase == Phase::Lstm ? 4 : phase == Phase::Gru ? 3 : phase == Phase::GruReset ? 2 : 1;

/// One step of both directions; dense states are [directions, batch, hidden].
struct Recurrence {
  const float* inputs;  ///< their share: the gates of step t, entry b are at t·input_t + b·input_b
  const float *r, *bias, *peepholes;
  const int32_t* lengths;
  const float* state;
  float *next, *cell, *y;
  float *update, *reset;  ///< of GRU between its two kernels
  int64_t input_t, input_b, y_t, y_b, y_d;
  int64_t steps, batch, hidden, rows, t;
  Complaint* complaint;
  float clip;
  bool couple, reverse[2];
  RecurrentActivation f[2][3];
};

INFOPT_DEVICE float apply(const RecurrentActivation& f, float x) {
  switch (f.kind) {
    case RecurrentActivation::Relu: return fmaxf(x, 0.0f);
    case RecurrentActivation::Tanh: return tanhf(x);
    case RecurrentActivation::Sigmoid: return 1.0f / (1.0f + expf(-x));
    case RecurrentActivation::Affine: return f.alpha * x + f.beta;
    case RecurrentActivation::LeakyRelu: return x >= 0 ? x : f.alpha * x;
    case RecurrentActivation::ThresholdedRelu: return x > f.alpha ? x : 0;
    case RecurrentActivation::ScaledTanh: return f.alpha * tanhf(f.beta * x);
    case RecurrentActivation::HardSigmoid: return fminf(fmaxf(f.alpha * x + f.beta, 0.0f), 1.0f);
    case RecurrentActivation::Elu: return x >= 0 ? x : f.alpha * (expf(x) - 1);
    case RecurrentActivation::Softsign: return x / (1 + fabsf(x));
    case RecurrentActivation::Softplus: return x > 20 ? x : log1pf(expf(x));
  }
  return x;
}

/// What one thread finishes: unit j of an entry.
struct Unit {
  const Recurrence& s;
  int64_t d, j;
  const float* share;  ///< the inputs', at the entry's step

  INFOPT_DEVICE float bias(int part, int gate) const { return s.bias ? s.bias[(2 * d + part) * s.rows + gate * s.hidden + j] : 0.0f; }
  /// What activations see: the inputs' share, its bias and the state's, but for GRU's last gate, whose second bias is the product's.
  INFOPT_DEVICE float input(int gate, bool both = true) const { return share[gate * s.hidden + j] + bias(0, gate) + (both ? bias(1, gate) : 0.0f); }
  INFOPT_DEVICE float peephole(int which) const { return s.peepholes ? s.peepholes[(3 * d + which) * s.hidden + j] : 0.0f; }
  INFOPT_DEVICE float activated(int f, float v) const { return apply(s.f[d][f], s.clip > 0 ? fminf(fmaxf(v, -s.clip), s.clip) : v); }

  INFOPT_DEVICE float lstm(const float* sums, float& cell) const {
    const float in = activated(0, input(0) + sums[0] + peephole(0) * cell);
    const float forget = s.couple ? 1 - in : activated(0, input(2) + sums[2] + peephole(2) * cell);
    const float fresh = activated(1, input(3) + sums[3]);
    cell = forget * cell + in * fresh;
    return activated(0, input(1) + sums[1] + peephole(1) * cell) * apply(s.f[d][2], cell);
  }
  INFOPT_DEVICE float mixed(float update, float rest, float before) const { return (1 - update) * activated(1, input(2, false) + rest) + update * before; }
};

/// Unit j of entry e, from the products of its gates with the state.
template <Phase phase> INFOPT_DEVICE void finish(const Recurrence& s, const float* sums, int64_t d, int64_t e, int64_t j) {
  const int64_t at = (d * s.batch + e) * s.hidden + j;
  int64_t length = s.steps;
  if (s.lengths) {
    length = s.lengths[e];
    if (length < 0 || length > s.steps) *s.complaint = Complaint::Index, length = 0;
  }
  const bool over = s.t >= length;
  const int64_t step = s.reverse[d] && !over ? length - 1 - s.t : s.t;
  const Unit u{s, d, j, s.inputs + step * s.input_t + e * s.input_b + d * s.rows};
  const float before = s.state[at];
  if constexpr (phase == Phase::GruReset) {
    s.update[at] = over ? 0.0f : u.activated(0, u.input(0) + sums[0]);
    s.reset[at] = over ? 0.0f : before * u.activated(0, u.input(1) + sums[1]);
    return;
  }
  float h = before;
  if (!over) {
    if constexpr (phase == Phase::Rnn) h = u.activated(0, u.input(0) + sums[0]);
    if constexpr (phase == Phase::Lstm) h = u.lstm(sums, s.cell[at]);
    if constexpr (phase == Phase::GruRest) h = u.mixed(s.update[at], sums[0] + u.bias(1, 2), before);
    if constexpr (phase == Phase::Gru) {
      const float update = u.activated(0, u.input(0) + sums[0]), reset = u.activated(0, u.input(1) + sums[1]);
      h = u.mixed(update, (sums[2] + u.bias(1, 2)) * reset, before);
    }
    s.y[step * s.y_t + e * s.y_b + d * s.y_d + j] = h;
  }
  s.next[at] = h;
}

template <Phase phase, int B> __global__ void __launch_bounds__(kWarps * 32) recur(const __grid_constant__ Recurrence s) {
  constexpr int G = kGates<phase>, first = phase == Phase::GruRest ? 2 : 0;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32, d = blockIdx.z, entry = static_cast<int64_t>(blockIdx.y) * B;
  if (j >= s.hidden) return;  // a whole warp
  const float* state = (phase == Phase::GruRest ? s.reset : s.state) + (d * s.batch + entry) * s.hidden;
  const float* r = s.r + (d * s.rows + first * s.hidden + j) * s.hidden;
  const int entries = s.batch - entry < B ? static_cast<int>(s.batch - entry) : B;
  float sums[G][B];
  INFOPT_UNROLL for (int g = 0; g < G; ++g)
    INFOPT_UNROLL for (int b = 0; b < B; ++b) sums[g][b] = 0;
  for (int64_t k = lane; k < s.hidden; k += 32) {
    float w[G];
    INFOPT_UNROLL for (int g = 0; g < G; ++g) w[g] = r[g * s.hidden * s.hidden + k];
    INFOPT_UNROLL for (int b = 0; b < B; ++b) {
      const float v = b < entries ? state[b * s.hidden + k] : 0.0f;
      INFOPT_UNROLL for (int g = 0; g < G; ++g) sums[g][b] += v * w[g];
    }
  }
  float mine[G] = {};
  INFOPT_UNROLL for (int b = 0; b < B; ++b)
    INFOPT_UNROLL for (int g = 0; g < G; ++g) {
      const float sum = b < entries ? warp_sum(sums[g][b]) : 0.0f;
      if (lane == b) mine[g] = sum;
    }
  if (lane < entries) finish<phase>(s, mine, d, entry + lane, j);
}

template <Phase phase> void launch(Stream& stream, const Recurrence& s, int64_t directions) {
  const int64_t units = blocks_for(s.hidden, kWarps);
  if (s.batch == 1) INFOPT_LAUNCH(stream, (recur<phase, 1>), {units, 1, directions}, {kWarps * 32}, 0, s);
  else INFOPT_LAUNCH(stream, (recur<phase, kEntries>), {units, blocks_for(s.batch, kEntries), directions}, {kWarps * 32}, 0, s);
}

void launch_step(Stream& stream, const Recurrence& s, const RecurrentOptions& o) {
  const auto directions = static_cast<int64_t>(o.directions.size());
  if (o.cell == Cell::Rnn) return launch<Phase::Rnn>(stream, s, directions);
  if (o.cell == Cell::Lstm) return launch<Phase::Lstm>(stream, s, directions);
  if (!o.resets_before()) return launch<Phase::Gru>(stream, s, directions);
  launch<Phase::GruReset>(stream, s, directions);
  launch<Phase::GruRest>(stream, s, directions);
}

void cast_to(Stream& stream, const Tensor& from, Tensor& to) {
  if (to.size() > 0) run_elements(stream, Compute::Float, {load(0)}, {operand_of(from)}, to.shape(), to.dtype(), to.mutable_raw());
}

/// A run's tensors in float32.
class Run {
 public:
  Run(CudaContext& context, const RecurrentOptions& options) : c_(context), o_(options), dtype_(context.in(0).dtype()) {
    if (dtype_ != DType::F32 && dtype_ != DType::F16 && dtype_ != DType::BF16) unsupported("a recurrent net of " + std::string(name_of(dtype_)) + " on CUDA");
  }

  void operator()() {
    const Tensor x = input(0), w = input(1), r = input(2);
    if (x.rank() != 3) malformed("X should have 3 dimensions, not the shape " + to_string(x.shape()));
    if (w.rank() != 3 || r.rank() != 3) malformed("W and R should have 3 dimensions, not the shapes " + to_string(w.shape()) + " and " + to_string(r.shape()));
    steps_ = x.dim(o_.batch_first ? 1 : 0), batch_ = x.dim(o_.batch_first ? 0 : 1), hidden_ = r.dim(2);
    const int64_t rows = o_.gates * hidden_, depth = x.dim(2);
    if (o_.hidden != 0 && o_.hidden != hidden_) malformed("hidden_size is " + std::to_string(o_.hidden) + ", R has shape " + to_string(r.shape()));
    check(w, {count_, rows, depth}, "W");
    check(r, {count_, rows, hidden_}, "R");
    const Tensor bias = optional(3, {count_, 2 * rows}, "B"), peepholes = o_.cell == Cell::Lstm ? optional(7, {count_, 3 * hidden_}, "P") : Tensor();
    Tensor h = state_from(5), cell = o_.cell == Cell::Lstm ? state_from(6) : Tensor();
    Tensor& given = c_.out(0, dtype_, o_.batch_first ? Shape{batch_, steps_, count_, hidden_} : Shape{steps_, count_, batch_, hidden_});
    Tensor y = dtype_ == DType::F32 ? given : c_.scratch(DType::F32, given.shape());
    if (y.size() > 0 && c_.has(4)) c_.stream().fill(y.mutable_raw(), 0, y.bytes());  // an entry's steps behind its length
    if (batch_ * hidden_ > 0 && steps_ > 0) run_steps(x, w, r, bias, peepholes, h, cell, y);
    if (dtype_ != DType::F32) cast_to(c_.stream(), y, given);
    give_state(1, h);
    if (cell.defined()) give_state(2, cell);
  }

 private:
  Tensor input(size_t i) {
    const Tensor& t = c_.in(i);
    if (t.dtype() == DType::F32) return t;
    Tensor to = c_.scratch(DType::F32, t.shape());
    cast_to(c_.stream(), t, to);
    return to;
  }
  static void check(const Tensor& t, const Shape& wanted, const char* name) {
    if (t.shape() != wanted) malformed(std::string(name) + " has shape " + to_string(t.shape()) + " where " + to_string(wanted) + " is needed");
  }
  Tensor optional(size_t i, const Shape& wanted, const char* name) {
    if (!c_.has(i)) return {};
    Tensor t = input(i);
    check(t, wanted, name);
    return t;
  }

  Shape state_shape() const { return o_.batch_first ? Shape{batch_, count_, hidden_} : Shape{count_, batch_, hidden_}; }
  /// A state from one order of its first two axes to the other.
  void swap_axes(const Tensor& from, Tensor& to) {
    const Shape shape = to.shape();
    copy_box(c_.stream(), sizeof(float), shape, to.mutable_raw(), {shape[1] * shape[2], shape[2], 1}, from.raw(), {shape[2], shape[0] * shape[2], 1});
  }
  /// [directions, batch, hidden], to be written.
  Tensor state_from(size_t i) {
    Tensor state = c_.scratch(DType::F32, {count_, batch_, hidden_});
    if (state.size() == 0) return state;
    const Tensor given = optional(i, state_shape(), "the initial state");
    if (!given.defined()) c_.stream().fill(state.mutable_raw(), 0, state.bytes());
    else if (o_.batch_first) swap_axes(given, state);
    else c_.stream().copy_on_device(state.mutable_raw(), given.raw(), state.bytes());
    return state;
  }
  void give_state(size_t i, const Tensor& state) {
    if (!c_.wanted(i)) return;
    Tensor lies = state;
    if (o_.batch_first) {
      lies = c_.scratch(DType::F32, state_shape());
      if (lies.size() > 0) swap_axes(state, lies);
    }
    if (dtype_ == DType::F32) return c_.set(i, lies);
    cast_to(c_.stream(), lies, c_.out(i, dtype_, state_shape()));
  }

  void run_steps(const Tensor& x, const Tensor& w, const Tensor& r, const Tensor& bias, const Tensor& peepholes, Tensor& h, Tensor& cell, Tensor& y) {
    const int64_t rows = o_.gates * hidden_, all_rows = count_ * rows;
    Tensor inputs = c_.scratch(DType::F32, {steps_ * batch_, all_rows}), other = c_.scratch(DType::F32, h.shape()), between;
    if (o_.resets_before()) between = c_.scratch(DType::F32, {2, count_, batch_, hidden_});
    const MatrixProduct p{.type = DType::F32, .transpose_b = true, .m = steps_ * batch_, .n = all_rows, .k = x.dim(2)};
    multiply_floats(c_.run(), p, {{}, {}, {}}, x.raw(), w.raw(), inputs.mutable_raw(), {});
    Recurrence s{};
    s.inputs = inputs.data<float>(), s.r = r.data<float>();
    s.bias = bias.defined() ? bias.data<float>() : nullptr, s.peepholes = peepholes.defined() ? peepholes.data<float>() : nullptr;
    s.lengths = lengths();
    s.cell = cell.defined() ? cell.mutable_data<float>() : nullptr, s.y = y.mutable_data<float>();
    if (between.defined()) s.update = between.mutable_data<float>(), s.reset = s.update + h.size();
    const bool first = o_.batch_first;
    s.input_t = first ? all_rows : batch_ * all_rows, s.input_b = first ? steps_ * all_rows : all_rows;
    s.y_t = count_ * batch_ * hidden_, s.y_b = hidden_, s.y_d = batch_ * hidden_;
    if (first) s.y_t = count_ * hidden_, s.y_b = steps_ * s.y_t, s.y_d = hidden_;
    s.steps = steps_, s.batch = batch_, s.hidden = hidden_, s.rows = rows;
    s.complaint = c_.run().complaint();
    s.clip = o_.clip, s.couple = o_.couple;
    for (size_t d = 0; d < o_.directions.size(); ++d) {
      s.reverse[d] = o_.directions[d].reverse;
      std::copy(o_.directions[d].f.begin(), o_.directions[d].f.end(), s.f[d]);
    }
    for (s.t = 0; s.t < steps_; ++s.t) {
      s.state = h.data<float>(), s.next = other.mutable_data<float>();
      launch_step(c_.stream(), s, o_);
      std::swap(h, other);
    }
  }
  const int32_t* lengths() {
    if (!c_.has(4)) return nullptr;
    const Tensor& t = c_.in(4);
    if (t.dtype() != DType::I32) malformed("sequence lengths of " + std::string(name_of(t.dtype())));
    if (t.size() != batch_) malformed(std::to_string(t.size()) + " sequence lengths for a batch of " + std::to_string(batch_));
    return t.data<int32_t>();
  }

  CudaContext& c_;
  const RecurrentOptions& o_;
  DType dtype_;
  int64_t count_ = static_cast<int64_t>(o_.directions.size()), steps_ = 0, batch_ = 0, hidden_ = 0;
};

template <Cell cell> std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  need_type(spec, 0, {DType::F32, DType::F16, DType::BF16});
  need_type(spec, 4, {DType::I32});
  return make_cuda_kernel([o = RecurrentOptions::of(spec.node, cell)](CudaContext& context) { Run(context, o)(); }, "one product for the inputs of all steps, then a kernel for each step");
}

}  // namespace

std::vector<CudaOp> cuda_recurrent() {
  return {{.name = "RNN", .since = 7, .make = &make<Cell::Rnn>}, {.name = "GRU", .since = 7, .make = &make<Cell::Gru>}, {.name = "LSTM", .since = 7, .make = &make<Cell::Lstm>}};
}

}  // namespace infopt::cuda

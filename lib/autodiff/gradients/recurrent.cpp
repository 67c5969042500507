// RNN, GRU and LSTM by backpropagation through time: the states are computed again, with the gates that made them, then passed from the last step to the
// first. What a step's gates get goes to R and the state before it; X, W and R get theirs in one product over all steps.
#include <algorithm>
#include <cmath>

#include "lib/autodiff/gradient.h"
#include "lib/base/error.h"
#include "lib/base/float_math.h"
#include "lib/base/simd.h"
#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"
#include "lib/ops/recurrent.h"
#include "lib/runtime/cpu/dnnl_adapter.h"

namespace infopt {
namespace {

using Activation = RecurrentActivation;

INFOPT_SIMD void tanh_row(float* p, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = tanh_f(p[i]);
}
INFOPT_SIMD void sigmoid_row(float* p, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = sigmoid_f(p[i]);
}
INFOPT_SIMD void add_row(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}

bool is_known(const Activation& f) { return f.kind == Activation::Tanh || f.kind == Activation::Sigmoid || f.kind == Activation::Relu; }
void apply(const Activation& f, float* p, int64_t n) {
  if (f.kind == Activation::Tanh) return tanh_row(p, n);
  if (f.kind == Activation::Sigmoid) return sigmoid_row(p, n);
  for (int64_t i = 0; i < n; ++i) p[i] = std::max(p[i], 0.0f);
}
/// f′ by what f gave.
float slope(const Activation& f, float y) { return f.kind == Activation::Tanh ? 1 - y * y : f.kind == Activation::Sigmoid ? y * (1 - y) : y > 0 ? 1.0f : 0.0f; }

Tensor swapped(const Tensor& t) {
  Shape shape = t.shape(), strides = row_major_strides(shape);
  std::swap(shape[0], shape[1]);
  std::swap(strides[0], strides[1]);
  return gather_strided(t, shape, 0, strides);
}

/// Rows [from, from + count) of a matrix.
Tensor rows_of(const Tensor& t, int64_t from, int64_t count) { return t.slice_front(from, count); }

/// Everything of one direction, matrices with a row for each step and entry of the batch.
struct Direction {
  Tensor w, r;                         ///< [gates·hidden, input], [gates·hidden, hidden]
  std::vector<float> bias_w, bias_r;   ///< zeros where there is none
  Tensor gates, rest, states, cells;   ///< as they were; rest: what a GRU's last gate had of the state; states and cells: before each step, then the last
  Tensor d_gates, d_state_gates;       ///< by what X gives to the gates, and what the state does
  Tensor shown;                        ///< LSTM: the last activation of each step's cell
  Tensor reset;                        ///< GRU that resets before the product: the state after it
};

class Unrolled {
 public:
  Unrolled(const RecurrentOptions& options, GradientContext& c, const cpu::Product& engine) : o_(options), c_(c), engine_(engine) {
    x_ = o_.batch_first ? swapped(c.in(0)) : c.in(0);
    steps_ = x_.dim(0), batch_ = x_.dim(1), input_ = x_.dim(2), hidden_ = c.in(2).dim(2), rows_ = o_.gates * hidden_, count_ = static_cast<int64_t>(o_.directions.size());
    lengths_.assign(static_cast<size_t>(batch_), steps_);
    if (c.has(4)) lengths_ = integers(c.in(4));
    x_ = x_.reshaped({steps_ * batch_, input_});
  }

  void run() {
    Tensor dx = Tensor::zeros(DType::F32, {steps_ * batch_, input_}), dw(DType::F32, c_.shape(1)), dr(DType::F32, c_.shape(2)), db = Tensor::zeros(DType::F32, {count_, 2 * rows_});
    Tensor dh0 = Tensor::zeros(DType::F32, {count_, batch_, hidden_}), dc0 = dh0.clone();
    const Tensor dy = turned(0), last = turned(1), last_cell = turned(2), h0 = initial(5), c0 = initial(6);
    for (int64_t d = 0; d < count_; ++d) {
      Direction now = open(d);
      forward(now, o_.directions[static_cast<size_t>(d)], h0.data<float>() + d * batch_ * hidden_, c0.data<float>() + d * batch_ * hidden_);
      float *dh = dh0.mutable_data<float>() + d * batch_ * hidden_, *dc = dc0.mutable_data<float>() + d * batch_ * hidden_;
      if (last.defined()) std::copy_n(last.data<float>() + d * batch_ * hidden_, batch_ * hidden_, dh);
      if (last_cell.defined()) std::copy_n(last_cell.data<float>() + d * batch_ * hidden_, batch_ * hidden_, dc);
      backward(now, o_.directions[static_cast<size_t>(d)], d, dy, dh, dc);
      gather(now, o_.directions[static_cast<size_t>(d)], d, dx, dw, dr, db);
    }
    Tensor whole = dx.reshaped({steps_, batch_, input_});
    give(0, o_.batch_first ? swapped(whole) : whole);
    give(1, dw);
    give(2, dr);
    give(3, db);
    give(5, o_.batch_first ? swapped(dh0) : dh0);
    give(6, o_.batch_first ? swapped(dc0) : dc0);
  }

 private:
  void give(size_t i, const Tensor& t) {
    if (c_.wants(i)) c_.give(i, t);
  }
  /// a·b or a·bᵀ, or aᵀ·b.
  Tensor times(const Tensor& a, bool ta, const Tensor& b, bool tb) const {
    Tensor y(DType::F32, {a.dim(ta ? 1 : 0), b.dim(tb ? 0 : 1)});
    if (y.size() > 0) engine_.run(a, ta, b, tb, false, nullptr, y);
    return y;
  }
  /// The gradient by an output, directions before the batch.
  Tensor turned(size_t output) const {
    if (output >= c_.outputs() || !c_.flows(output)) return {};
    const Tensor d = c_.dy(output);
    if (!o_.batch_first) return d;
    if (output > 0) return swapped(d);
    const Shape s = row_major_strides(d.shape());  // [batch, steps, directions, hidden]
    return gather_strided(d, {d.dim(1), d.dim(2), d.dim(0), d.dim(3)}, 0, {s[1], s[2], s[0], s[3]});
  }
  Tensor initial(size_t i) const {
    if (!c_.has(i)) return Tensor::zeros(DType::F32, {count_, batch_, hidden_});
    return o_.batch_first ? swapped(c_.in(i)) : c_.in(i);
  }

  Direction open(int64_t d) const {
    Direction now;
    now.w = rows_of(c_.in(1), d, 1).reshaped({rows_, input_});
    now.r = rows_of(c_.in(2), d, 1).reshaped({rows_, hidden_});
    now.bias_w.assign(static_cast<size_t>(rows_), 0);
    now.bias_r = now.bias_w;
    if (c_.has(3)) {
      const Tensor b = c_.in(3);
      std::copy_n(b.data<float>() + 2 * d * rows_, rows_, now.bias_w.begin());
      std::copy_n(b.data<float>() + (2 * d + 1) * rows_, rows_, now.bias_r.begin());
    }
    now.states = Tensor(DType::F32, {(steps_ + 1) * batch_, hidden_});
    if (o_.cell == Cell::Lstm) now.cells = Tensor(DType::F32, now.states.shape()), now.shown = Tensor(DType::F32, {steps_ * batch_, hidden_});
    if (o_.cell == Cell::Gru) now.rest = Tensor(DType::F32, {steps_ * batch_, hidden_});
    if (o_.resets_before()) now.reset = Tensor::zeros(DType::F32, {steps_ * batch_, hidden_});
    now.gates = Tensor(DType::F32, {steps_ * batch_, rows_});
    return now;
  }

  /// Where entry b's step t lies in the sequence; −1 behind its end.
  int64_t place(const RecurrentOptions::Direction& d, int64_t t, int64_t b) const {
    const int64_t length = lengths_[static_cast<size_t>(b)];
    return t >= length ? -1 : d.reverse ? length - 1 - t : t;
  }

  void forward(Direction& now, const RecurrentOptions::Direction& d, const float* h0, const float* c0) const {
    const Tensor all = times(x_, false, now.w, true);
    std::copy_n(h0, batch_ * hidden_, now.states.mutable_data<float>());
    if (now.cells.defined()) std::copy_n(c0, batch_ * hidden_, now.cells.mutable_data<float>());
    for (int64_t t = 0; t < steps_; ++t) {
      const Tensor before = rows_of(now.states, t * batch_, batch_);
      const Tensor product = times(before, false, o_.resets_before() ? rows_of(now.r, 0, 2 * hidden_) : now.r, true);
      const int64_t width = product.dim(1);
      for (int64_t b = 0; b < batch_; ++b) {
        const int64_t at = place(d, t, b);
        if (at < 0) continue;
        float* gate = now.gates.mutable_data<float>() + (t * batch_ + b) * rows_;
        const float *x = all.data<float>() + (at * batch_ + b) * rows_, *s = product.data<float>() + b * width;
        const int64_t early = o_.cell == Cell::Gru ? 2 * hidden_ : rows_;
        for (int64_t j = 0; j < rows_; ++j) gate[j] = x[j] + now.bias_w[static_cast<size_t>(j)] + (j < early ? s[j] + now.bias_r[static_cast<size_t>(j)] : 0.0f);
        if (o_.cell == Cell::Gru) open_gru(now, d, t * batch_ + b, s);
      }
      Tensor after;
      if (o_.resets_before()) after = times(rows_of(now.reset, t * batch_, batch_), false, rows_of(now.r, 2 * hidden_, hidden_), true);
      for (int64_t b = 0; b < batch_; ++b) step(now, d, t * batch_ + b, place(d, t, b) >= 0, after.defined() ? after.data<float>() + b * hidden_ : nullptr);
    }
  }

  /// A GRU's z and r, and what of the state the last gate sees.
  void open_gru(Direction& now, const RecurrentOptions::Direction& d, int64_t row, const float* product) const {
    float* gate = now.gates.mutable_data<float>() + row * rows_;
    apply(d.f[0], gate, 2 * hidden_);
    for (int64_t j = 0; j < hidden_; ++j) {
      if (o_.resets_before()) now.reset.mutable_data<float>()[row * hidden_ + j] = gate[hidden_ + j] * now.states.data<float>()[row * hidden_ + j];
      else now.rest.mutable_data<float>()[row * hidden_ + j] = product[2 * hidden_ + j] + now.bias_r[static_cast<size_t>(2 * hidden_ + j)];
    }
  }

  void step(Direction& now, const RecurrentOptions::Direction& d, int64_t row, bool active, const float* after) const {
    const int64_t n = hidden_, next = (row + batch_) * n, at = row * n;
    float *gate = now.gates.mutable_data<float>() + row * rows_, *h = now.states.mutable_data<float>(), *c = now.cells.defined() ? now.cells.mutable_data<float>() : nullptr;
    if (!active) {
      std::copy_n(h + at, n, h + next);
      if (c) std::copy_n(c + at, n, c + next);
    } else if (o_.cell == Cell::Lstm) {
      apply(d.f[0], gate, 3 * n);
      apply(d.f[1], gate + 3 * n, n);
      for (int64_t j = 0; j < n; ++j) c[next + j] = gate[2 * n + j] * c[at + j] + gate[j] * gate[3 * n + j];
      float* shown = now.shown.mutable_data<float>() + at;
      std::copy_n(c + next, n, shown);
      apply(d.f[2], shown, n);
      for (int64_t j = 0; j < n; ++j) h[next + j] = gate[n + j] * shown[j];
    } else if (o_.cell == Cell::Gru) {
      float* rest = now.rest.mutable_data<float>() + at;
      for (int64_t j = 0; j < n; ++j) {
        if (after) rest[j] = after[j] + now.bias_r[static_cast<size_t>(2 * n + j)];
        gate[2 * n + j] += after ? rest[j] : rest[j] * gate[n + j];
      }
      apply(d.f[1], gate + 2 * n, n);
      for (int64_t j = 0; j < n; ++j) h[next + j] = (1 - gate[j]) * gate[2 * n + j] + gate[j] * h[at + j];
    } else {
      apply(d.f[0], gate, n);
      std::copy_n(gate, n, h + next);
    }
  }

  /// dh and dc: by the last states, and at the end by the first.
  void backward(Direction& now, const RecurrentOptions::Direction& d, int64_t number, const Tensor& dy, float* dh, float* dc) const {
    now.d_gates = Tensor::zeros(DType::F32, {steps_ * batch_, rows_});
    now.d_state_gates = Tensor::zeros(DType::F32, {steps_ * batch_, rows_});
    for (int64_t t = steps_; t-- > 0;) {
      for (int64_t b = 0; b < batch_; ++b) {
        const int64_t at = place(d, t, b);
        if (at < 0) continue;
        float* own = dh + b * hidden_;
        if (dy.defined())
          for (int64_t j = 0; j < hidden_; ++j) own[j] += dy.data<float>()[((at * count_ + number) * batch_ + b) * hidden_ + j];
        close(now, d, t * batch_ + b, own, dc + b * hidden_);
      }
      pass_state(now, d, t, dh);
    }
  }

  /// From the state after a step to its gates; what of the state before stays in dh (and dc) without R.
  void close(Direction& now, const RecurrentOptions::Direction& d, int64_t row, float* dh, float* dc) const {
    const int64_t n = hidden_, at = row * n;
    const float *gate = now.gates.data<float>() + row * rows_, *h = now.states.data<float>();
    float *dg = now.d_gates.mutable_data<float>() + row * rows_, *ds = now.d_state_gates.mutable_data<float>() + row * rows_;
    for (int64_t j = 0; j < n; ++j) {
      if (o_.cell == Cell::Lstm) {
        const float *c = now.cells.data<float>(), in = gate[j], out = gate[n + j], forget = gate[2 * n + j], fresh = gate[3 * n + j], shown = now.shown.data<float>()[at + j];
        const float by_cell = dc[j] + dh[j] * out * slope(d.f[2], shown);
        dg[j] = by_cell * fresh * slope(d.f[0], in);
        dg[n + j] = dh[j] * shown * slope(d.f[0], out);
        dg[2 * n + j] = by_cell * c[at + j] * slope(d.f[0], forget);
        dg[3 * n + j] = by_cell * in * slope(d.f[1], fresh);
        dc[j] = by_cell * forget;
        dh[j] = 0;
      } else if (o_.cell == Cell::Gru) {
        const float z = gate[j], r = gate[n + j], fresh = gate[2 * n + j], by_fresh = dh[j] * (1 - z) * slope(d.f[1], fresh);
        dg[j] = dh[j] * (h[at + j] - fresh) * slope(d.f[0], z);
        dg[2 * n + j] = by_fresh;
        ds[2 * n + j] = o_.resets_before() ? by_fresh : by_fresh * r;
        if (!o_.resets_before()) dg[n + j] = by_fresh * now.rest.data<float>()[at + j] * slope(d.f[0], r);
        dh[j] *= z;
      } else {
        dg[j] = dh[j] * slope(d.f[0], gate[j]);
        dh[j] = 0;
      }
    }
    std::copy_n(dg, o_.cell == Cell::Gru ? 2 * n : rows_, ds);
  }

  /// What the step's gates had of the state goes through R.
  void pass_state(Direction& now, const RecurrentOptions::Direction& d, int64_t t, float* dh) const {
    const int64_t n = hidden_;
    const Tensor ds = rows_of(now.d_state_gates, t * batch_, batch_);
    if (o_.resets_before()) {
      Tensor last(DType::F32, {batch_, n});
      for (int64_t b = 0; b < batch_; ++b) std::copy_n(ds.data<float>() + b * rows_ + 2 * n, n, last.mutable_data<float>() + b * n);
      const Tensor by_reset = times(last, false, rows_of(now.r, 2 * n, n), false);
      for (int64_t b = 0; b < batch_; ++b) {
        const int64_t row = t * batch_ + b;
        if (place(d, t, b) < 0) continue;
        for (int64_t j = 0; j < n; ++j) {
          const float r = now.gates.data<float>()[row * rows_ + n + j], by = by_reset.data<float>()[b * n + j];
          dh[b * n + j] += by * r;
          const float dr = by * now.states.data<float>()[row * n + j] * slope(d.f[0], r);
          now.d_gates.mutable_data<float>()[row * rows_ + n + j] = dr;
          now.d_state_gates.mutable_data<float>()[row * rows_ + n + j] = dr;
        }
      }
    }
    const int64_t width = o_.resets_before() ? 2 * n : rows_;
    Tensor part(DType::F32, {batch_, width});
    for (int64_t b = 0; b < batch_; ++b) std::copy_n(now.d_state_gates.data<float>() + (t * batch_ + b) * rows_, width, part.mutable_data<float>() + b * width);
    const Tensor by_state = times(part, false, rows_of(now.r, 0, width), false);
    add_row(dh, by_state.data<float>(), batch_ * n);
  }

  /// X's, W's, R's and the biases' from all steps.
  void gather(const Direction& now, const RecurrentOptions::Direction& d, int64_t number, Tensor& dx, Tensor& dw, Tensor& dr, Tensor& db) const {
    Tensor ordered = Tensor::zeros(DType::F32, {steps_ * batch_, rows_});  // as X lies
    for (int64_t t = 0; t < steps_; ++t)
      for (int64_t b = 0; b < batch_; ++b)
        if (const int64_t at = place(d, t, b); at >= 0) std::copy_n(now.d_gates.data<float>() + (t * batch_ + b) * rows_, rows_, ordered.mutable_data<float>() + (at * batch_ + b) * rows_);
    if (c_.wants(0)) {
      const Tensor part = times(ordered, false, now.w, false);
      add_row(dx.mutable_data<float>(), part.data<float>(), dx.size());
    }
    if (c_.wants(1)) put(times(ordered, true, x_, false), number, dw);
    if (c_.wants(2)) {
      Tensor whole = times(now.d_state_gates, true, rows_of(now.states, 0, steps_ * batch_), false);
      if (o_.resets_before()) {
        const Tensor last = times(now.d_state_gates, true, now.reset, false);
        std::copy_n(last.data<float>() + 2 * hidden_ * hidden_, hidden_ * hidden_, whole.mutable_data<float>() + 2 * hidden_ * hidden_);
      }
      put(whole, number, dr);
    }
    for (int64_t i = 0; i < steps_ * batch_ && c_.wants(3); ++i) {
      add_row(db.mutable_data<float>() + 2 * number * rows_, now.d_gates.data<float>() + i * rows_, rows_);
      add_row(db.mutable_data<float>() + (2 * number + 1) * rows_, now.d_state_gates.data<float>() + i * rows_, rows_);
    }
  }
  void put(const Tensor& part, int64_t number, Tensor& whole) const { std::copy_n(part.data<float>(), part.size(), whole.mutable_data<float>() + number * part.size()); }

  const RecurrentOptions& o_;
  GradientContext& c_;
  const cpu::Product& engine_;
  Tensor x_;
  int64_t steps_ = 0, batch_ = 0, input_ = 0, hidden_ = 0, rows_ = 0, count_ = 0;
  std::vector<int64_t> lengths_;
};

template <Cell cell> GradientFunction recurrent(const KernelSpec& spec) {
  RecurrentOptions o = RecurrentOptions::of(spec.node, cell);
  const auto refuse = [&](const char* why) { throw Error(ErrorKind::Unsupported, "the gradient of " + spec.node.op + " with " + why); };
  if (o.clip > 0) refuse("clip");
  if (o.couple) refuse("input_forget");
  if (spec.node.input(7) != kNone) refuse("peepholes");
  for (const auto& d : o.directions)
    if (!std::all_of(d.f.begin(), d.f.end(), is_known)) refuse("other activations than Tanh, Sigmoid and Relu");
  return [o, engine = std::make_shared<cpu::Product>()](GradientContext& c) { Unrolled(o, c, *engine).run(); };
}

}  // namespace

std::vector<GradientDef> gradient_recurrent() { return {{"RNN", recurrent<Cell::Rnn>}, {"GRU", recurrent<Cell::Gru>}, {"LSTM", recurrent<Cell::Lstm>}}; }

}  // namespace infopt

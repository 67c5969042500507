// RNN, GRU and LSTM. The inputs' product with W is one product for all steps; each step adds the state's product with R.
#include "lib/ops/recurrent.h"

#include <algorithm>
#include <cmath>

#include "lib/base/float_math.h"
#include "lib/base/simd.h"
#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/cpu/dnnl_adapter.h"
#include "lib/runtime/cpu/few_rows.h"

namespace infopt {
namespace {

using Activation = RecurrentActivation;

float apply_one(const Activation& f, float x) {
  switch (f.kind) {
    case Activation::Relu: return std::max(x, 0.0F);
    case Activation::Tanh: return std::tanh(x);
    case Activation::Sigmoid: return 1 / (1 + std::exp(-x));
    case Activation::Affine: return f.alpha * x + f.beta;
    case Activation::LeakyRelu: return x >= 0 ? x : f.alpha * x;
    case Activation::ThresholdedRelu: return x > f.alpha ? x : 0;
    case Activation::ScaledTanh: return f.alpha * std::tanh(f.beta * x);
    case Activation::HardSigmoid: return std::clamp(f.alpha * x + f.beta, 0.0F, 1.0F);
    case Activation::Elu: return x >= 0 ? x : f.alpha * (std::exp(x) - 1);
    case Activation::Softsign: return x / (1 + std::abs(x));
    case Activation::Softplus: return x > 20 ? x : std::log1p(std::exp(x));
  }
  return x;
}

/// The function of that name with its default parameters; whether it takes any.
Activation named(std::string name, bool& takes_alpha, bool& takes_beta) {
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char ch) { return static_cast<char>(std::tolower(ch)); });
  static const struct {
    const char* name;
    Activation activation;
    bool alpha, beta;
  } all[] = {{"relu", {Activation::Relu}, false, false},
             {"tanh", {Activation::Tanh}, false, false},
             {"sigmoid", {Activation::Sigmoid}, false, false},
             {"affine", {Activation::Affine, 1, 0}, true, true},
             {"leakyrelu", {Activation::LeakyRelu, 0.01F}, true, false},
             {"thresholdedrelu", {Activation::ThresholdedRelu, 1}, true, false},
             {"scaledtanh", {Activation::ScaledTanh, 1, 1}, true, true},
             {"hardsigmoid", {Activation::HardSigmoid, 0.2F, 0.5F}, true, true},
             {"elu", {Activation::Elu, 1}, true, false},
             {"softsign", {Activation::Softsign}, false, false},
             {"softplus", {Activation::Softplus}, false, false}};
  for (const auto& entry : all)
    if (name == entry.name) {
      takes_alpha = entry.alpha;
      takes_beta = entry.beta;
      return entry.activation;
    }
  unsupported("the recurrent activation '" + name + "'");
}

INFOPT_SIMD void tanh_row(float* p, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = tanh_f(p[i]);
}
INFOPT_SIMD void sigmoid_row(float* p, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = sigmoid_f(p[i]);
}
/// y += a·b.
INFOPT_SIMD void add_products(float* y, const float* a, const float* b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += a[i] * b[i];
}
INFOPT_SIMD void add_row(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}
/// y = a·y + b·c.
INFOPT_SIMD void update_cell(float* y, const float* a, const float* b, const float* c, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] * y[i] + b[i] * c[i];
}
/// y = (1 - z)·x + z·y.
INFOPT_SIMD void mix(float* y, const float* z, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = (1 - z[i]) * x[i] + z[i] * y[i];
}
INFOPT_SIMD void multiply_row(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] *= x[i];
}

void apply(const Activation& f, float* p, int64_t n) {
  if (f.kind == Activation::Tanh) return tanh_row(p, n);
  if (f.kind == Activation::Sigmoid) return sigmoid_row(p, n);
  for (int64_t i = 0; i < n; ++i) p[i] = apply_one(f, p[i]);
}

/// a·bᵀ, zeros where there is nothing to sum.
void product(const cpu::Product& p, const Tensor& a, const Tensor& b, bool constant, Tensor& y) {
  if (y.size() == 0) return;
  if (a.dim(1) == 0) std::fill_n(y.mutable_data<float>(), y.size(), 0.0F);
  else p.run(a, false, b, true, constant, nullptr, y);
}

/// The state, (batch, hidden), times rows of R, one for each column of y: for few entries in panels that are packed once.
class StateProduct {
 public:
  void run(const Tensor& state, const Tensor& rows, bool constant, Tensor& y) const {
    if (!constant || state.size() == 0 || !cpu::takes_few_rows(state.dim(0), cpu::widest_panel())) return product(many_, state, rows, constant, y);
    cpu::multiply_few_rows({.a = state.data<float>(), .rows = state.dim(0), .depth = state.dim(1), .columns = rows.dim(0), .weights = panels_.get(rows.data<float>(), rows.dim(0), rows.dim(1)), .y = y.mutable_data<float>()});
  }

 private:
  mutable cpu::PackedPanels panels_;
  cpu::Product many_;
};

/// One direction's part of a node: its activations and its products.
struct Direction : RecurrentOptions::Direction {
  cpu::Product input;
  StateProduct state, state_rest;
};

/// Sizes of one run, and the direction's weights in plain rows: W (gates·hidden, input), R (gates·hidden, hidden).
struct Frame {
  int64_t steps, batch, input, hidden, gates;
  Tensor w, bias_w, bias_r, peepholes;  ///< the last three undefined where not given
  Tensor r, r_rest;                     ///< R's rows that see the state itself, and those of GRU's last gate that see what the reset left of it
  std::vector<int64_t> lengths;         ///< by batch entry
};

class Recurrent : public Kernel {
 public:
  Recurrent(const KernelSpec& spec, Cell cell) : o_(RecurrentOptions::of(spec.node, cell)), directions_(o_.directions.size()) {
    for (size_t d = 0; d < directions_.size(); ++d) static_cast<RecurrentOptions::Direction&>(directions_[d]) = o_.directions[d];
    w_constant_ = spec.constant(1) != nullptr;
    r_constant_ = spec.constant(2) != nullptr;
  }

  void run(KernelContext& c) const override {
    const DType dtype = c.in(0).dtype();
    if (dtype != DType::F32 && dtype != DType::F16 && dtype != DType::BF16 && dtype != DType::F64)
      malformed("a recurrent net of " + std::string(name_of(dtype)));
    Tensor x = input(c, 0);
    if (x.rank() != 3) malformed("X should have 3 dimensions, not the shape " + to_string(x.shape()));
    if (o_.batch_first) x = swapped(x);
    const Tensor w = input(c, 1), r = input(c, 2);
    const auto count = static_cast<int64_t>(directions_.size());
    if (w.rank() != 3 || r.rank() != 3)
      malformed("W and R should have 3 dimensions, not the shapes " + to_string(w.shape()) + " and " + to_string(r.shape()));
    Frame f{x.dim(0), x.dim(1), x.dim(2), r.dim(2), o_.gates, {}, {}, {}, {}, {}, {}, {}};
    const int64_t rows = o_.gates * f.hidden;
    if (o_.hidden != 0 && o_.hidden != f.hidden)
      malformed("hidden_size is " + std::to_string(o_.hidden) + ", R has shape " + to_string(r.shape()));
    check(w, {count, rows, f.input}, "W");
    check(r, {count, rows, f.hidden}, "R");
    const Tensor bias = optional(c, 3, {count, 2 * rows}, "B"),
                 peepholes = o_.cell == Cell::Lstm ? optional(c, 7, {count, 3 * f.hidden}, "P") : Tensor();
    f.lengths = sequence_lengths(c, f);
    const Tensor h0 = initial(c, 5, count, f), c0 = o_.cell == Cell::Lstm ? initial(c, 6, count, f) : Tensor();
    Tensor y(DType::F32, {f.steps, count, f.batch, f.hidden}), h = h0.clone(), cell = c0.defined() ? c0.clone() : Tensor();
    std::fill_n(y.mutable_data<float>(), y.size(), 0.0F);
    for (int64_t d = 0; d < count; ++d) {
      const auto part = [&](const Tensor& t) { return t.slice_front(d, 1); };
      f.w = part(w).reshaped({rows, f.input});
      const Tensor state_rows = part(r).reshaped({rows, f.hidden});
      const int64_t at_once = o_.resets_before() ? 2 * f.hidden : rows;
      f.r = state_rows.slice_front(0, at_once);
      f.r_rest = state_rows.slice_front(at_once, rows - at_once);
      if (bias.defined()) {
        const Tensor both = part(bias).reshaped({2, rows});
        f.bias_w = both.slice_front(0, 1);
        f.bias_r = both.slice_front(1, 1);
      }
      if (peepholes.defined()) f.peepholes = part(peepholes);
      const int64_t state = d * f.batch * f.hidden;
      run_direction(directions_[at(d)], f, x, h.mutable_data<float>() + state,
                    cell.defined() ? cell.mutable_data<float>() + state : nullptr, y, d);
    }
    if (o_.batch_first) {
      y = permuted(y, {2, 0, 1, 3});
      h = swapped(h);
      if (cell.defined()) cell = swapped(cell);
    }
    c.set(0, cast(y, dtype));
    if (c.outputs() > 1) c.set(1, cast(h, dtype));
    if (c.outputs() > 2 && cell.defined()) c.set(2, cast(cell, dtype));
  }

 private:
  static Tensor input(KernelContext& c, size_t i) { return cast(c.in(i), DType::F32); }

  static void check(const Tensor& t, const Shape& wanted, const char* name) {
    if (t.shape() != wanted)
      malformed(std::string(name) + " has shape " + to_string(t.shape()) + " where " + to_string(wanted) + " is needed");
  }
  static Tensor optional(KernelContext& c, size_t i, const Shape& wanted, const char* name) {
    if (!c.has(i)) return {};
    Tensor t = input(c, i);
    check(t, wanted, name);
    return t;
  }
  Tensor initial(KernelContext& c, size_t i, int64_t count, const Frame& f) const {
    if (!c.has(i)) return Tensor::zeros(DType::F32, {count, f.batch, f.hidden});
    const Tensor t = optional(c, i, o_.batch_first ? Shape{f.batch, count, f.hidden} : Shape{count, f.batch, f.hidden}, "the initial state");
    return o_.batch_first ? swapped(t) : t;
  }
  static std::vector<int64_t> sequence_lengths(KernelContext& c, const Frame& f) {
    if (!c.has(4)) return std::vector<int64_t>(at(f.batch), f.steps);
    std::vector<int64_t> lengths = integers(c.in(4));
    if (static_cast<int64_t>(lengths.size()) != f.batch)
      malformed(std::to_string(lengths.size()) + " sequence lengths for a batch of " + std::to_string(f.batch));
    for (const int64_t n : lengths)
      if (n < 0 || n > f.steps) malformed("the sequence length " + std::to_string(n) + " of " + std::to_string(f.steps) + " steps");
    return lengths;
  }
  static Tensor permuted(const Tensor& x, const std::vector<int64_t>& perm) {
    const Shape strides = row_major_strides(x.shape());
    Shape shape, from;
    for (const int64_t p : perm) {
      shape.push_back(x.dim(p));
      from.push_back(strides[at(p)]);
    }
    return gather_strided(x, shape, 0, from);
  }
  static Tensor swapped(const Tensor& x) { return permuted(x, {1, 0, 2}); }

  void run_direction(const Direction& d, const Frame& f, const Tensor& x, float* h, float* cell, Tensor& y, int64_t number) const {
    const int64_t rows = f.gates * f.hidden, batch = f.batch, hidden = f.hidden;
    Tensor all(DType::F32, {f.steps * batch, rows});  // the inputs' share of every gate at every step, biases included
    product(d.input, x.reshaped({f.steps * batch, f.input}), f.w, w_constant_, all);
    // GRU's last gate takes R's bias where the state's product is.
    const int64_t early = o_.cell == Cell::Gru ? 2 * hidden : rows;
    for (int64_t i = 0; f.bias_w.defined() && i < f.steps * batch; ++i) {
      add_row(all.mutable_data<float>() + i * rows, f.bias_w.data<float>(), rows);
      add_row(all.mutable_data<float>() + i * rows, f.bias_r.data<float>(), early);
    }
    Tensor state(DType::F32, {batch, hidden}), share(DType::F32, {batch, rows});
    Work work{Tensor(DType::F32, {batch, f.r.dim(0)}), Tensor(DType::F32, {batch, hidden}), Tensor(DType::F32, {batch, hidden})};
    for (int64_t t = 0; t < f.steps; ++t) {
      if (state.size() > 0) std::copy_n(h, batch * hidden, state.mutable_data<float>());
      // Each entry counts its own steps, from its own end when reversed; it rests once its sequence is over.
      for (int64_t b = 0; b < batch; ++b) {
        const int64_t length = f.lengths[at(b)];
        const int64_t step = d.reverse ? length - 1 - t : t;
        if (t < length) std::copy_n(all.data<float>() + (step * batch + b) * rows, rows, share.mutable_data<float>() + b * rows);
        else std::fill_n(share.mutable_data<float>() + b * rows, rows, 0.0F);
      }
      step_all(d, f, state, share, work, h, cell, t);
      for (int64_t b = 0; b < batch; ++b) {
        const int64_t length = f.lengths[at(b)];
        if (t >= length) continue;
        const int64_t step = d.reverse ? length - 1 - t : t;
        std::copy_n(h + b * hidden, hidden,
                    y.mutable_data<float>() + ((step * static_cast<int64_t>(directions_.size()) + number) * batch + b) * hidden);
      }
    }
  }

  struct Work {
    Tensor gates;        ///< (batch, rows of Frame::r): their product with the state
    Tensor rest, reset;  ///< (batch, hidden): of GRU the last gate's product, and the state after the reset, where that comes before
  };

  /// Clips and applies an activation.
  void activate(const Activation& f, float* p, int64_t n) const {
    if (o_.clip > 0)
      for (int64_t i = 0; i < n; ++i) p[i] = std::clamp(p[i], -o_.clip, o_.clip);
    apply(f, p, n);
  }

  void step_all(const Direction& d, const Frame& f, const Tensor& state, Tensor& share, Work& work, float* h, float* cell,
                int64_t t) const {
    if (o_.cell == Cell::Gru) return step_gru(d, f, state, share, work, h, t);
    const int64_t rows = f.gates * f.hidden, n = f.hidden;
    d.state.run(state, f.r, r_constant_, work.gates);
    for (int64_t b = 0; b < f.batch; ++b) {
      if (t >= f.lengths[at(b)]) continue;
      float* gate = share.mutable_data<float>() + b * rows;
      add_row(gate, work.gates.data<float>() + b * rows, rows);
      if (o_.cell == Cell::Lstm) {
        step_lstm(d, f, gate, h + b * n, cell + b * n);
      } else {
        activate(d.f[0], gate, n);
        std::copy_n(gate, n, h + b * n);
      }
    }
  }

  /// Gates in the order i, o, f, c.
  void step_lstm(const Direction& d, const Frame& f, float* gate, float* h, float* cell) const {
    const int64_t n = f.hidden;
    const float* p = f.peepholes.defined() ? f.peepholes.data<float>() : nullptr;
    float *in = gate, *out = gate + n, *forget = gate + 2 * n, *fresh = gate + 3 * n;
    if (p) add_products(in, p, cell, n);
    activate(d.f[0], in, n);
    if (o_.couple) {
      for (int64_t j = 0; j < n; ++j) forget[j] = 1 - in[j];
    } else {
      if (p) add_products(forget, p + 2 * n, cell, n);
      activate(d.f[0], forget, n);
    }
    activate(d.f[1], fresh, n);
    update_cell(cell, forget, in, fresh, n);
    if (p) add_products(out, p + n, cell, n);
    activate(d.f[0], out, n);
    std::copy_n(cell, n, h);
    apply(d.f[2], h, n);
    multiply_row(h, out, n);
  }

  /// Gates in the order z, r, h. R's rows of the last gate see the state after the reset, or the reset comes after the product.
  void step_gru(const Direction& d, const Frame& f, const Tensor& state, Tensor& share, Work& work, float* h, int64_t t) const {
    const int64_t n = f.hidden, rows = 3 * n, at_once = f.r.dim(0);
    d.state.run(state, f.r, r_constant_, work.gates);
    for (int64_t b = 0; b < f.batch; ++b) {
      float* gate = share.mutable_data<float>() + b * rows;
      add_row(gate, work.gates.data<float>() + b * at_once, 2 * n);
      activate(d.f[0], gate, 2 * n);
      if (!o_.resets_before()) continue;
      std::copy_n(state.data<float>() + b * n, n, work.reset.mutable_data<float>() + b * n);
      multiply_row(work.reset.mutable_data<float>() + b * n, gate + n, n);
    }
    if (o_.resets_before()) d.state_rest.run(work.reset, f.r_rest, r_constant_, work.rest);
    for (int64_t b = 0; b < f.batch; ++b) {
      if (t >= f.lengths[at(b)]) continue;
      float* gate = share.mutable_data<float>() + b * rows;
      float* rest = o_.resets_before() ? work.rest.mutable_data<float>() + b * n : work.gates.mutable_data<float>() + b * at_once + 2 * n;
      float* fresh = gate + 2 * n;
      if (f.bias_r.defined()) add_row(rest, f.bias_r.data<float>() + 2 * n, n);
      if (o_.linear_before_reset) multiply_row(rest, gate + n, n);
      add_row(fresh, rest, n);
      activate(d.f[1], fresh, n);
      mix(h + b * n, gate, fresh, n);
    }
  }

  RecurrentOptions o_;
  std::vector<Direction> directions_;
  bool w_constant_ = false, r_constant_ = false;
};

template <Cell cell>
std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  return std::make_unique<Recurrent>(spec, cell);
}

}  // namespace

RecurrentOptions RecurrentOptions::of(const Node& node, Cell cell) {
  RecurrentOptions o;
  o.cell = cell;
  o.gates = cell == Cell::Rnn ? 1 : cell == Cell::Gru ? 3 : 4;
  const std::string direction = node.s("direction", "forward");
  if (direction != "forward" && direction != "reverse" && direction != "bidirectional") malformed("there is no direction '" + direction + "'");
  o.directions.resize(direction == "bidirectional" ? 2 : 1);
  o.directions.back().reverse = direction != "forward";
  o.clip = node.f("clip", 0);
  if (o.clip < 0) malformed("clip is negative");
  o.batch_first = node.i("layout", 0) != 0;
  o.couple = node.i("input_forget", 0) != 0;
  o.linear_before_reset = node.i("linear_before_reset", 0) != 0;
  o.hidden = node.i("hidden_size", 0);
  const size_t each = cell == Cell::Rnn ? 1 : cell == Cell::Gru ? 2 : 3, wanted = each * o.directions.size();
  const auto* given = node.get<std::vector<std::string>>("activations");
  if (given && !given->empty() && given->size() != wanted)
    malformed(std::to_string(wanted) + " activations are needed, not " + std::to_string(given->size()));
  const std::vector<float> alphas = node.floats("activation_alpha"), betas = node.floats("activation_beta");
  size_t alpha = 0, beta = 0;
  for (size_t i = 0; i < wanted; ++i) {
    const bool gate = cell != Cell::Rnn && i % each == 0;
    bool takes_alpha = false, takes_beta = false;
    RecurrentActivation a = named(given && !given->empty() ? (*given)[i] : gate ? "Sigmoid" : "Tanh", takes_alpha, takes_beta);
    if (takes_alpha && alpha < alphas.size()) a.alpha = alphas[alpha++];
    if (takes_beta && beta < betas.size()) a.beta = betas[beta++];
    o.directions[i / each].f.push_back(a);
  }
  return o;
}

std::vector<OpDef> op_recurrent() {
  return {{.name = "RNN", .since = 7, .cpu = &make<Cell::Rnn>},
          {.name = "GRU", .since = 7, .cpu = &make<Cell::Gru>},
          {.name = "LSTM", .since = 7, .cpu = &make<Cell::Lstm>}};
}

}  // namespace infopt

// RNN, GRU and LSTM. The inputs' product with W is one product for all steps; each step adds the state's product with R.
#include <algorithm>
#include <cmath>

#include "lib/base/simd.h"
#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/cpu/dnnl_adapter.h"

namespace infopt {
namespace {

struct Activation {
  enum Kind { Relu, Tanh, Sigmoid, Affine, LeakyRelu, ThresholdedRelu, ScaledTanh, HardSigmoid, Elu, Softsign, Softplus } kind = Tanh;
  float alpha = 0, beta = 0;

  float operator()(float x) const {
    switch (kind) {
      case Relu: return std::max(x, 0.0F);
      case Tanh: return std::tanh(x);
      case Sigmoid: return 1 / (1 + std::exp(-x));
      case Affine: return alpha * x + beta;
      case LeakyRelu: return x >= 0 ? x : alpha * x;
      case ThresholdedRelu: return x > alpha ? x : 0;
      case ScaledTanh: return alpha * std::tanh(beta * x);
      case HardSigmoid: return std::clamp(alpha * x + beta, 0.0F, 1.0F);
      case Elu: return x >= 0 ? x : alpha * (std::exp(x) - 1);
      case Softsign: return x / (1 + std::abs(x));
      case Softplus: return x > 20 ? x : std::log1p(std::exp(x));
    }
    return x;
  }
};

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

enum class Cell { Rnn, Gru, Lstm };

/// One direction's part of a node: its activations and its products.
struct Direction {
  std::vector<Activation> f;
  bool reverse = false;
  cpu::Product input, state, state_rest;
};

/// Sizes of one run, and the direction's weights in plain rows: W (gates·hidden, input), R (gates·hidden, hidden).
struct Frame {
  int64_t steps, batch, input, hidden, gates;
  Tensor w, r, bias_w, bias_r, peepholes;  ///< the last three undefined where not given
  std::vector<int64_t> lengths;            ///< by batch entry
};

INFOPT_SIMD void add_rows(float* y, const float* bias, int64_t rows, int64_t n) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < n; ++j) y[i * n + j] += bias[j];
}

class Recurrent : public Kernel {
 public:
  Recurrent(const KernelSpec& spec, Cell cell) : cell_(cell), gates_(cell == Cell::Rnn ? 1 : cell == Cell::Gru ? 3 : 4) {
    const Node& node = spec.node;
    const std::string direction = node.s("direction", "forward");
    if (direction != "forward" && direction != "reverse" && direction != "bidirectional") malformed("there is no direction '" + direction + "'");
    directions_ = std::vector<Direction>(direction == "bidirectional" ? 2 : 1);
    directions_.back().reverse = direction != "forward";
    clip_ = node.f("clip", 0);
    if (clip_ < 0) malformed("clip is negative");
    batch_first_ = node.i("layout", 0) != 0;
    couple_ = node.i("input_forget", 0) != 0;
    linear_before_reset_ = node.i("linear_before_reset", 0) != 0;
    hidden_ = node.i("hidden_size", 0);
    w_constant_ = spec.constant(1) != nullptr;
    r_constant_ = spec.constant(2) != nullptr;
    read_activations(node);
  }

  void run(KernelContext& c) const override {
    const DType dtype = c.in(0).dtype();
    if (dtype != DType::F32 && dtype != DType::F16 && dtype != DType::BF16 && dtype != DType::F64) malformed("a recurrent net of " + std::string(name_of(dtype)));
    Tensor x = input(c, 0);
    if (x.rank() != 3) malformed("X should have 3 dimensions, not the shape " + to_string(x.shape()));
    if (batch_first_) x = swapped(x);
    const Tensor w = input(c, 1), r = input(c, 2);
    const auto count = static_cast<int64_t>(directions_.size());
    if (w.rank() != 3 || r.rank() != 3) malformed("W and R should have 3 dimensions, not the shapes " + to_string(w.shape()) + " and " + to_string(r.shape()));
    Frame f{x.dim(0), x.dim(1), x.dim(2), r.dim(2), gates_, {}, {}, {}, {}, {}, {}};
    const int64_t rows = gates_ * f.hidden;
    if (hidden_ != 0 && hidden_ != f.hidden) malformed("hidden_size is " + std::to_string(hidden_) + ", R has shape " + to_string(r.shape()));
    check(w, {count, rows, f.input}, "W");
    check(r, {count, rows, f.hidden}, "R");
    const Tensor bias = optional(c, 3, {count, 2 * rows}, "B"), peepholes = cell_ == Cell::Lstm ? optional(c, 7, {count, 3 * f.hidden}, "P") : Tensor();
    f.lengths = sequence_lengths(c, f);
    const Tensor h0 = initial(c, 5, count, f), c0 = cell_ == Cell::Lstm ? initial(c, 6, count, f) : Tensor();
    Tensor y(DType::F32, {f.steps, count, f.batch, f.hidden}), h = h0.clone(), cell = c0.defined() ? c0.clone() : Tensor();
    std::fill_n(y.mutable_data<float>(), y.size(), 0.0F);
    for (int64_t d = 0; d < count; ++d) {
      const auto part = [&](const Tensor& t) { return t.slice_front(d, 1); };
      f.w = part(w).reshaped({rows, f.input});
      f.r = part(r).reshaped({rows, f.hidden});
      if (bias.defined()) {
        const Tensor both = part(bias).reshaped({2, rows});
        f.bias_w = both.slice_front(0, 1);
        f.bias_r = both.slice_front(1, 1);
      }
      if (peepholes.defined()) f.peepholes = part(peepholes);
      const int64_t state = d * f.batch * f.hidden;
      run_direction(directions_[at(d)], f, x, h.mutable_data<float>() + state, cell.defined() ? cell.mutable_data<float>() + state : nullptr, y, d);
    }
    if (batch_first_) {
      y = permuted(y, {2, 0, 1, 3});
      h = swapped(h);
      if (cell.defined()) cell = swapped(cell);
    }
    c.set(0, cast(y, dtype));
    if (c.outputs() > 1) c.set(1, cast(h, dtype));
    if (c.outputs() > 2 && cell.defined()) c.set(2, cast(cell, dtype));
  }

 private:
  void read_activations(const Node& node) {
    const size_t each = cell_ == Cell::Rnn ? 1 : cell_ == Cell::Gru ? 2 : 3;
    const auto* given = node.get<std::vector<std::string>>("activations");
    const std::vector<float> alphas = node.floats("activation_alpha"), betas = node.floats("activation_beta");
    const size_t wanted = each * directions_.size();
    if (given && !given->empty() && given->size() != wanted) malformed(std::to_string(wanted) + " activations are needed, not " + std::to_string(given->size()));
    size_t alpha = 0, beta = 0;
    for (size_t i = 0; i < wanted; ++i) {
      const bool gate = cell_ != Cell::Rnn && i % each == 0;
      bool takes_alpha = false, takes_beta = false;
      Activation a = named(given && !given->empty() ? (*given)[i] : gate ? "Sigmoid" : "Tanh", takes_alpha, takes_beta);
      if (takes_alpha && alpha < alphas.size()) a.alpha = alphas[alpha++];
      if (takes_beta && beta < betas.size()) a.beta = betas[beta++];
      directions_[i / each].f.push_back(a);
    }
  }

  static Tensor input(KernelContext& c, size_t i) { return cast(c.in(i), DType::F32); }

  static void check(const Tensor& t, const Shape& wanted, const char* name) {
    if (t.shape() != wanted) malformed(std::string(name) + " has shape " + to_string(t.shape()) + " where " + to_string(wanted) + " is needed");
  }
  static Tensor optional(KernelContext& c, size_t i, const Shape& wanted, const char* name) {
    if (!c.has(i)) return {};
    Tensor t = input(c, i);
    check(t, wanted, name);
    return t;
  }
  Tensor initial(KernelContext& c, size_t i, int64_t count, const Frame& f) const {
    if (!c.has(i)) return Tensor::zeros(DType::F32, {count, f.batch, f.hidden});
    const Tensor t = optional(c, i, batch_first_ ? Shape{f.batch, count, f.hidden} : Shape{count, f.batch, f.hidden}, "the initial state");
    return batch_first_ ? swapped(t) : t;
  }
  static std::vector<int64_t> sequence_lengths(KernelContext& c, const Frame& f) {
    if (!c.has(4)) return std::vector<int64_t>(at(f.batch), f.steps);
    std::vector<int64_t> lengths = integers(c.in(4));
    if (static_cast<int64_t>(lengths.size()) != f.batch) malformed(std::to_string(lengths.size()) + " sequence lengths for a batch of " + std::to_string(f.batch));
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

  static void product(const cpu::Product& p, const Tensor& a, const Tensor& b, bool constant, Tensor& y) {
    if (y.size() == 0) return;
    if (a.dim(1) == 0) std::fill_n(y.mutable_data<float>(), y.size(), 0.0F);
    else p.run(a, false, b, true, constant, nullptr, y);
  }

  float clipped(float x) const { return clip_ > 0 ? std::clamp(x, -clip_, clip_) : x; }

  void run_direction(const Direction& d, const Frame& f, const Tensor& x, float* h, float* cell, Tensor& y, int64_t number) const {
    const int64_t rows = f.gates * f.hidden, batch = f.batch, hidden = f.hidden;
    Tensor all(DType::F32, {f.steps * batch, rows});  // the inputs' share of every gate at every step, biases included
    product(d.input, x.reshaped({f.steps * batch, f.input}), f.w, w_constant_, all);
    if (f.bias_w.defined()) {
      add_rows(all.mutable_data<float>(), f.bias_w.data<float>(), f.steps * batch, rows);
      // GRU's last gate takes R's bias where the state's product is.
      const int64_t plain = cell_ == Cell::Gru ? 2 * hidden : rows;
      float* p = all.mutable_data<float>();
      for (int64_t i = 0; i < f.steps * batch; ++i)
        for (int64_t j = 0; j < plain; ++j) p[i * rows + j] += f.bias_r.data<float>()[j];
    }
    Tensor state(DType::F32, {batch, hidden}), share(DType::F32, {batch, rows});
    Work work{Tensor(DType::F32, {batch, 2 * hidden}), Tensor(DType::F32, {batch, hidden}), Tensor(DType::F32, {batch, hidden})};
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
        std::copy_n(h + b * hidden, hidden, y.mutable_data<float>() + ((step * static_cast<int64_t>(directions_.size()) + number) * batch + b) * hidden);
      }
    }
  }

  struct Work {
    Tensor gates, rest, reset;
  };

  void step_all(const Direction& d, const Frame& f, const Tensor& state, Tensor& share, Work& work, float* h, float* cell, int64_t t) const {
    const int64_t rows = f.gates * f.hidden;
    if (cell_ == Cell::Gru) return step_gru(d, f, state, share, work, h, t);
    Tensor recurrent(DType::F32, {f.batch, rows});
    product(d.state, state, f.r, r_constant_, recurrent);
    if (recurrent.size()) add_rows(share.mutable_data<float>(), recurrent.data<float>(), 1, recurrent.size());
    for (int64_t b = 0; b < f.batch; ++b) {
      if (t >= f.lengths[at(b)]) continue;
      const float* gate = share.data<float>() + b * rows;
      if (cell_ == Cell::Lstm) {
        step_lstm(d, f, gate, h + b * f.hidden, cell + b * f.hidden);
      } else {
        for (int64_t j = 0; j < f.hidden; ++j) h[b * f.hidden + j] = d.f[0](clipped(gate[j]));
      }
    }
  }

  /// Gates in the order i, o, f, c.
  void step_lstm(const Direction& d, const Frame& f, const float* gate, float* h, float* cell) const {
    const int64_t n = f.hidden;
    const float* p = f.peepholes.defined() ? f.peepholes.data<float>() : nullptr;
    for (int64_t j = 0; j < n; ++j) {
      const float before = cell[j];
      const float i = d.f[0](clipped(gate[j] + (p ? p[j] * before : 0)));
      const float forget = couple_ ? 1 - i : d.f[0](clipped(gate[2 * n + j] + (p ? p[2 * n + j] * before : 0)));
      const float now = forget * before + i * d.f[1](clipped(gate[3 * n + j]));
      const float o = d.f[0](clipped(gate[n + j] + (p ? p[n + j] * now : 0)));
      cell[j] = now;
      h[j] = o * d.f[2](now);
    }
  }

  /// Gates in the order z, r, h. R's rows of the last gate see the state after the reset, or the reset comes after the product.
  void step_gru(const Direction& d, const Frame& f, const Tensor& state, const Tensor& share, Work& work, float* h, int64_t t) const {
    const int64_t n = f.hidden, rows = 3 * n;
    product(d.state, state, f.r.slice_front(0, 2 * n), r_constant_, work.gates);
    const auto gate = [&](int64_t b, int64_t g, int64_t j) {
      return d.f[0](clipped(share.data<float>()[b * rows + g * n + j] + work.gates.data<float>()[b * 2 * n + g * n + j]));
    };
    const float* before = state.data<float>();
    if (!linear_before_reset_)
      for (int64_t b = 0; b < f.batch; ++b)
        for (int64_t j = 0; j < n; ++j) work.reset.mutable_data<float>()[b * n + j] = gate(b, 1, j) * before[b * n + j];
    product(d.state_rest, linear_before_reset_ ? state : work.reset, f.r.slice_front(2 * n, n), r_constant_, work.rest);
    const float* bias = f.bias_r.defined() ? f.bias_r.data<float>() + 2 * n : nullptr;
    for (int64_t b = 0; b < f.batch; ++b) {
      if (t >= f.lengths[at(b)]) continue;
      for (int64_t j = 0; j < n; ++j) {
        const float rest = work.rest.data<float>()[b * n + j] + (bias ? bias[j] : 0);
        const float from = share.data<float>()[b * rows + 2 * n + j];
        const float z = gate(b, 0, j), fresh = d.f[1](clipped(linear_before_reset_ ? from + gate(b, 1, j) * rest : from + rest));
        h[b * n + j] = (1 - z) * fresh + z * before[b * n + j];
      }
    }
  }

  Cell cell_;
  int64_t gates_, hidden_ = 0;
  std::vector<Direction> directions_;
  float clip_ = 0;
  bool batch_first_ = false, couple_ = false, linear_before_reset_ = false, w_constant_ = false, r_constant_ = false;
};

template <Cell cell> std::unique_ptr<Kernel> make(const KernelSpec& spec) { return std::make_unique<Recurrent>(spec, cell); }

}  // namespace

std::vector<OpDef> op_recurrent() {
  return {{.name = "RNN", .since = 7, .cpu = &make<Cell::Rnn>}, {.name = "GRU", .since = 7, .cpu = &make<Cell::Gru>}, {.name = "LSTM", .since = 7, .cpu = &make<Cell::Lstm>}};
}

}  // namespace infopt

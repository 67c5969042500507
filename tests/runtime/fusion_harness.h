// Small Q/DQ graphs, run with and without fusions: what they compute, and which steps are left of them.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/ir/edit.h"
#include "lib/runtime/session.h"
#include "tests/runtime/int8_reference.h"

namespace infopt::test {

using cpu::Random;
using Attributes = std::vector<Attribute>;
using Feeds = std::unordered_map<ValueId, Tensor>;

/// Codes with one scale. Without `has_zero` the zero point is left out, which says U8 and 0.
struct Step {
  DType type = DType::U8;
  float scale = 1;
  int32_t zero = 0;
  bool has_zero = true;
};

inline Tensor zero_tensor(DType type, int32_t zero, Shape shape = {}) { return cast(Tensor::of<int32_t>(std::move(shape), {zero}), type); }

inline Tensor random_codes(Random& r, DType type, const Shape& shape) {
  Tensor t(type, shape);
  const auto bytes = r.bytes(t.size());
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_raw()[i] = static_cast<std::byte>(bytes[static_cast<size_t>(i)]);
  return t;
}

inline Step random_step(Random& r, float scale) {
  Step s{r.pick({DType::U8, DType::I8}), scale, 0, true};
  s.zero = r.pick<int32_t>({0, static_cast<int32_t>(r.in(0, 255))}) + (s.type == DType::I8 ? -128 : 0);
  if (s.type == DType::I8 && r.chance(3)) s.zero = 0;
  if (s.type == DType::U8 && s.zero == 0) s.has_zero = r.chance(2);
  return s;
}

/// A graph in the making.
class Net {
 public:
  explicit Net(int64_t opset = 21) : edit_(graph_) { edit_->opsets[""] = opset; }

  ValueId input(DType type, const Shape& shape) {
    return edit_.add_input("x" + std::to_string(graph_.inputs().size()), Type::tensor(type, shape));
  }
  /// Of unknown shape.
  ValueId open_input(DType type) {
    return edit_.add_input("x" + std::to_string(graph_.inputs().size()), {.dtype = type, .has_shape = false, .shape = {}, .opaque = {}});
  }
  ValueId constant(Tensor t) { return edit_.add_constant(std::move(t)); }
  ValueId number(float v, Shape shape = {}) { return constant(Tensor::of<float>(std::move(shape), {v})); }
  ValueId integers(const std::vector<int64_t>& v) { return constant(Tensor::vector(v)); }
  ValueId add(const std::string& op, std::vector<ValueId> inputs, Attributes attributes = {}) {
    return edit_.add({.op = op, .attributes = std::move(attributes)}, std::move(inputs));
  }
  NodeId add_node(const std::string& op, std::vector<ValueId> inputs, size_t outputs, Attributes attributes = {}) {
    std::vector<ValueId> out;
    for (size_t i = 0; i < outputs; ++i) out.push_back(edit_.add_value());
    return edit_.add_node({.op = op, .attributes = std::move(attributes)}, std::move(inputs), out);
  }
  ValueId dequantize(ValueId codes, const Step& s, Attributes attributes = {}) {
    return add("DequantizeLinear", parameters(codes, s), std::move(attributes));
  }
  ValueId quantize(ValueId real, const Step& s, Attributes attributes = {}) {
    return add("QuantizeLinear", parameters(real, s), std::move(attributes));
  }
  void output(ValueId v) { edit_.add_output(v); }
  GraphEdit& edit() { return edit_; }
  const Graph& graph() {
    edit_.finish();
    return graph_;
  }

 private:
  std::vector<ValueId> parameters(ValueId x, const Step& s) {
    std::vector<ValueId> in{x, number(s.scale)};
    if (s.has_zero) in.push_back(constant(zero_tensor(s.type, s.zero)));
    return in;
  }

  Graph graph_;
  GraphEdit edit_;
};

/// How near two readings of many graphs came.
struct Agreement {
  int64_t graphs = 0, codes = 0, apart = 0;
  /// The share of codes that differ, by one step each.
  void expect_rare(double share = 0.002) const {
    EXPECT_GT(codes, 0);
    EXPECT_LE(static_cast<double>(apart), share * static_cast<double>(codes) + 1) << apart << " of " << codes;
  }
  /// Codes at most one step apart; floats within `relative` of the largest.
  void compare(const Tensor& got, const Tensor& want, double relative = 1e-5) {
    ASSERT_EQ(got.dtype(), want.dtype());
    ASSERT_EQ(got.shape(), want.shape());
    const auto a = to_vector<double>(got), b = to_vector<double>(want);
    double largest = 0;
    for (double v : b) largest = std::max(largest, std::isfinite(v) ? std::fabs(v) : 0);
    const bool real = is_float(got.dtype());
    for (size_t i = 0; i < a.size(); ++i) {
      const double d = a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])) ? 0 : std::fabs(a[i] - b[i]);
      ASSERT_LE(d, real ? relative * largest : 1) << "element " << i << ": " << a[i] << " for " << b[i];
      if (!real) ++codes, apart += d != 0;
    }
  }
};

/// The operators of the steps that a session runs.
inline std::string steps_of(const Graph& graph, SessionOptions options = {}) {
  std::string names;
  for (const auto& time : Session(graph, std::move(options)).profile()) names += (names.empty() ? "" : " ") + graph.node(time.node).op;
  return names;
}

inline std::vector<Tensor> run_plain(const Graph& graph, const Feeds& feeds, SessionOptions options = {}) {
  options.fuse = false;
  return Session(graph, std::move(options)).run(feeds);
}

/// The same shape and bits; a NaN is like any other.
inline void expect_same_bits(const Tensor& got, const Tensor& want) {
  ASSERT_EQ(got.dtype(), want.dtype());
  ASSERT_EQ(got.shape(), want.shape());
  const auto a = to_vector<double>(got), b = to_vector<double>(want);
  for (size_t i = 0; i < a.size(); ++i)
    ASSERT_TRUE((std::isnan(a[i]) && std::isnan(b[i])) || (a[i] == b[i] && std::signbit(a[i]) == std::signbit(b[i])))
        << "element " << i << ": " << a[i] << " for " << b[i];
}
inline void expect_same_bits(const std::vector<Tensor>& got, const std::vector<Tensor>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size() && !testing::Test::HasFatalFailure(); ++i) expect_same_bits(got[i], want[i]);
}

/// Runs on more threads give what `want` is.
inline void expect_any_threads(const Graph& graph, const Feeds& feeds, const std::vector<Tensor>& want) {
  for (int threads : {2, 3, 5}) {
    SCOPED_TRACE(testing::Message() << threads << " threads");
    expect_same_bits(Session(graph, {.fetches = {}, .taps = {}, .threads = threads}).run(feeds), want);
  }
}

/// Runs the graph with fusions, some on more threads, and without, and compares all outputs. `steps`: the operators that must be left;
/// empty: any.
inline std::vector<Tensor> expect_fused(Net& net, const Feeds& feeds, const std::string& steps, Agreement& agreement,
                                        double relative = 1e-5) {
  const Graph& graph = net.graph();
  const auto want = run_plain(graph, feeds);
  const auto got = Session(graph).run(feeds);
  if (!steps.empty()) {
    EXPECT_EQ(steps_of(graph), steps);
  }
  if (agreement.graphs++ % 10 == 0)  // waking threads takes long on a busy machine
    expect_any_threads(graph, feeds, got);
  EXPECT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size() && !testing::Test::HasFatalFailure(); ++i) agreement.compare(got[i], want[i], relative);
  return got;
}
inline std::vector<Tensor> expect_fused(Net& net, const Feeds& feeds, const std::string& steps) {
  Agreement agreement;
  return expect_fused(net, feeds, steps, agreement);
}

/// The same elements, bit for bit, and the same steps.
inline void expect_unfused(Net& net, const Feeds& feeds) {
  const Graph& graph = net.graph();
  EXPECT_EQ(steps_of(graph), steps_of(graph, {.fuse = false}));
  const auto want = run_plain(graph, feeds), got = Session(graph).run(feeds);
  expect_same_bits(got, want);
}

/// The same as without fusions, with `op` a step of its own.
inline void expect_kept(Net& net, const Feeds& feeds, const std::string& op = "DequantizeLinear") {
  const Graph& graph = net.graph();
  EXPECT_NE((" " + steps_of(graph) + " ").find(" " + op + " "), std::string::npos) << steps_of(graph);
  Agreement agreement;
  const auto want = run_plain(graph, feeds), got = Session(graph).run(feeds);
  for (size_t i = 0; i < want.size(); ++i) agreement.compare(got[i], want[i], 1e-6);
  EXPECT_EQ(agreement.apart, 0);
}

/// (code − zero) · scale as ONNX has it, in double.
inline std::vector<double> reals_of(const Tensor& codes, const Step& s) {
  std::vector<double> out = to_vector<double>(codes);
  for (double& v : out) v = (v - s.zero) * static_cast<double>(s.scale);
  return out;
}
/// saturate(round(x / scale) + zero).
inline int32_t code_of(double x, const Step& s) {
  const double q = std::nearbyint(x / static_cast<double>(s.scale)) + s.zero;
  return static_cast<int32_t>(std::clamp<double>(q, cpu::least_of(s.type), cpu::least_of(s.type) + 255));
}

}  // namespace infopt::test

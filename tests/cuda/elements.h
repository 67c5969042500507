// Random tensors for the operators of elements and of axes, and stricter comparisons than codes need.
#pragma once
#include "tests/cuda/harness.h"

namespace infopt::test {

inline Shape random_shape(Random& r, int64_t least_rank, int64_t most_rank, int64_t most_dim) {
  Shape s(static_cast<size_t>(r.in(least_rank, most_rank)));
  for (int64_t& d : s) d = r.in(1, most_dim);
  return s;
}

/// Numbers of the type between low and high; where `odd`, NaN, infinities and both zeros among floats, the extremes among integers.
inline Tensor random_tensor(Random& r, DType dtype, const Shape& shape, float low = -4, float high = 4, bool odd = false) {
  Tensor wide(DType::F64, shape);
  double* x = wide.mutable_data<double>();
  const double inf = std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < wide.size(); ++i) {
    x[i] = static_cast<double>(r.real(low, high));
    if (!is_float(dtype)) x[i] = static_cast<double>(r.in(static_cast<int64_t>(low), static_cast<int64_t>(high)));
    if (odd && r.chance(10)) x[i] = is_float(dtype) ? r.pick({inf, -inf, std::nan(""), 0.0, -0.0, 1e-30, 1e30}) : r.pick({1e19, -1e19, 0.0, 127.0, -128.0, 255.0});
  }
  return cast(wide, dtype);
}

/// How far floats of the type may be from the CPU's, beside the largest.
inline double tolerance(DType dtype) { return dtype == DType::F16 ? 2e-3 : dtype == DType::BF16 ? 1.6e-2 : dtype == DType::F64 ? 1e-12 : 2e-6; }

/// As expect_as_cpu, but what isn't a float must be equal, and floats are judged by the outputs' own types.
inline void expect_close(const Graph& graph, const Feeds& feeds, double loosened = 1, SessionOptions options = {}) {
  const std::vector<Tensor> want = Session(graph, options).run(feeds), got = run_cuda(graph, feeds, options);
  ASSERT_EQ(got.size(), want.size());
  Agreement agreement;
  for (size_t i = 0; i < got.size() && !testing::Test::HasFatalFailure(); ++i) {
    if (is_float(want[i].dtype()) && bits_of(want[i].dtype()) >= 16) agreement.compare(got[i], want[i], loosened * tolerance(want[i].dtype()));
    else expect_same_bits(got[i], want[i]);
  }
}

/// One node on these inputs.
inline void expect_node(const std::string& op, const std::vector<Tensor>& inputs, Attributes attributes = {}, int64_t opset = 21, double loosened = 1, size_t outputs = 1) {
  Net net(opset);
  Feeds feeds;
  std::vector<ValueId> ids;
  for (const Tensor& t : inputs) {
    if (!t.defined()) {
      ids.push_back(kNone);
      continue;
    }
    ids.push_back(net.input(t.dtype(), t.shape()));
    feeds[ids.back()] = t;
  }
  std::string shapes;
  for (const Tensor& t : inputs) shapes += t.defined() ? " " + std::string(name_of(t.dtype())) + to_string(t.shape()) : " -";
  SCOPED_TRACE(op + shapes);
  const NodeId node = net.add_node(op, ids, outputs, std::move(attributes));
  const std::vector<ValueId> made = net.graph().node(node).outputs;
  for (ValueId v : made) net.output(v);
  expect_close(net.graph(), feeds, loosened);
}

}  // namespace infopt::test

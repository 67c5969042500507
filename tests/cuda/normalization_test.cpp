// Normalizations by channel and group, extremes' places, and running sums on the device give what the CPU's give.
#include "tests/cuda/elements.h"

namespace infopt::test {
namespace {

constexpr DType kFloats[] = {DType::F32, DType::F16, DType::BF16, DType::F64};

TEST(CudaNormalization, ByChannel) {
  Random r(61);
  for (DType dtype : kFloats)
    for (const Shape& shape : {Shape{2, 3, 4, 5}, Shape{1, 8, 16, 4}, Shape{3, 5}, Shape{7}, Shape{2, 33, 7}, Shape{0, 3, 2, 2}}) {
      const Shape c{shape.size() > 1 ? shape[1] : 1};
      expect_node("BatchNormalization", {random_tensor(r, dtype, shape), random_tensor(r, dtype, c), random_tensor(r, dtype, c), random_tensor(r, dtype, c), random_tensor(r, dtype, c, 0.5f, 2)}, {}, 15, 4);
    }
}

TEST(CudaNormalization, ByInstanceAndGroup) {
  Random r(62);
  for (DType dtype : kFloats)
    for (const Shape& shape : {Shape{2, 6, 4, 5}, Shape{1, 12, 16, 4}, Shape{3, 6}, Shape{2, 6, 1300}, Shape{1, 66, 7}}) {
      const Shape c{shape[1]};
      if (shape.size() > 2) expect_node("InstanceNormalization", {random_tensor(r, dtype, shape), random_tensor(r, dtype, c), random_tensor(r, dtype, c)}, {{"epsilon", 1e-2f}}, 21, 8);
      for (int64_t groups : {1, 2, 3, 6}) {
        expect_node("GroupNormalization", {random_tensor(r, dtype, shape), random_tensor(r, dtype, c), random_tensor(r, dtype, c)}, {{"num_groups", groups}, {"epsilon", 1e-2f}}, 21, 8);
        expect_node("GroupNormalization", {random_tensor(r, dtype, shape), random_tensor(r, dtype, {groups}), random_tensor(r, dtype, {groups})}, {{"num_groups", groups}, {"epsilon", 1e-2f}}, 18, 8);
      }
    }
}

TEST(CudaNormalization, ByNormAndMeanVariance) {
  Random r(63);
  for (DType dtype : kFloats)
    for (int i = 0; i < 5; ++i) {
      const Shape shape = random_shape(r, 1, 4, 8);
      expect_node("LpNormalization", {random_tensor(r, dtype, shape)}, {{"p", r.in(1, 2)}, {"axis", r.in(-1, static_cast<int64_t>(shape.size()) - 1)}}, 21, 4);
    }
  expect_node("LpNormalization", {Tensor::zeros(DType::F32, {2, 3})}, {}, 21);
  for (DType dtype : {DType::F32, DType::F16, DType::F64}) expect_node("MeanVarianceNormalization", {random_tensor(r, dtype, {2, 3, 5, 7})}, {}, 13, dtype == DType::F64 ? 1e6 : 8);
}

/// A sum and the normalization of its rows, as one step; the sum may be wanted besides.
TEST(CudaNormalization, WithTheSumBeforeIt) {
  Random r(65);
  for (int i = 0; i < 60; ++i) {
    const int64_t n = r.pick<int64_t>({2, 3, 31, 64, 100, 768, 1030, 25000});
    Shape shape = random_shape(r, 0, 2, 4), other = shape;
    shape.push_back(n), other.push_back(r.chance(6) ? 1 : n);
    if (r.chance(5)) other.erase(other.begin(), other.end() - 1);
    if (r.chance(2)) std::swap(shape, other);
    const bool centered = r.chance(2), kept = r.chance(2);
    Net net(23);
    const ValueId a = net.input(DType::F32, shape), b = net.input(DType::F32, other), sum = net.add("Add", {a, b});
    std::vector<ValueId> inputs{sum, net.constant(random_tensor(r, DType::F32, {n}))};
    if (centered && r.chance(2)) inputs.push_back(net.constant(random_tensor(r, DType::F32, {n})));
    const ValueId y = net.add(centered ? "LayerNormalization" : "RMSNormalization", inputs, {{"epsilon", 1e-3f}});
    net.output(kept ? net.add("Add", {y, sum}) : net.add("Relu", {y}));
    const Feeds feeds{{a, random_tensor(r, DType::F32, shape)}, {b, random_tensor(r, DType::F32, other)}};
    SCOPED_TRACE(to_string(shape) + " + " + to_string(other) + (centered ? " centered" : "") + (kept ? " kept" : ""));
    expect_as_cpu(net.graph(), feeds, 1e-5);
    SessionOptions options;
    options.device = cuda_device();
    const auto plan = Session(net.graph(), options).plan();
    EXPECT_NE(plan.at(0).kernel.find("with the sum before it"), std::string::npos) << plan.at(0).kernel;
    if (HasFailure()) return;
  }
}

/// Kernels given channels-last tensors hand on the same numbers.
TEST(CudaNormalization, InEitherLayout) {
  Random r(64);
  const auto run = cuda_device()->begin();
  const Tensor x = random_tensor(r, DType::F32, {2, 6, 5, 3});
  const Tensor there = run->convert_layout(run->to_device(x), Layout::Plain, Layout::ChannelsLast);
  Net net;
  const ValueId in = net.input(DType::F32, {2, 6, 5, 3});
  const ValueId parameters = net.constant(random_tensor(r, DType::F32, {6}, 0.5f, 2));
  std::vector<NodeId> nodes{net.add_node("BatchNormalization", {in, parameters, parameters, parameters, parameters}, 1), net.add_node("InstanceNormalization", {in, parameters, parameters}, 1),
                            net.add_node("GroupNormalization", {in, parameters, parameters}, 1, {{"num_groups", int64_t{3}}}), net.add_node("ReduceMean", {in, net.integers({2, 3})}, 1),
                            net.add_node("Softmax", {in}, 1, {{"axis", int64_t{1}}}), net.add_node("Softmax", {in}, 1), net.add_node("Relu", {in}, 1),
                            net.add_node("Add", {in, net.constant(random_tensor(r, DType::F32, {6, 1, 1}))}, 1), net.add_node("Add", {in, net.constant(random_tensor(r, DType::F32, {3}))}, 1)};
  const Graph& graph = net.graph();
  for (NodeId id : nodes) {
    const Node& node = graph.node(id);
    SCOPED_TRACE(node.op);
    /// One node's inputs, the first of them channels-last.
    class Context : public KernelContext {
     public:
      Context(const Graph& of, const Node& what, DeviceRun& where, Tensor first) : graph_(of), node_(what), run_(where) {
        for (ValueId v : node_.inputs) tensors_.push_back(v == node_.inputs[0] ? first : run_.to_device(*graph_.constant(v)));
      }
      size_t inputs() const override { return tensors_.size(); }
      size_t outputs() const override { return 1; }
      bool has(size_t i) const override { return i < tensors_.size(); }
      const Tensor& in(size_t i) override {
        if (i > 0) return tensors_[i];
        return plain_ = run_.convert_layout(tensors_[0], Layout::ChannelsLast, Layout::Plain);
      }
      const Tensor& in_any(size_t i, Layout& layout) override { return layout = i == 0 ? Layout::ChannelsLast : Layout::Plain, tensors_[i]; }
      bool wanted(size_t i) const override { return i == 0; }
      Tensor& out(size_t, DType dtype, Shape shape, Layout layout) override { return made_layout = layout, made = run_.make(dtype, std::move(shape)); }
      Tensor& out_reusing(size_t i, size_t, DType dtype, Shape shape, Layout layout) override { return out(i, dtype, std::move(shape), layout); }
      void set(size_t, Tensor tensor, Layout layout) override { made = std::move(tensor), made_layout = layout; }
      DeviceRun* device() override { return &run_; }
      const Tensor& host(size_t i) override { return *graph_.constant(node_.inputs[i]); }
      std::vector<Datum> run_body(size_t, std::vector<Datum>) override { return {}; }
      Tensor made;
      Layout made_layout = Layout::Plain;

     private:
      const Graph& graph_;
      const Node& node_;
      DeviceRun& run_;
      std::vector<Tensor> tensors_;
      Tensor plain_;
    } context(graph, node, *run, there);
    cuda_device()->kernel({graph, node, 21})->run(context);
    const Tensor got = run->to_host(run->convert_layout(context.made, context.made_layout, Layout::Plain));
    Net alone;
    std::vector<ValueId> inputs{alone.input(DType::F32, x.shape())};
    for (size_t i = 1; i < node.inputs.size(); ++i) inputs.push_back(alone.constant(*graph.constant(node.inputs[i])));
    alone.output(alone.add(node.op, inputs, node.attributes));
    Agreement().compare(got, Session(alone.graph()).run({{inputs[0], x}})[0], 1e-5);
  }
}

TEST(CudaArgReduce, AnyAxisTypeAndTie) {
  Random r(65);
  for (const char* op : {"ArgMax", "ArgMin"})
    for (DType dtype : {DType::F32, DType::F16, DType::F64, DType::I8, DType::I32, DType::I64, DType::U64})
      for (int i = 0; i < 4; ++i) {
        const Shape shape = random_shape(r, 1, 4, 9);
        const auto rank = static_cast<int64_t>(shape.size());
        // Integers and rounded floats: many are equal.
        const Tensor x = cast(random_tensor(r, DType::I32, shape, dtype == DType::U64 ? 0 : -2, 2), dtype);
        expect_node(op, {x}, {{"axis", r.in(-rank, rank - 1)}, {"keepdims", r.in(0, 1)}, {"select_last_index", r.in(0, 1)}});
      }
  for (int64_t last : {0, 1})
    for (int64_t n : {40, 600}) expect_node("ArgMax", {random_tensor(r, DType::F32, {5, n}, -4, 4, true)}, {{"axis", int64_t{1}}, {"select_last_index", last}});
  expect_node("ArgMin", {random_tensor(r, DType::F32, {2, 5, 2100})}, {{"axis", int64_t{1}}});
}

TEST(CudaCumulative, AnyAxisTypeAndDirection) {
  Random r(66);
  for (DType dtype : {DType::F32, DType::F16, DType::F64, DType::I32, DType::I64, DType::U8})
    for (int i = 0; i < 8; ++i) {
      Shape shape = random_shape(r, 1, 3, 6);
      const int64_t axis = r.in(0, static_cast<int64_t>(shape.size()) - 1);
      shape[static_cast<size_t>(axis)] = r.pick<int64_t>({1, 8, 9, 32, 33, 128, 129, 256, 300, 513});
      expect_node("CumSum", {random_tensor(r, dtype, shape, is_float(dtype) ? -2 : 0, 3), Tensor::scalar<int64_t>(axis)}, {{"exclusive", r.in(0, 1)}, {"reverse", r.in(0, 1)}}, 14, 8);
    }
  expect_node("CumSum", {random_tensor(r, DType::F32, {2, 3, 2100}), Tensor::scalar<int64_t>(1)}, {}, 14, 4);
}

}  // namespace
}  // namespace infopt::test

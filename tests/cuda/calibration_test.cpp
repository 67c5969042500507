// Calibration on the device beside the CPU's: the same statistics, the same errors, and nothing else comes back.
#include "calibration/calibration.h"

#include <gmock/gmock.h>

#include "tests/cuda/elements.h"
#include "tests/support/model_text.h"

namespace infopt::test {
namespace {

/// Samples of one input; most elements are small.
class Images : public DataSet {
 public:
  Images(Shape shape, int64_t size, std::string name = "x") : shape_(std::move(shape)), size_(size), names_{std::move(name)} {}
  int64_t size() const override { return size_; }
  const std::vector<std::string>& names() const override { return names_; }
  const std::vector<std::string>& unused() const override { return none_; }
  bool has_label() const override { return false; }
  bool next(Sample& sample) override {
    if (at_ == size_) return false;
    Random r(static_cast<unsigned>(at_) + 1);
    Tensor x = random_tensor(r, DType::F32, shape_, -2, 2);
    for (int64_t i = 0; i < x.size(); ++i) x.mutable_data<float>()[i] *= r.real(0, 2);
    if (at_ == large) x.mutable_data<float>()[x.size() / 2] = 200;
    sample = {at_, {{names_[0], x}}, {}, 1, "sample " + std::to_string(at_)};
    ++at_;
    return true;
  }
  void reset() override { at_ = 0; }
  std::string content_key() const override { return "images"; }
  int64_t large = -1;

 private:
  Shape shape_;
  int64_t size_, at_ = 0;
  std::vector<std::string> names_, none_;
};

StatisticsSet collected(const Graph& graph, const std::vector<CollectRequest>& requests, const std::shared_ptr<Images>& data, bool device, int threads = 1) {
  CalibrationOptions options;
  options.threads = threads;
  if (device) options.device = cuda_device();
  return Calibration(data, options).collect(graph, requests);
}

std::vector<CollectRequest> requests_of(const Graph& graph, const std::vector<std::pair<std::string, int64_t>>& names) {
  std::vector<CollectRequest> requests;
  for (const auto& [name, axis] : names) requests.push_back({graph.find_value(name), axis});
  return requests;
}

/// Convolution, Relu, pooling, product, Exp and Softmax, and what is asked about them.
struct Classifier {
  Net net{17};
  std::vector<CollectRequest> requests;
  Classifier() {
    Random r(5);
    const auto weights = [&](const Shape& shape) { return net.constant(random_tensor(r, DType::F32, shape, -0.5f, 0.5f)); };
    const ValueId x = net.input(DType::F32, {1, 3, 14, 15});
    const ValueId conv = net.add("Conv", {x, weights({16, 3, 3, 3}), weights({16})}, {{"pads", std::vector<int64_t>{1, 1, 1, 1}}}), relu = net.add("Relu", {conv});
    const ValueId flat = net.add("Flatten", {net.add("GlobalAveragePool", {relu})}), product = net.add("MatMul", {flat, weights({16, 10})});
    const ValueId exp = net.add("Exp", {product}), y = net.add("Softmax", {exp});
    net.output(y);
    requests = {{x, 1}, {conv, 1}, {relu, 1}, {flat, -1}, {product, -1}, {exp, -1}, {y, -1}};
  }
  const Graph& graph() { return net.graph(); }
};

/// Values that moved by less than a bin can't have passed more than one edge: so many lie below edge i as below a neighbour of it.
void expect_near(const Histogram& got, const Histogram& want) {
  Histogram a = got, b = want;
  a.merge(Histogram::from(want.exponent(), std::vector<int64_t>(Histogram::kBins, 0)));
  b.merge(Histogram::from(got.exponent(), std::vector<int64_t>(Histogram::kBins, 0)));
  ASSERT_EQ(a.exponent(), b.exponent());
  ASSERT_EQ(a.total(), b.total());
  const auto below = [](const Histogram& h) {
    std::vector<int64_t> sums{0};
    for (int64_t c : h.counts()) sums.push_back(sums.back() + c);
    return sums;
  };
  const auto sums = below(a), expected = below(b);
  for (size_t i = 0; i < sums.size(); ++i) {
    ASSERT_GE(sums[i], expected[i ? i - 1 : 0]) << i;
    ASSERT_LE(sums[i], expected[std::min(i + 1, sums.size() - 1)]) << i;
  }
}

/// Elements that differ by at most 1e-5 of the largest magnitude: so do extremes and means, and nothing moves by more than a bin.
void expect_near(const TensorStatistics& got, const TensorStatistics& want) {
  EXPECT_EQ(got.samples, want.samples);
  ASSERT_EQ(got.elements, want.elements);
  const double bound = 1e-5 * std::max(std::fabs(want.min), std::fabs(want.max));
  EXPECT_NEAR(got.min, want.min, bound);
  EXPECT_NEAR(got.max, want.max, bound);
  ASSERT_EQ(got.channel_sum.size(), want.channel_sum.size());
  for (size_t c = 0; c < want.channel_sum.size(); ++c) {
    EXPECT_NEAR(got.channel_min[c], want.channel_min[c], bound);
    EXPECT_NEAR(got.channel_max[c], want.channel_max[c], bound);
    EXPECT_NEAR(got.mean(c), want.mean(c), bound);
    EXPECT_NEAR(std::sqrt(got.square(c)), std::sqrt(want.square(c)), bound);
  }
  expect_near(got.histogram, want.histogram);
}

TEST(CudaCalibration, IsTheCpusWithinWhatTheInputsDifferBy) {
  Classifier model;
  const auto data = std::make_shared<Images>(Shape{1, 3, 14, 15}, 6, "x0");
  const StatisticsSet want = collected(model.graph(), model.requests, data, false), got = collected(model.graph(), model.requests, data, true);
  ASSERT_EQ(got.tensors.size(), model.requests.size());
  for (const auto& [value, statistics] : want.tensors) {
    SCOPED_TRACE("value " + std::to_string(value));
    expect_near(got.tensors.at(value), statistics);
  }
  const ValueId x = model.requests[0].value;
  EXPECT_EQ(got.tensors.at(x).histogram.counts(), want.tensors.at(x).histogram.counts());
  EXPECT_EQ(got.tensors.at(x).channel_min, want.tensors.at(x).channel_min);
}

TEST(CudaCalibration, DoesNotDependOnThreads) {
  Classifier model;
  std::string expected;
  for (int threads : {1, 2, 3}) {
    const std::string bytes = serialize(collected(model.graph(), model.requests, std::make_shared<Images>(Shape{1, 3, 14, 15}, 7, "x0"), true, threads));
    if (expected.empty()) expected = bytes;
    EXPECT_EQ(bytes, expected) << threads;
  }
}

TEST(CudaCalibration, FollowsShapesThatDifferFromNodeToNode) {
  const Model model = model_of("g (float[N,40] x) => (float[N] y) { a = Relu(x)\n d = CastLike(a, a)\n s = Shape(d)\n r = Reshape(d, s)\n y = ReduceMax<axes=[1], keepdims=0>(r) }");
  const auto data = std::make_shared<Images>(Shape{3, 40}, 5);
  const auto requests = requests_of(*model.graph, {{"a", 1}, {"d", 0}, {"r", -1}, {"y", 0}});
  const StatisticsSet want = collected(*model.graph, requests, data, false), got = collected(*model.graph, requests, data, true);
  for (const auto& [value, statistics] : want.tensors) {
    EXPECT_EQ(got.tensors.at(value).histogram.counts(), statistics.histogram.counts());
    EXPECT_EQ(got.tensors.at(value).channel_max, statistics.channel_max);
  }
}

/// What a calibration ends with.
std::string complaint_of(const Graph& graph, const std::vector<CollectRequest>& requests, const std::shared_ptr<Images>& data, bool device) {
  try {
    collected(graph, requests, data, device);
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

TEST(CudaCalibration, NamesWhatTheCpuNamesWhereAnInfinityBegins) {
  // Exp overflows in one sample only. Behind it: nothing; a node that only the CPU has; a node that makes NaN of it; one that asks for it.
  for (const char* net : {
           "g (float[N,40] x) => (float[N,40] y) { a = Relu(x)\n big = Exp(a)\n y = Neg(big) }",
           "g (float[N,40] x) => (int32[N,1] y) { a = Relu(x)\n big = Exp(a)\n c = Neg(big)\n d = Exp(c)\n y = Multinomial(d) }",
           "g (float[N,40] x) => (int32[N,1] y, float[N,40] z) { y = Multinomial(x)\n a = Exp(x)\n z = Sub(a, a) }",
           "g (float[N,40] x) => (float[N,40] y) { a = Relu(x)\n big = Exp(a)\n m = IsInf(big)\n f = Cast<to=1>(m)\n y = Add(f, a) }",
           "g (float[N,40] x) => (float[N,40] y) { a = Exp(x)\n n = Neg(a)\n y = Softmax(n) }"})
    for (int64_t sample : {0, 1, 3}) {
      const Model model = model_of(net);
      const auto data = std::make_shared<Images>(Shape{1, 40}, 4);
      data->large = sample;
      const std::string want = complaint_of(*model.graph, {}, data, false), got = complaint_of(*model.graph, {}, data, true);
      EXPECT_EQ(got, want);
      if (std::string(net).find("IsInf") == std::string::npos) EXPECT_THAT(got, testing::HasSubstr("sample " + std::to_string(sample)));
      else EXPECT_EQ(got, "");
    }
}

TEST(CudaCalibration, AValueThatIsAskedForMustBeFinite) {
  const Model model = model_of("g (float[N,40] x) => (float[N,40] y) { a = Relu(x)\n big = Exp(a)\n m = IsInf(big)\n f = Cast<to=1>(m)\n y = Add(f, a) }");
  const auto data = std::make_shared<Images>(Shape{1, 40}, 4);
  data->large = 2;
  const auto requests = requests_of(*model.graph, {{"a", 1}, {"big", 1}});
  const std::string got = complaint_of(*model.graph, requests, data, true);
  EXPECT_EQ(got, complaint_of(*model.graph, requests, data, false));
  EXPECT_THAT(got, testing::HasSubstr("'big'"));
}

}  // namespace
}  // namespace infopt::test

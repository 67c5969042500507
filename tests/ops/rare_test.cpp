// Strings, integer convolutions, DeformConv, audio, losses, training. Expected values: ONNX Runtime 1.32 on the same node unless a
// case says otherwise.
#include "tests/ops/data_harness.h"

namespace infopt::test {
namespace {

/// f(i) for each element.
template <class T> Tensor made(Shape shape, const std::function<double(int64_t)>& f) {
  Tensor t(dtype_of<T>, std::move(shape));
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<T>()[i] = static_cast<T>(f(i));
  return t;
}

Tensor codes() { return made<uint8_t>({2, 4, 5, 5}, [](int64_t i) { return static_cast<double>(i * 37 % 251); }); }
Tensor code_weights() { return made<int8_t>({4, 2, 3, 3}, [](int64_t i) { return static_cast<double>(i * 29 % 255 - 127); }); }

TEST(QLinearConv, ScalesEachChannelAndAddsTheBias) {
  const Tensor y = run_op("QLinearConv", 10,
                          {codes(), Tensor::scalar(0.02f), Tensor::scalar<uint8_t>(117), code_weights(), floats({4}, {.01f, .02f, .005f, .03f}),
                           made<int8_t>({4}, [](int64_t) { return 0.0; }), Tensor::scalar(0.6f), Tensor::scalar<uint8_t>(131),
                           made<int32_t>({4}, [](int64_t i) { return std::vector<double>{5, -300, 1000, 0}[static_cast<size_t>(i)]; })},
                          {attribute("group", int64_t{2}), ints("strides", {2, 2}), ints("pads", {1, 0, 1, 2}), ints("dilations", {1, 2})})[0];
  expect_tensor(y, {2, 4, 3, 2}, {126, 125, 136, 138, 127, 130, 120, 119, 141, 144, 124, 129, 130, 131, 133, 134, 131, 129, 123, 129, 142, 150, 132, 122,
                                  129, 133, 135, 129, 123, 127, 126, 133, 142, 128, 118, 126, 135, 130, 125, 134, 132, 130, 151, 122, 98, 153, 136, 122});
}

TEST(ConvInteger, SumsExactly) {
  Tensor w(DType::U8, {4, 2, 3, 3});
  std::copy_n(code_weights().raw(), w.bytes(), w.mutable_raw());
  const Tensor y = run_op("ConvInteger", 10, {codes(), w, Tensor::scalar<uint8_t>(117), Tensor::scalar<uint8_t>(127)},
                          {attribute("group", int64_t{2}), ints("strides", {2, 1}), ints("pads", {1, 0, 1, 2})})[0];
  ASSERT_EQ(y.shape(), Shape({2, 4, 3, 5}));
  const std::vector<int64_t> all = to_vector<int64_t>(y);
  EXPECT_EQ(std::vector<int64_t>(all.begin(), all.begin() + 6), std::vector<int64_t>({-21581, 14335, 4569, -5628, 9435, -9428}));
  std::vector<int64_t> sums(8);
  for (size_t i = 0; i < all.size(); ++i) sums[i / 15] += all[i];
  EXPECT_EQ(sums, std::vector<int64_t>({8229, -12179, -57818, 3190, 44251, -4017, 30368, 15160}));
}

TEST(ConvInteger, RefusesWhatDoesntFit) {
  const auto run = [](Attributes attributes, Tensor zero = {}) { return kind_of_error([&] { run_op("ConvInteger", 10, {codes(), code_weights(), zero}, attributes); }); };
  EXPECT_EQ(run({}), ErrorKind::Malformed);
  EXPECT_EQ(run({attribute("group", int64_t{0})}), ErrorKind::Malformed);
  EXPECT_EQ(run({attribute("group", int64_t{2})}, longs({3}, {1, 2, 3})), ErrorKind::Malformed);
  EXPECT_EQ(run({attribute("group", int64_t{2}), ints("dilations", {int64_t{1} << 62, 1})}), ErrorKind::Malformed);
}

TEST(ConvInteger, HasNoZeroPointsForNoFilters) {
  EXPECT_EQ(kind_of_error([] { run_op("ConvInteger", 10, {codes(), Tensor(DType::I8, {0, 4, 3, 3}), {}, Tensor(DType::I8, {0})}); }), ErrorKind::Malformed);
}

TEST(Conv, GoesDownAColumnAsAlongARow) {  // a column is computed as a row; a row's values are ONNX's suite's business
  const auto sines = [](Shape shape) { return made<float>(std::move(shape), [](int64_t i) { return std::sin(static_cast<double>(i)); }); };
  for (int64_t groups : {1, 2}) {
    const auto run = [&](bool column) {
      const auto turned = [&](int64_t n, int64_t c, int64_t length) { return column ? Shape{n, c, length, 1} : Shape{n, c, 1, length}; };
      const auto along = [&](int64_t v, int64_t across) { return column ? std::vector<int64_t>{v, across} : std::vector<int64_t>{across, v}; };
      std::vector<int64_t> pads = along(3, 0);
      for (int64_t v : along(1, 0)) pads.push_back(v);
      return run_op("Conv", 11, {sines(turned(2, 6, 23)), sines(turned(8, 6 / groups, 3)), sines({8})},
                    {attribute("group", groups), ints("strides", along(2, 1)), ints("dilations", along(2, 1)), ints("pads", pads)})[0];
    };
    const Tensor down = run(true), along = run(false);
    ASSERT_EQ(down.shape(), Shape({2, 8, 12, 1}));
    EXPECT_EQ(to_vector<float>(down), to_vector<float>(along));
  }
}

TEST(DeformConv, MovesAndWeighsEachTap) {
  const auto sines = [](Shape shape, double by) { return made<float>(std::move(shape), [by](int64_t i) { return std::sin(static_cast<double>(i)) * by; }); };
  const auto cosines = [](Shape shape) { return made<float>(std::move(shape), [](int64_t i) { return std::cos(static_cast<double>(i)); }); };
  const Tensor y = run_op("DeformConv", 22, {sines({1, 2, 4, 5}, 1), cosines({4, 1, 2, 2}), sines({1, 16, 3, 4}, 2), floats({4}, {1, 2, 3, 4}), cosines({1, 8, 3, 4})},
                          {attribute("group", int64_t{2}), attribute("offset_group", int64_t{2})})[0];
  ASSERT_EQ(y.shape(), Shape({1, 4, 3, 4}));
  expect_tensor(y.reshaped({48}).slice_front(0, 8), {8}, {1.044835090637207, 0.644188404083252, 0.6777898669242859, 1.149927020072937, 0.6231276392936707, 0.7137809991836548, 0.9402967691421509, 1.0175825357437134}, 2e-6);
}

TEST(Stft, WindowsEachFrame) {
  const Tensor x = made<float>({1, 12, 1}, [](int64_t i) { return std::sin(static_cast<double>(i)); });
  const Tensor hann = made<float>({6}, [](int64_t i) { return 0.5 - 0.5 * std::cos(2 * M_PI * static_cast<double>(i) / 5); });
  const Tensor y = run_op("STFT", 17, {x, Tensor::scalar<int64_t>(4), hann})[0];
  ASSERT_EQ(y.shape(), Shape({1, 2, 4, 2}));
  expect_tensor(y.reshaped({16}).slice_front(0, 8), {8}, {0.97936380, 0, -0.26278371, -1.19048774, -0.29821503, 0.68694431, 0.14263308, 0}, 1e-6);
  for (int64_t step : {0, -1}) EXPECT_EQ(kind_of_error([&] { run_op("STFT", 17, {x, Tensor::scalar(step), hann}); }), ErrorKind::Malformed);
}

TEST(Stft, TakesARealSignalWithoutAnAxisForParts) {  // as ONNX Runtime does
  const Tensor x = made<float>({2, 12, 1}, [](int64_t i) { return std::sin(static_cast<double>(i)); });
  const std::vector<Tensor> rest{Tensor::scalar<int64_t>(4), {}, Tensor::scalar<int64_t>(6)};
  const Tensor y = run_op("STFT", 17, {x.reshaped({2, 12}), rest[0], rest[1], rest[2]})[0];
  ASSERT_EQ(y.shape(), Shape({2, 2, 4, 2}));
  // numpy.fft.rfft(numpy.sin(numpy.arange(24)).reshape(2, 12)[1, 4:10])
  expect_tensor(y.reshaped({32}).slice_front(24, 8), {8}, {-0.10080996, 0.00000000, -0.58113045, 2.99816750, -0.15663418, 0.11615188, -0.15108067, 0.00000000}, 1e-6);
  EXPECT_EQ(kind_of_error([&] { run_op("STFT", 17, {x.reshaped({24}), rest[0], rest[1], rest[2]}); }), ErrorKind::Malformed);
}

TEST(Dft, TakesManyRealLines) {
  const Tensor x = made<float>({9, 7, 1}, [](int64_t i) { return std::sin(static_cast<double>(i)); });
  // numpy.fft.rfft(numpy.sin(numpy.arange(63)).reshape(9, 7), 10)[8], and fft(…, 5)[8]
  const Tensor half = run_op("DFT", 17, {x, Tensor::scalar<int64_t>(10)}, {attribute("axis", int64_t{1}), attribute("onesided", int64_t{1})})[0];
  ASSERT_EQ(half.shape(), Shape({9, 6, 2}));
  expect_tensor(half.reshaped({108}).slice_front(96, 12), {12}, {-0.46588468, 0.00000000, 1.75208984, -2.06153937, -2.99388022, -0.21103753, -0.30094559, 0.12993329, -0.49234937, 0.33764928, -0.67945466, 0.00000000}, 2e-6);
  const Tensor all = run_op("DFT", 17, {x, Tensor::scalar<int64_t>(5)}, {attribute("axis", int64_t{1})})[0];
  ASSERT_EQ(all.shape(), Shape({9, 5, 2}));
  expect_tensor(all.reshaped({90}).slice_front(80, 10), {10}, {1.23941379, 0.00000000, -1.79934306, -0.91404015, -0.12424134, -0.09683023, -0.12424134, 0.09683023, -1.79934306, 0.91404015}, 2e-6);
}

TEST(Dft, CutsOrFillsToItsLength) {
  const Tensor x = made<float>({1, 12, 2}, [](int64_t i) { return std::sin(static_cast<double>(i / 2)) * static_cast<double>(1 + i % 2); });
  const Tensor y = run_op("DFT", 17, {x, Tensor::scalar<int64_t>(5)}, {attribute("axis", int64_t{1}), attribute("inverse", int64_t{1})})[0];
  ASSERT_EQ(y.shape(), Shape({1, 5, 2}));
  expect_tensor(y.reshaped({10}).slice_front(0, 4), {4}, {0.22701736, 0.45403442, -0.95335704, 0.06485792}, 1e-6);
  for (int64_t n : {int64_t{0}, int64_t{-3}, std::numeric_limits<int64_t>::max()})
    EXPECT_EQ(kind_of_error([&] { run_op("DFT", 17, {x, Tensor::scalar(n)}); }), ErrorKind::Malformed) << n;
}

/// Python's str.split, which ONNX's reference implementation is.
TEST(StringSplit, SplitsAsPythonDoes) {
  const Tensor x = strings({"a  b c ", " x", "", "  "});
  auto y = run_op("StringSplit", 20, {x}, {}, 2);
  expect_tensor(y[1], {4}, {3, 1, 0, 0});
  EXPECT_EQ(y[0].strings(), std::vector<std::string>({"a", "b", "c", "x", "", "", "", "", "", "", "", ""}));
  y = run_op("StringSplit", 20, {x}, {attribute("maxsplit", int64_t{1})}, 2);
  EXPECT_EQ(y[0].strings(), std::vector<std::string>({"a", "b c ", "x", "", "", "", "", ""}));
  y = run_op("StringSplit", 20, {strings({"a,,b", "", ",c"})}, {text("delimiter", ",")}, 2);
  expect_tensor(y[1], {3}, {3, 1, 2});
  EXPECT_EQ(y[0].strings(), std::vector<std::string>({"a", "", "b", "", "", "", "", "c", ""}));
}

TEST(StringNormalizer, ComparesWithoutCaseBeyondAscii) {
  const Attributes attributes{text("case_change_action", "LOWER"), attribute("stopwords", std::vector<std::string>{"THE", "\xC3\xA9T\xC3\x89"})};
  EXPECT_EQ(run_op("StringNormalizer", 10, {strings({"The", "CAT", "\xC3\x89t\xC3\xA9", "the", "\xFF"})}, attributes)[0].strings(), std::vector<std::string>({"cat", "\xFF"}));
  EXPECT_EQ(kind_of_error([] { run_op("StringNormalizer", 10, {strings({"a", "b"}).reshaped({2, 1})}); }), ErrorKind::Malformed);
}

Attributes tfidf(const std::string& mode, int64_t shortest, int64_t skips, std::vector<float> weights = {}) {
  Attributes all{text("mode", mode), attribute("min_gram_length", shortest), attribute("max_gram_length", int64_t{2}), attribute("max_skip_count", skips),
                 ints("ngram_counts", {0, 4}), ints("ngram_indexes", {0, 1, 2, 3, 4, 5, 6}), ints("pool_int64s", {2, 3, 5, 4, 5, 6, 7, 8, 6, 7})};
  if (!weights.empty()) all.push_back(attribute("weights", std::move(weights)));
  return all;
}

TEST(TfIdfVectorizer, CountsGramsWithGaps) {
  const Tensor x = longs({2, 6}, {1, 1, 3, 3, 3, 7, 8, 6, 7, 5, 6, 8});
  expect_tensor(run_op("TfIdfVectorizer", 9, {x}, tfidf("TFIDF", 1, 5, {1, 2, 3, 4, 5, 6, 7}))[0], {2, 7}, {0, 6, 0, 0, 0, 0, 0, 0, 0, 3, 0, 5, 6, 7});
  expect_tensor(run_op("TfIdfVectorizer", 9, {x}, tfidf("IDF", 2, 1))[0], {2, 7}, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1});
  expect_tensor(run_op("TfIdfVectorizer", 9, {longs({0}, {})}, tfidf("TF", 1, std::numeric_limits<int64_t>::max()))[0], {7}, {0, 0, 0, 0, 0, 0, 0});
}

TEST(TfIdfVectorizer, RefusesPoolsThatDontFit) {
  for (const std::vector<int64_t>& counts : {std::vector<int64_t>{0, 5}, {0, 11}, {-1, 4}, {4, 0}, {0, 0, 0}}) {
    Attributes attributes = tfidf("TF", 1, 0);
    attributes[4] = ints("ngram_counts", counts);
    EXPECT_EQ(kind_of_error([&] { run_op("TfIdfVectorizer", 9, {longs({2}, {1, 2})}, attributes); }), ErrorKind::Malformed) << to_string(counts);
  }
}

/// numpy.random.RandomState(0).uniform(size=6): 0.549 0.715 0.603 0.545 0.424 0.646
TEST(Dropout, DrawsAsNumpyDoesInTraining) {
  const auto y = run_op("Dropout", 13, {floats({6}, {1, 2, 3, 4, 5, 6}), Tensor::scalar(0.6f), bools({1}).reshaped({})}, {attribute("seed", int64_t{0})}, 2);
  expect_tensor(y[1], {6}, {0, 1, 1, 0, 0, 1});
  expect_tensor(y[0], {6}, {0, 5, 7.5, 0, 0, 15}, 1e-5);
  for (float bad : {1.0f, -0.5f, std::nanf("")})
    EXPECT_EQ(kind_of_error([&] { run_op("Dropout", 13, {floats({1}, {1}), Tensor::scalar(bad), bools({1}).reshaped({})}); }), ErrorKind::Malformed);
}

/// By the definition: -w[t] x[t], summed and divided by the weights that count.
TEST(NegativeLogLikelihoodLoss, IgnoresAClass) {
  const Tensor x = floats({3, 2}, {-1, -2, -3, -4, -5, -6}), t = longs({3}, {0, 1, -1});
  const Attributes ignore{attribute("ignore_index", int64_t{-1})};
  expect_tensor(run_op("NegativeLogLikelihoodLoss", 13, {x, t, floats({2}, {2, 3})}, ignore)[0], {}, {(2.0 * 1 + 3 * 4) / 5}, 1e-6);
  EXPECT_EQ(kind_of_error([&] { run_op("NegativeLogLikelihoodLoss", 13, {x, t}); }), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([&] { run_op("NegativeLogLikelihoodLoss", 13, {x, longs({2}, {0, 1})}); }), ErrorKind::Malformed);
}

}  // namespace
}  // namespace infopt::test

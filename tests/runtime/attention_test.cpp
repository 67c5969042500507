// Attention as one step against the same graph step by step, and against plain sums in double.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "lib/runtime/cpu/float_tiles.h"
#include "lib/runtime/session.h"
#include "tests/support/model_text.h"

namespace infopt {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Case {
  int64_t batch = 1, heads = 1, queries = 1, keys = 1, depth = 1, value_depth = 1;
  std::string scale = "none";      ///< none, mul, div, or both operands'
  std::string mask = "none";       ///< none, add, where, where_else, add_where, where_add
  Shape mask_shape = {};
  std::string layout = "before";   ///< Transposes of Q, K, V: before the pattern, of K only, or none
  bool out_transposed = false;
  bool cast = false;
  bool guarded = false;  ///< weights that are NaN become 0

  std::string describe() const {
    std::string s = "b" + std::to_string(batch) + " h" + std::to_string(heads) + " s" + std::to_string(queries) + " t" + std::to_string(keys) + " d" + std::to_string(depth);
    return s + " v" + std::to_string(value_depth) + " " + scale + " " + mask + to_string(mask_shape) + " " + layout + (out_transposed ? " out" : "") + (cast ? " cast" : "") + (guarded ? " guarded" : "");
  }
};

std::string graph_of(const Case& c) {
  const auto has = [](const std::string& s, const char* part) { return s.find(part) != std::string::npos; };
  std::string inputs = "float[b,s,h,d] q, float[b2,t,h2,d2] k, float[b3,t3,h3,e] v", body;
  const std::string rank = std::to_string(c.mask_shape.size());
  std::string dims;
  for (size_t i = 0; i < c.mask_shape.size(); ++i) dims += (i ? ",m" : "m") + std::to_string(i);
  if (has(c.mask, "add")) inputs += ", float[" + dims + "] mask";
  if (has(c.mask, "where")) inputs += ", bool[" + dims + "] keep";
  std::string q = "q", k = "k", v = "v";
  if (c.layout == "before") {
    body += "qt = Transpose<perm = [0, 2, 1, 3]>(q)\n kt = Transpose<perm = [0, 2, 3, 1]>(k)\n vt = Transpose<perm = [0, 2, 1, 3]>(v)\n";
    q = "qt", k = "kt", v = "vt";
  } else if (c.layout == "twice") {
    body += "qt = Transpose<perm = [0, 2, 1, 3]>(q)\n k1 = Transpose<perm = [0, 2, 1, 3]>(k)\n kt = Transpose<perm = [0, 1, 3, 2]>(k1)\n vt = Transpose<perm = [0, 2, 1, 3]>(v)\n";
    q = "qt", k = "kt", v = "vt";
  } else if (c.layout == "keys") {
    body += "kt = Transpose<perm = [0, 1, 3, 2]>(k)\n";
    k = "kt";
  }
  body += "factor = Constant<value_float = 0.3>()\n";
  if (c.scale == "operands") {
    body += "qs = Mul(" + q + ", factor)\n ks = Div(" + k + ", factor)\n qss = Mul(factor, qs)\n";
    q = "qss", k = "ks";
  }
  body += "s0 = MatMul(" + q + ", " + k + ")\n";
  std::string s = "s0";
  const auto step = [&](const std::string& text) {
    const std::string next = s + "x";
    body += next + " = " + text + "\n";
    s = next;
  };
  if (c.scale == "mul") step("Mul(" + s + ", factor)");
  if (c.scale == "div") step("Div(" + s + ", factor)");
  body += "low = Constant<value_float = -10000.0>()\n";
  for (const std::string part : {"where", "add"}) {
    const bool first = c.mask.rfind(part, 0) == 0;
    if (!has(c.mask, part.c_str()) || !first) continue;
    if (part == "where") step(has(c.mask, "else") ? "Where(keep, low, " + s + ")" : "Where(keep, " + s + ", low)");
    else step("Add(" + s + ", mask)");
  }
  if (c.mask == "add_where") step("Where(keep, " + s + ", low)");
  if (c.mask == "where_add") step("Add(mask, " + s + ")");
  if (c.cast) step("Cast<to = 1>(" + s + ")");
  body += (c.guarded ? "w" : "p") + std::string(" = Softmax<axis = -1>(") + s + ")\n";
  if (c.guarded) body += "odd = IsNaN(w)\n nought = Constant<value_float = 0.0>()\n p = Where(odd, nought, w)\n";
  if (!c.out_transposed) body += "y = MatMul(p, " + v + ")\n";
  else body += "o = MatMul(p, " + v + ")\n y = Transpose<perm = [0, 2, 1, 3]>(o)\n";
  return "g (" + inputs + ") => (float[a1,a2,a3,a4] y) {\n" + body + "}";
}

using Inputs = std::map<std::string, Tensor>;

Tensor random_tensor(std::mt19937& r, Shape shape, float spread = 1.0f) {
  Tensor t(DType::F32, std::move(shape));
  std::normal_distribution<float> normal(0.0f, spread);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = normal(r);
  return t;
}

Inputs inputs_of(const Case& c, std::mt19937& r, const std::string& kind) {
  const bool heads_last = c.layout == "before" || c.layout == "twice";
  const auto shape = [&](int64_t n, int64_t d) { return heads_last ? Shape{c.batch, n, c.heads, d} : Shape{c.batch, c.heads, n, d}; };
  Inputs in{{"q", random_tensor(r, shape(c.queries, c.depth))}, {"k", random_tensor(r, shape(c.keys, c.depth))}, {"v", random_tensor(r, shape(c.keys, c.value_depth))}};
  if (c.layout == "none") in["k"] = random_tensor(r, {c.batch, c.heads, c.depth, c.keys});
  if (c.mask.find("add") != std::string::npos) {
    Tensor mask(DType::F32, c.mask_shape);
    float* m = mask.mutable_data<float>();
    const int64_t columns = c.mask_shape.empty() ? 1 : c.mask_shape.back(), rows = c.mask_shape.size() < 2 ? 1 : c.mask_shape[c.mask_shape.size() - 2];
    const float low = kind == "infinite" || kind == "causal" ? -kInfinity : kind == "lowest" ? std::numeric_limits<float>::lowest() : -10000.0f;
    for (int64_t i = 0; i < mask.size(); ++i) {
      const int64_t row = i / columns % rows, column = i % columns;
      if (kind == "random") m[i] = std::normal_distribution<float>(0, 2)(r);
      else if (kind == "causal") m[i] = column > row ? low : 0.0f;
      else if (kind == "padding") m[i] = column >= (columns + 1) / 2 ? low : 0.0f;
      else m[i] = (kind != "finite" && row % 3 == 1) || r() % 3 == 0 ? low : 0.0f;  // whole rows, too
    }
    in["mask"] = mask;
  }
  if (c.mask.find("where") != std::string::npos) {
    Tensor keep(DType::Bool, c.mask_shape);
    for (int64_t i = 0; i < keep.size(); ++i) keep.mutable_data<bool>()[i] = kind == "padding" ? i % c.mask_shape.back() < 3 : r() % 4 != 0;
    in["keep"] = keep;
  }
  return in;
}

/// y[b,h,s,e] in double.
std::vector<double> reference(const Case& c, const Inputs& in) {
  const bool heads_last = c.layout == "before" || c.layout == "twice";
  const auto at = [&](const float* x, int64_t n, int64_t d, int64_t b, int64_t h, int64_t i, int64_t j) -> double {
    return x[heads_last ? ((b * n + i) * c.heads + h) * d + j : ((b * c.heads + h) * n + i) * d + j];
  };
  const float *q = in.at("q").data<float>(), *k = in.at("k").data<float>(), *v = in.at("v").data<float>();
  const auto mask_index = [&](int64_t b, int64_t h, int64_t s, int64_t t) {
    const int64_t place[] = {b, h, s, t};
    int64_t index = 0;
    for (size_t i = 0; i < c.mask_shape.size(); ++i) index = index * c.mask_shape[i] + (c.mask_shape[i] == 1 ? 0 : place[4 - c.mask_shape.size() + i]);
    return index;
  };
  const double by = c.scale == "mul" || c.scale == "operands" ? 0.3f : c.scale == "div" ? 1.0 / 0.3f : 1.0;
  std::vector<double> y;
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t h = 0; h < c.heads; ++h)
      for (int64_t s = 0; s < c.queries; ++s) {
        std::vector<double> w;
        for (int64_t t = 0; t < c.keys; ++t) {
          double sum = 0;
          for (int64_t d = 0; d < c.depth; ++d)
            sum += at(q, c.queries, c.depth, b, h, s, d) * (c.layout == "none" ? k[((b * c.heads + h) * c.depth + d) * c.keys + t] : at(k, c.keys, c.depth, b, h, t, d));
          double x = sum * by;
          const auto add = [&] { x = static_cast<float>(x) + in.at("mask").data<float>()[mask_index(b, h, s, t)]; };
          const auto where = [&] { if (in.at("keep").data<bool>()[mask_index(b, h, s, t)] == (c.mask == "where_else")) x = -10000; };
          if (c.mask.rfind("add", 0) == 0) add();
          if (c.mask.find("where") != std::string::npos) where();
          if (c.mask == "where_add") add();
          w.push_back(static_cast<float>(x));
        }
        const double top = *std::max_element(w.begin(), w.end());
        double total = 0;
        for (double& x : w) total += x = std::exp(x - top);
        if (c.guarded && std::isnan(total)) std::fill(w.begin(), w.end(), 0.0), total = 1;
        for (int64_t e = 0; e < c.value_depth; ++e) {
          double sum = 0;
          for (int64_t t = 0; t < c.keys; ++t) sum += w[static_cast<size_t>(t)] / total * at(v, c.keys, c.value_depth, b, h, t, e);
          y.push_back(sum);
        }
      }
  return y;
}

/// Every number within `bound` of the expected one; NaN exactly where NaN is expected.
template <class T> void expect_near(const Tensor& y, const T* expected, double bound, const std::string& what) {
  for (int64_t i = 0; i < y.size(); ++i) {
    const double got = y.data<float>()[i], wanted = expected[i];
    if (std::isnan(wanted) ? std::isnan(got) : std::fabs(got - wanted) <= bound) continue;
    FAIL() << what << ": element " << i << " is " << got << ", expected " << wanted;
  }
}

Tensor run(const Model& model, const Inputs& in, bool fuse, int threads = 1) {
  SessionOptions options;
  options.fuse = fuse;
  options.threads = threads;
  options.profile = true;
  const Session session(*model.graph, options);
  Tensor y = session.run(in)[0];
  if (fuse) {
    EXPECT_EQ(session.profile().size(), 1u);
    EXPECT_EQ(model.graph->node(session.profile()[0].node).op, "Softmax");
  }
  return y;
}

/// Scores reach 80, where a float keeps five digits behind the point; near −10000 it keeps three.
double bound_of(const std::string& kind) { return kind == "finite" || kind == "padding" ? 5e-3 : 1e-4; }

void check(const Case& c, std::mt19937& r, const std::string& kind) {
  const std::string what = c.describe() + " " + kind;
  SCOPED_TRACE(what);
  const Model model = test::model_of(graph_of(c));
  const Inputs in = inputs_of(c, r, kind);
  const Tensor fused = run(model, in, true), plain = run(model, in, false);
  ASSERT_EQ(fused.shape(), plain.shape());
  expect_near(fused, plain.data<float>(), bound_of(kind), "against the plain graph, " + what);
  std::vector<double> expected = reference(c, in);
  if (c.out_transposed) {
    std::vector<double> moved(expected.size());
    for (int64_t b = 0, i = 0; b < c.batch; ++b)
      for (int64_t h = 0; h < c.heads; ++h)
        for (int64_t s = 0; s < c.queries; ++s)
          for (int64_t e = 0; e < c.value_depth; ++e, ++i) moved[static_cast<size_t>(((b * c.queries + s) * c.heads + h) * c.value_depth + e)] = expected[static_cast<size_t>(i)];
    expected = moved;
  }
  expect_near(fused, expected.data(), bound_of(kind), "against double, " + what);
  for (int threads : {2, 3}) {
    const Tensor again = run(model, in, true, threads);
    ASSERT_EQ(std::memcmp(again.raw(), fused.raw(), fused.bytes()), 0) << threads << " threads";
  }
}

template <class T> T pick(std::mt19937& r, std::initializer_list<T> from) { return *(from.begin() + static_cast<int64_t>(r() % from.size())); }

TEST(Attention, EqualsThePlainGraphForRandomShapesMasksAndLayouts) {
  std::mt19937 r(1);
  const auto isa = {cpu::FloatIsa::Avx512, cpu::FloatIsa::Avx2, cpu::FloatIsa::Portable};
  for (int i = 0; i < 240; ++i) {
    Case c;
    c.batch = pick<int64_t>(r, {1, 1, 2, 3});
    c.heads = pick<int64_t>(r, {1, 2, 5});
    c.queries = pick<int64_t>(r, {1, 2, 3, 5, 7, 16, 17, 33, 64, 70, 195});
    c.keys = pick<int64_t>(r, {1, 2, 4, 15, 16, 17, 31, 64, 65, 100, 130});
    c.depth = pick<int64_t>(r, {1, 3, 4, 16, 17, 32, 64});
    c.value_depth = pick<int64_t>(r, {1, 5, 16, 31, 32, 48, 64, 80});
    c.scale = pick<std::string>(r, {"none", "mul", "div", "operands"});
    c.mask = pick<std::string>(r, {"none", "add", "add", "add", "where", "where_else", "add_where", "where_add"});
    c.layout = pick<std::string>(r, {"before", "twice", "keys", "none"});
    c.out_transposed = r() % 2;
    c.cast = r() % 5 == 0;
    c.guarded = r() % 3 == 0;
    if (c.mask != "none") {
      c.mask_shape = {pick<int64_t>(r, {1, c.batch}), pick<int64_t>(r, {1, c.heads}), pick<int64_t>(r, {1, c.queries}), pick<int64_t>(r, {c.keys, c.keys, c.keys, 1})};
      for (size_t drop = r() % 4; drop > 0; --drop) c.mask_shape.erase(c.mask_shape.begin());
    }
    const cpu::FloatIsa wanted = *(isa.begin() + i % 3);
    if (!cpu::has_float_isa(wanted)) continue;
    cpu::use_float_isa(wanted);
    check(c, r, pick<std::string>(r, {"random", "causal", "padding", "infinite", "lowest", "finite"}));
    if (HasFatalFailure()) break;
  }
  for (const cpu::FloatIsa best : isa)
    if (cpu::has_float_isa(best)) {
      cpu::use_float_isa(best);
      break;
    }
}

TEST(Attention, EqualsThePlainGraphWhereTheKeysAreTakenInSeveralBlocks) {
  std::mt19937 r(2);
  for (const char* kind : {"random", "causal", "padding", "infinite", "finite"})
    for (const int64_t depth : {64, 130}) {
      Case c{1, 2, 40, 1300, depth, 33, "mul", "add", {40, 1300}, "before", true, false};
      check(c, r, kind);
    }
}

TEST(Attention, ARowWhoseScoresAreAllMinusInfinityIsNotANumberAndOthersAreUntouched) {
  const Model model = test::model_of(graph_of({1, 1, 2, 4, 2, 3, "none", "add", {2, 4}, "keys", false, false}));
  std::mt19937 r(3);
  Inputs in{{"q", random_tensor(r, {1, 1, 2, 2})}, {"k", random_tensor(r, {1, 1, 4, 2})}, {"v", random_tensor(r, {1, 1, 4, 3})}};
  in["mask"] = Tensor::of<float>({2, 4}, {-kInfinity, -kInfinity, -kInfinity, -kInfinity, 0, -kInfinity, -kInfinity, -kInfinity});
  const Tensor y = run(model, in, true);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(std::isnan(y.data<float>()[i]));
    EXPECT_EQ(y.data<float>()[3 + i], in["v"].data<float>()[i]);
  }
}

TEST(Attention, AGuardedRowWithoutAKeyOrWithNaNIsZero) {
  Case c{1, 1, 3, 4, 2, 3, "none", "add", {3, 4}, "keys", false, false};
  c.guarded = true;
  const Model model = test::model_of(graph_of(c));
  std::mt19937 r(3);
  Inputs in{{"q", random_tensor(r, {1, 1, 3, 2})}, {"k", random_tensor(r, {1, 1, 4, 2})}, {"v", random_tensor(r, {1, 1, 4, 3})}};
  in["mask"] = Tensor::of<float>({3, 4}, {-kInfinity, -kInfinity, -kInfinity, -kInfinity, 0, -kInfinity, -kInfinity, -kInfinity, 0, 0, std::nanf(""), 0});
  const Tensor y = run(model, in, true);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(y.data<float>()[i], 0.0f);
    EXPECT_EQ(y.data<float>()[3 + i], in["v"].data<float>()[i]);
    EXPECT_EQ(y.data<float>()[6 + i], 0.0f);
  }
}

TEST(Attention, IsntFusedWhereAGuardPutsSomethingElse) {
  const Model model = test::model_of(
      "g (float[2,3] q, float[3,4] k, float[4,5] v) => (float[2,5] y) <float one = {1.0}> { s = MatMul(q, k) w = Softmax<axis = -1>(s) n = IsNaN(w) p = Where(n, one, w) y = MatMul(p, v) }");
  SessionOptions options;
  options.profile = true;
  EXPECT_GT(Session(*model.graph, options).profile().size(), 1u);
}

TEST(Attention, IsntFusedWhereTheWeightsAreAnOutputToo) {
  const Model model = test::model_of(
      "g (float[2,3] q, float[3,4] k, float[4,5] v) => (float[2,5] y, float[2,4] p) { s = MatMul(q, k) p = Softmax<axis = -1>(s) y = MatMul(p, v) }");
  SessionOptions options;
  options.profile = true;
  EXPECT_EQ(Session(*model.graph, options).profile().size(), 3u);
}

TEST(Attention, OperandsWithoutLeadingAxesAndNoKeysAtAll) {
  const Model model = test::model_of("g (float[s,d] q, float[d,t] k, float[t,e] v) => (float[s,e] y) { s = MatMul(q, k) p = Softmax<axis = 1>(s) y = MatMul(p, v) }");
  std::mt19937 r(4);
  const Inputs in{{"q", random_tensor(r, {5, 3})}, {"k", random_tensor(r, {3, 6})}, {"v", random_tensor(r, {6, 2})}};
  expect_near(run(model, in, true), run(model, in, false).data<float>(), 1e-6, "two axes");
  const Inputs none{{"q", random_tensor(r, {5, 3})}, {"k", random_tensor(r, {3, 0})}, {"v", random_tensor(r, {0, 2})}};
  const Tensor y = run(model, none, true);
  EXPECT_EQ(y.shape(), (Shape{5, 2}));
  for (int64_t i = 0; i < y.size(); ++i) EXPECT_EQ(y.data<float>()[i], 0.0f);
}

}  // namespace
}  // namespace infopt

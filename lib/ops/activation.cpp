// Relu, Gelu, HardSwish, Clip…: activations of one element.
#include <cmath>

#include "lib/base/float_math.h"
#include "lib/base/simd.h"
#include "lib/ops/elementwise.h"

namespace infopt {
namespace {

constexpr double kSqrtHalf = 0.70710678118654752440, kSqrtTwoOverPi = 0.79788456080286535588;

INFOPT_FLOAT_LOOP(relu_loop, v < 0.0f ? 0.0f : v)
INFOPT_FLOAT_LOOP(leaky_relu_loop, v < 0.0f ? a * v : v)
INFOPT_FLOAT_LOOP(elu_loop, v < 0.0f ? a * expm1_f(v) : v)
INFOPT_FLOAT_LOOP(selu_loop, v > 0.0f ? b * v : b * (a * expm1_f(v)))
INFOPT_FLOAT_LOOP(celu_loop, v < 0.0f ? a * expm1_f(v / a) : v)
INFOPT_FLOAT_LOOP(thresholded_relu_loop, v > a ? v : (v != v ? v : 0.0f))
INFOPT_FLOAT_LOOP(sigmoid_loop, sigmoid_f(v))
INFOPT_FLOAT_LOOP(softplus_loop, softplus_f(v))
INFOPT_FLOAT_LOOP(softsign_loop, v / (1.0f + std::fabs(v)))
INFOPT_FLOAT_LOOP(gelu_erf_loop, gelu_f(v))
INFOPT_FLOAT_LOOP(gelu_tanh_loop, v * sigmoid_f(1.5957691216f * (v + 0.044715f * (v * v * v))))
INFOPT_FLOAT_LOOP(mish_loop, mish_f(v))
INFOPT_FLOAT_LOOP(swish_loop, v * sigmoid_f(a * v))

/// max(lo, min(hi, v)), NaN staying NaN.
INFOPT_INLINE float clamp_f(float v, float lo, float hi) {
  const float raised = v < lo ? lo : v;
  return raised > hi ? hi : raised;
}
INFOPT_FLOAT_LOOP(clip_loop, clamp_f(v, a, b))
INFOPT_FLOAT_LOOP(hard_sigmoid_loop, clamp_f(a * v + b, 0.0f, 1.0f))
INFOPT_FLOAT_LOOP(hard_swish_loop, v * clamp_f(v * (1.0f / 6.0f) + 0.5f, 0.0f, 1.0f))
INFOPT_FLOAT_LOOP(shrink_loop, v < -a ? v + b : (v > a ? v - b : (v != v ? v : 0.0f)))

double clamp_d(double v, double lo, double hi) { return v < lo ? (lo > hi ? hi : lo) : v > hi ? hi : v; }
double sigmoid_d(double v) { return 1 / (1 + std::exp(-v)); }
double softplus_d(double v) { return std::fmax(v, 0) + std::log1p(std::exp(-std::fabs(v))); }

struct Entry {
  const char* op;
  FloatLoop f32;
  DoubleFunction f64;
  const char* a = nullptr;  ///< the attribute behind the first parameter, and its default
  float a_default = 0;
  const char* b = nullptr;
  float b_default = 0;
};

const Entry kEntries[] = {
    {"LeakyRelu", leaky_relu_loop, [](double v, double a, double) { return v < 0 ? a * v : v; }, "alpha", 0.01f},
    {"Elu", elu_loop, [](double v, double a, double) { return v < 0 ? a * std::expm1(v) : v; }, "alpha", 1},
    {"Selu", selu_loop, [](double v, double a, double b) { return b * (v > 0 ? v : a * std::expm1(v)); }, "alpha",
     1.67326319217681884765625f, "gamma", 1.05070102214813232421875f},
    {"Celu", celu_loop, [](double v, double a, double) { return v < 0 ? a * std::expm1(v / a) : v; }, "alpha", 1},
    {"ThresholdedRelu", thresholded_relu_loop, [](double v, double a, double) { return v > a || v != v ? v : 0; }, "alpha", 1},
    {"HardSigmoid", hard_sigmoid_loop, [](double v, double a, double b) { return clamp_d(a * v + b, 0, 1); }, "alpha", 0.2f, "beta", 0.5f},
    {"HardSwish", hard_swish_loop, [](double v, double, double) { return v * clamp_d(v / 6 + 0.5, 0, 1); }},
    {"Sigmoid", sigmoid_loop, [](double v, double, double) { return sigmoid_d(v); }},
    {"Softplus", softplus_loop, [](double v, double, double) { return softplus_d(v); }},
    {"Softsign", softsign_loop, [](double v, double, double) { return v / (1 + std::fabs(v)); }},
    {"Mish", mish_loop, [](double v, double, double) { return v * std::tanh(softplus_d(v)); }},
    {"Swish", swish_loop, [](double v, double a, double) { return v * sigmoid_d(a * v); }, "alpha", 1},
};

std::unique_ptr<Kernel> make_activation(const KernelSpec& spec) {
  for (const Entry& entry : kEntries) {
    if (spec.node.op != entry.op) continue;
    FloatMap map{entry.f32, entry.f64};
    if (entry.a) map.a = spec.node.f(entry.a, entry.a_default);
    if (entry.b) map.b = spec.node.f(entry.b, entry.b_default);
    return make_map(map);
  }
  throw Error(ErrorKind::Defect, "no kernel is listed for " + spec.node.op);
}

std::unique_ptr<Kernel> make_gelu(const KernelSpec& spec) {
  const std::string approximate = spec.node.s("approximate", "none");
  if (approximate == "tanh")
    return make_map({gelu_tanh_loop, [](double v, double, double) { return 0.5 * v * (1 + std::tanh(kSqrtTwoOverPi * (v + 0.044715 * v * v * v))); }});
  if (approximate != "none") throw Error(ErrorKind::Unsupported, "Gelu's approximate is '" + approximate + "'; infopt knows none and tanh");
  return make_map({gelu_erf_loop, [](double v, double, double) { return 0.5 * v * std::erfc(-v * kSqrtHalf); }});
}

/// Clip and Relu take integers too: the bounds are then compared in the type's own range.
template <class T> void clip_integers(KernelContext& context, DType dtype, T lo, T hi) {
  map_elements<T, T>(context, dtype, [=](T x) { return std::min(std::max(x, lo), hi); });
}

std::unique_ptr<Kernel> make_relu(const KernelSpec&) {
  const FloatMap map{relu_loop, [](double v, double, double) { return v < 0 ? 0 : v; }};
  return make_map(map, [map](KernelContext& context) {
    Layout layout;
    const DType dtype = context.in_any(0, layout).dtype();
    if (!is_integer(dtype)) return run_map(context, map);
    visit_integer(dtype, [&]<class T>() { clip_integers<T>(context, dtype, 0, std::numeric_limits<T>::max()); });
  });
}

std::unique_ptr<Kernel> make_clip_by_attributes(const KernelSpec& spec) {
  const float lo = spec.node.f("min", std::numeric_limits<float>::lowest()), hi = spec.node.f("max", std::numeric_limits<float>::max());
  return make_map({clip_loop, clamp_d, lo, hi});
}

template <class T> T bound(KernelContext& context, size_t i, DType dtype, T otherwise) {
  if (!context.has(i)) return otherwise;
  const Tensor& t = context.in(i);
  if (t.dtype() != dtype || t.size() != 1) throw Error(ErrorKind::Malformed, "a bound of Clip isn't one number of the input's type");
  return *reinterpret_cast<const T*>(t.raw());
}

void clip_doubles(KernelContext& context) {
  const double infinity = std::numeric_limits<double>::infinity();
  const double lo = bound(context, 1, DType::F64, -infinity), hi = bound(context, 2, DType::F64, infinity);
  map_elements<double, double>(context, DType::F64, [=](double v) { return clamp_d(v, lo, hi); });
}

std::unique_ptr<Kernel> make_clip(const KernelSpec& spec) {
  if (spec.opset < 11) return make_clip_by_attributes(spec);
  const auto run = [](KernelContext& context) {
    Layout layout;
    const DType dtype = context.in_any(0, layout).dtype();
    if (dtype == DType::F64) return clip_doubles(context);
    if (is_integer(dtype))
      return visit_integer(dtype, [&]<class T>() {
        clip_integers<T>(context, dtype, bound(context, 1, dtype, std::numeric_limits<T>::lowest()), bound(context, 2, dtype, std::numeric_limits<T>::max()));
      });
    const float infinity = std::numeric_limits<float>::infinity();
    FloatMap map{clip_loop, clamp_d, -infinity, infinity};
    if (context.has(1)) map.a = to_scalar<float>(context.in(1));
    if (context.has(2)) map.b = to_scalar<float>(context.in(2));
    run_map(context, map);
  };
  // Where the bounds are known floats, it is one function.
  FloatMap fixed{clip_loop, clamp_d, -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::infinity()};
  for (size_t i : {1u, 2u}) {
    if (spec.node.input(i) == kNone) continue;
    const Tensor* t = spec.constant(i);
    if (!t || t->dtype() != DType::F32 || t->size() != 1) return make_kernel(run);
    (i == 1 ? fixed.a : fixed.b) = t->data<float>()[0];
  }
  return make_map(fixed, run);
}

std::unique_ptr<Kernel> make_shrink(const KernelSpec& spec) {
  const float lambda = spec.node.f("lambd", 0.5f), bias = spec.node.f("bias", 0.0f);
  const FloatMap map{shrink_loop, [](double v, double a, double b) { return v < -a ? v + b : v > a ? v - b : v != v ? v : 0; }, lambda, bias};
  return make_kernel([map](KernelContext& context) {
    Layout layout;
    const DType dtype = context.in_any(0, layout).dtype();
    if (!is_integer(dtype)) return run_map(context, map);
    visit_integer(dtype, [&]<class T>() {
      map_elements<T, T>(context, dtype, [&](T x) {
        const double shrunk = map.f64(static_cast<double>(x), map.a, map.b);
        const double top = static_cast<double>(std::numeric_limits<T>::max()), low = static_cast<double>(std::numeric_limits<T>::lowest());
        return shrunk >= top ? std::numeric_limits<T>::max() : shrunk <= low ? std::numeric_limits<T>::lowest() : static_cast<T>(shrunk);
      });
    });
  });
}

}  // namespace

std::vector<OpDef> op_activation() {
  std::vector<OpDef> ops;
  for (const Entry& entry : kEntries) ops.push_back({.name = entry.op, .cpu = make_activation});
  ops.push_back({.name = "Relu", .cpu = make_relu});
  ops.push_back({.name = "Clip", .cpu = make_clip});
  ops.push_back({.name = "Gelu", .cpu = make_gelu});
  ops.push_back({.name = "Shrink", .cpu = make_shrink});
  return ops;
}

}  // namespace infopt

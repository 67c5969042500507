// Of ai.onnx.ml what stands around nets: LabelEncoder, ArrayFeatureExtractor, Binarizer. https://onnx.ai/onnx/operators/
#include <cmath>
#include <cstring>
#include <map>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

Tensor string_vector(const std::vector<std::string>& values) {
  Tensor t(DType::String, {static_cast<int64_t>(values.size())});
  t.mutable_strings() = values;
  return t;
}

/// keys or values: a list in one of four attributes.
Tensor list_of(const Node& node, const std::string& what) {
  if (const auto* t = node.get<Tensor>(what + "_tensor")) return *t;
  if (const auto* s = node.get<std::vector<std::string>>(what + "_strings")) return string_vector(*s);
  if (const auto* i = node.get<std::vector<int64_t>>(what + "_int64s")) return Tensor::vector(*i);
  if (const auto* f = node.get<std::vector<float>>(what + "_floats")) return Tensor::vector(*f);
  malformed(node.op + " has no " + what);
}

Tensor default_of(const Node& node, DType dtype) {
  if (const auto* t = node.get<Tensor>("default_tensor")) {
    if (t->dtype() != dtype || t->size() != 1) malformed(node.op + "'s default_tensor doesn't fit its values");
    return *t;
  }
  if (dtype == DType::String) return string_vector({node.s("default_string", "_Unused")});
  if (dtype == DType::I64) return Tensor::scalar(node.i("default_int64", -1));
  return cast(Tensor::scalar(static_cast<double>(node.f("default_float", -0.0f))), dtype);
}

/// Keys as text: numbers by their bits, all NaNs alike, and both zeros.
std::vector<std::string> key_texts(const Tensor& t) {
  if (t.dtype() == DType::String) return t.strings();
  std::vector<std::string> out;
  for (double v : to_vector<double>(t)) {
    const bool whole = is_integer(t.dtype());
    v = v == 0 ? 0 : v;
    out.emplace_back(whole || !std::isnan(v) ? std::string(reinterpret_cast<const char*>(&v), sizeof v) : "nan");
  }
  if (t.dtype() == DType::I64) {  // beyond 2^53 a double doesn't tell them apart
    const auto exact = to_vector<int64_t>(t);
    for (size_t i = 0; i < exact.size(); ++i) out[i].assign(reinterpret_cast<const char*>(&exact[i]), sizeof exact[i]);
  }
  return out;
}

std::unique_ptr<Kernel> label_encoder(const KernelSpec& spec) {
  const Tensor keys = list_of(spec.node, "keys"), values = list_of(spec.node, "values");
  if (keys.size() != values.size()) malformed("LabelEncoder has " + std::to_string(keys.size()) + " keys and " + std::to_string(values.size()) + " values");
  std::map<std::string, int64_t> places;
  const std::vector<std::string> texts = key_texts(keys);
  for (size_t i = 0; i < texts.size(); ++i) places.emplace(texts[i], static_cast<int64_t>(i));
  const Tensor otherwise = default_of(spec.node, values.dtype());
  return make_kernel([=, type = keys.dtype()](KernelContext& c) {
    const Tensor& x = c.in(0);
    if (x.dtype() != type) malformed("LabelEncoder's keys are " + std::string(name_of(type)) + ", its input " + std::string(name_of(x.dtype())));
    Tensor y(values.dtype(), x.shape());
    const std::vector<std::string> wanted = key_texts(x);
    for (size_t i = 0; i < wanted.size(); ++i) {
      const auto it = places.find(wanted[i]);
      if (y.dtype() == DType::String) {
        y.mutable_strings()[i] = it == places.end() ? otherwise.strings()[0] : values.strings()[at(it->second)];
        continue;
      }
      const size_t bytes = element_bytes(y.dtype());
      std::memcpy(y.mutable_raw() + i * bytes, it == places.end() ? otherwise.raw() : values.raw() + at(it->second) * bytes, bytes);
    }
    c.set(0, std::move(y));
  });
}

/// The entries of the last axis that the indices name; of a vector, as one row.
std::unique_ptr<Kernel> array_feature_extractor(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    Tensor x = c.in(0);
    if (x.rank() == 0) malformed("ArrayFeatureExtractor of a scalar");
    if (x.rank() == 1) x = x.reshaped({1, x.dim(0)});
    const std::vector<int64_t> indices = integers(c.in(1));
    Shape shape = x.shape();
    const int64_t columns = shape.back(), n = static_cast<int64_t>(indices.size());
    shape.back() = n;
    for (int64_t i : indices)
      if (i < 0 || i >= columns) malformed("index " + std::to_string(i) + " is out of range for a dimension of " + std::to_string(columns));
    c.set(0, move_elements({x}, [&](const std::vector<Tensor>& in) {
            Tensor y(in[0].dtype(), shape);
            const size_t bytes = element_bytes(y.dtype());
            for (int64_t i = 0; i < y.size(); ++i)
              std::memcpy(y.mutable_raw() + at(i) * bytes, in[0].raw() + at(i / n * columns + indices[at(i % n)]) * bytes, bytes);
            return y;
          }));
  });
}

std::unique_ptr<Kernel> binarizer(const KernelSpec& spec) {
  const double threshold = spec.node.f("threshold", 0);
  return make_kernel([threshold](KernelContext& c) {
    const Tensor& x = c.in(0);
    std::vector<double> values = to_vector<double>(x);
    for (double& v : values) v = v > threshold ? 1 : 0;
    c.set(0, cast(Tensor::of<double>(x.shape(), values), x.dtype()));
  });
}

}  // namespace

std::vector<OpDef> op_traditional() {
  return {{.name = "LabelEncoder", .domain = "ai.onnx.ml", .since = 2, .cpu = &label_encoder},
          {.name = "ArrayFeatureExtractor", .domain = "ai.onnx.ml", .cpu = &array_feature_extractor},
          {.name = "Binarizer", .domain = "ai.onnx.ml", .cpu = &binarizer}};
}

}  // namespace infopt

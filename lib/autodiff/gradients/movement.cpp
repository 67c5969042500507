// What only moves elements. Where the order stays (Reshape and its kin) so does dy's; the others' own kernels move the elements' numbers
// instead, and dy's elements are added where those say.
#include <numeric>

#include "lib/autodiff/gradient.h"
#include "lib/base/error.h"
#include "lib/runtime/fold.h"

namespace infopt {
namespace {

GradientFunction reshape(const KernelSpec&) {
  return [](GradientContext& c) {
    if (c.wants(0)) c.give(0, c.dy().reshaped(c.shape(0)));
  };
}

GradientFunction identity(const KernelSpec&) {
  return [](GradientContext& c) {
    if (c.wants(0)) c.give(0, c.dy(0, c.layout()), c.layout());
  };
}

GradientFunction conversion(const KernelSpec& spec) {
  if (spec.node.i("to", 0) != static_cast<int64_t>(DType::F32)) throw Error(ErrorKind::Unsupported, "the gradient of a Cast to another type than float32");
  return identity(spec);
}

/// first, first + 1, …
Tensor numbers(const Shape& shape, int64_t first) {
  Tensor t(DType::I64, shape);
  std::iota(t.mutable_data<int64_t>(), t.mutable_data<int64_t>() + t.size(), first);
  return t;
}

constexpr size_t kAll = 1000;

/// `second`: the input besides the first that holds elements that are moved; 0: none; kAll: all do. `fill`: the one that holds what is put where none comes to.
GradientFunction movement(size_t second, size_t fill) {
  return [second, fill](GradientContext& c) {
    std::vector<Tensor> in;
    std::vector<int64_t> first;
    int64_t count = 0;
    for (size_t i = 0; i < c.inputs(); ++i) {
      first.push_back(count);
      if (!c.has(i) || (i > 0 && second != kAll && i != second)) {
        in.push_back(c.has(i) ? c.in(i) : Tensor());
        continue;
      }
      in.push_back(numbers(c.shape(i), count));
      count += in.back().size();
    }
    if (fill > 0) {
      in.resize(std::max(in.size(), fill + 1));
      in[fill] = Tensor::scalar<int64_t>(-1);
    }
    std::vector<Tensor> sums;
    for (size_t i = 0; i < c.inputs(); ++i) sums.push_back(c.wants(i) ? Tensor::zeros(DType::F32, c.shape(i)) : Tensor());
    const std::vector<Tensor> moved = run_alone(c.kernel(), c.node(), in);
    for (size_t o = 0; o < c.outputs(); ++o) {
      if (!c.flows(o)) continue;
      const Tensor dy = c.dy(o), places = moved[o];
      const int64_t* p = places.data<int64_t>();
      size_t input = 0;
      for (int64_t i = 0; i < dy.size(); ++i) {
        if (p[i] < 0) continue;
        while (p[i] < first[input]) --input;
        while (input + 1 < first.size() && second > 0 && p[i] >= first[input + 1]) ++input;
        if (sums[input].defined()) sums[input].mutable_data<float>()[p[i] - first[input]] += dy.data<float>()[i];
      }
    }
    for (size_t i = 0; i < sums.size(); ++i)
      if (sums[i].defined()) c.give(i, sums[i]);
  };
}

GradientFunction one(const KernelSpec&) { return movement(0, 0); }
GradientFunction several(const KernelSpec&) { return movement(kAll, 0); }

/// Elements that are replaced by others.
GradientFunction scatter(const KernelSpec& spec) {
  if (spec.node.s("reduction", "none") != "none") throw Error(ErrorKind::Unsupported, "the gradient of " + spec.node.op + " with a reduction");
  return movement(2, 0);
}

/// Pads of zeros since opset 11, whose value is an input.
GradientFunction pad(const KernelSpec& spec) {
  if (spec.opset < 11) throw Error(ErrorKind::Unsupported, "the gradient of Pad before opset 11");
  return movement(0, spec.node.s("mode", "constant") == "constant" ? 2 : 0);
}

}  // namespace

std::vector<GradientDef> gradient_movement() {
  return {{"Reshape", reshape}, {"Flatten", reshape}, {"Squeeze", reshape}, {"Unsqueeze", reshape}, {"Identity", identity}, {"Dropout", identity}, {"Cast", conversion},
          {"Transpose", one}, {"Slice", one}, {"Split", one}, {"Gather", one}, {"Expand", one}, {"Tile", one}, {"DepthToSpace", one}, {"SpaceToDepth", one}, {"Pad", pad}, {"Concat", several},
          {"GatherElements", one}, {"GatherND", one}, {"ReverseSequence", one}, {"ScatterElements", scatter}, {"ScatterND", scatter}};
}

}  // namespace infopt

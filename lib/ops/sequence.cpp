// Sequences of tensors: SequenceEmpty, SequenceConstruct, SequenceAt, SequenceInsert, SequenceErase, SequenceLength, SequenceMap,
// SplitToSequence, ConcatFromSequence. https://onnx.ai/onnx/operators/
#include <algorithm>

#include "lib/ops/concat_split.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

std::unique_ptr<Kernel> empty(const KernelSpec& spec) {
  const auto dtype = static_cast<DType>(spec.node.i("dtype", static_cast<int64_t>(DType::F32)));
  return make_kernel([dtype](KernelContext& c) { c.set_datum(0, Datum::sequence({dtype, {}})); });
}

std::unique_ptr<Kernel> construct(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    Sequence s;
    for (size_t i = 0; i < c.inputs(); ++i) s.elements.push_back(c.in(i));
    c.set_datum(0, Datum::sequence(std::move(s)));
  });
}

/// The place that input i names among n, by which a negative one counts from the end; n - 1, or `otherwise`, where it is left out.
int64_t position(KernelContext& c, size_t i, int64_t n, int64_t otherwise) {
  if (!c.has(i)) return otherwise;
  const int64_t given = to_scalar<int64_t>(c.in(i));
  if (given < -n || given > n) malformed("position " + std::to_string(given) + " in a sequence of " + std::to_string(n));
  return given < 0 ? given + n : given;
}

int64_t length_of(const Sequence& s) { return static_cast<int64_t>(s.elements.size()); }

std::unique_ptr<Kernel> element(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    const Datum given = c.datum(0);
    const Sequence& s = given.sequence();
    c.set(0, s.elements[at(normal_index(to_scalar<int64_t>(c.in(1)), length_of(s)))]);
  });
}

std::unique_ptr<Kernel> insert(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    Sequence s = c.datum(0).sequence();
    const int64_t place = position(c, 2, length_of(s), length_of(s));
    s.elements.insert(s.elements.begin() + place, c.in(1));
    c.set_datum(0, Datum::sequence(std::move(s)));
  });
}

std::unique_ptr<Kernel> erase(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    Sequence s = c.datum(0).sequence();
    const int64_t n = length_of(s), place = position(c, 1, n, n - 1);
    if (n == 0 || place == n) malformed("there is nothing to erase at position " + std::to_string(place) + " of a sequence of " + std::to_string(n));
    s.elements.erase(s.elements.begin() + place);
    c.set_datum(0, Datum::sequence(std::move(s)));
  });
}

std::unique_ptr<Kernel> length(const KernelSpec&) {
  return make_kernel([](KernelContext& c) { c.set(0, Tensor::scalar(length_of(c.datum(0).sequence()))); });
}

/// The sizes of the parts: one length for all but the last, or each part's own.
std::vector<int64_t> part_lengths(const Tensor& split, int64_t n) {
  std::vector<int64_t> lengths = integers(split);
  int64_t sum = 0;
  for (int64_t l : lengths)
    if (l < 0 || __builtin_add_overflow(sum, l, &sum)) malformed("SplitToSequence into parts of " + to_string(lengths));
  if (split.rank() == 0) {
    const int64_t each = lengths[0];
    if (each == 0) malformed("SplitToSequence into parts of no length");
    lengths.clear();
    for (int64_t left = n; left > 0; left -= std::min(left, each)) lengths.push_back(std::min(left, each));
  } else if (sum != n) {
    malformed("SplitToSequence of a dimension of " + std::to_string(n) + " into " + to_string(lengths));
  }
  return lengths;
}

std::unique_ptr<Kernel> split_to_sequence(const KernelSpec& spec) {
  const int64_t given = spec.node.i("axis", 0);
  const bool keep = spec.node.i("keepdims", 1) != 0;
  return make_kernel([given, keep](KernelContext& c) {
    const Tensor& x = c.in(0);
    const int64_t axis = normal_axis(given, x.rank()), n = x.dim(axis);
    const bool by_length = c.has(1);
    Sequence s{x.dtype(), {}};
    int64_t begin = 0;
    for (int64_t l : by_length ? part_lengths(c.in(1), n) : std::vector<int64_t>(at(n), 1)) {
      Tensor part = part_of(x, axis, begin, l);
      if (!by_length && !keep) {
        Shape shape = part.shape();
        shape.erase(shape.begin() + axis);
        part = part.reshaped(shape);
      }
      s.elements.push_back(std::move(part));
      begin += l;
    }
    c.set_datum(0, Datum::sequence(std::move(s)));
  });
}

std::unique_ptr<Kernel> concat_from_sequence(const KernelSpec& spec) {
  const int64_t axis = spec.node.i("axis", 0);
  const bool new_axis = spec.node.i("new_axis", 0) != 0;
  return make_kernel([axis, new_axis](KernelContext& c) {
    std::vector<Tensor> parts = c.datum(0).sequence().elements;
    if (new_axis)
      for (Tensor& t : parts) {
        Shape shape = t.shape();
        shape.insert(shape.begin() + normal_axis(axis, t.rank() + 1), 1);
        t = t.reshaped(shape);
      }
    c.set(0, concat_tensors(parts, axis));
  });
}

/// The body on each element; inputs after the first may be sequences, as long as it, or tensors, the same for all.
std::unique_ptr<Kernel> map(const KernelSpec& spec) {
  const size_t body = body_index(spec.node, "body");
  return make_kernel([body](KernelContext& c) {
    std::vector<Datum> given;
    for (size_t i = 0; i < c.inputs(); ++i) given.push_back(c.datum(i));
    if (given.empty()) malformed("SequenceMap without a sequence");
    const size_t n = given[0].sequence().elements.size();
    std::vector<Sequence> results(c.outputs());
    for (size_t k = 0; k < n; ++k) {
      std::vector<Datum> inputs;
      for (const Datum& d : given) {
        if (d.is_sequence() && d.sequence().elements.size() != n)
          malformed("SequenceMap over sequences of " + std::to_string(n) + " and " + std::to_string(d.sequence().elements.size()));
        inputs.push_back(d.is_sequence() ? Datum(d.sequence().elements[k]) : d);
      }
      const std::vector<Datum> outputs = c.run_body(body, std::move(inputs));
      if (outputs.size() != results.size()) malformed("SequenceMap's body gives " + std::to_string(outputs.size()) + " outputs, the node has " + std::to_string(results.size()));
      for (size_t o = 0; o < outputs.size(); ++o) results[o].elements.push_back(outputs[o].tensor());
    }
    for (size_t o = 0; o < results.size(); ++o) c.set_datum(o, Datum::sequence(std::move(results[o])));
  });
}

}  // namespace

std::vector<OpDef> op_sequence() {
  return {{.name = "SequenceEmpty", .cpu = &empty},
          {.name = "SequenceConstruct", .cpu = &construct},
          {.name = "SequenceAt", .cpu = &element},
          {.name = "SequenceInsert", .cpu = &insert},
          {.name = "SequenceErase", .cpu = &erase},
          {.name = "SequenceLength", .cpu = &length},
          {.name = "SequenceMap", .cpu = &map},
          {.name = "SplitToSequence", .cpu = &split_to_sequence},
          {.name = "ConcatFromSequence", .cpu = &concat_from_sequence}};
}

}  // namespace infopt

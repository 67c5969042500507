// If, Loop and Scan.
#include "lib/ops/control_flow.h"

#include <algorithm>
#include <optional>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

std::unique_ptr<Kernel> if_else(const KernelSpec& spec) {
  const size_t then_body = body_index(spec.node, "then_branch"), else_body = body_index(spec.node, "else_branch");
  return make_kernel([=](KernelContext& c) {
    std::vector<Datum> results = c.run_body(truth(c.in(0)) ? then_body : else_body, {});
    if (results.size() != c.outputs())
      malformed("If's branch gives " + std::to_string(results.size()) + " outputs, the node has " + std::to_string(c.outputs()));
    for (size_t i = 0; i < results.size(); ++i) c.set_datum(i, std::move(results[i]));
  });
}

/// Puts equally shaped pieces along a new axis, in order or reversed.
Tensor stacked(const std::vector<Tensor>& pieces, int64_t given_axis, bool reverse, const Declared& declared) {
  const Shape piece = pieces.empty() ? declared.shape : pieces[0].shape();
  const size_t axis = at(normal_axis(given_axis, static_cast<int64_t>(piece.size()) + 1));
  Shape shape = piece;
  shape.insert(shape.begin() + static_cast<ptrdiff_t>(axis), static_cast<int64_t>(pieces.size()));
  if (pieces.empty()) return Tensor::zeros(declared.dtype, shape);
  for (const Tensor& p : pieces)
    if (p.shape() != piece) malformed("a scan output changes its shape from " + to_string(piece) + " to " + to_string(p.shape()));
  return move_elements(pieces, [&](const std::vector<Tensor>& in) {
    Tensor y(in[0].dtype(), shape);
    if (y.size() == 0) return y;
    const Shape all = row_major_strides(shape);
    Shape strides = all;
    strides.erase(strides.begin() + static_cast<ptrdiff_t>(axis));
    const size_t size = element_bytes(y.dtype());
    for (size_t i = 0; i < in.size(); ++i) {
      const size_t place = reverse ? in.size() - 1 - i : i;
      copy_strided(size, piece, y.mutable_raw() + size * place * at(all[axis]), strides, in[i].raw(), row_major_strides(piece));
    }
    return y;
  });
}

/// Entry i of an axis, without that axis.
Tensor entry(const Tensor& x, size_t axis, int64_t i) {
  Shape shape = x.shape();
  shape.erase(shape.begin() + static_cast<ptrdiff_t>(axis));
  if (axis == 0 && bits_of(x.dtype()) >= 8) return x.slice_front(i, 1).reshaped(shape);
  return move_elements({x}, [&](const std::vector<Tensor>& in) {
    Shape strides = row_major_strides(in[0].shape());
    const int64_t offset = i * strides[axis];
    strides.erase(strides.begin() + static_cast<ptrdiff_t>(axis));
    return gather_strided(in[0], shape, offset, strides);
  });
}

std::unique_ptr<Kernel> loop(const KernelSpec& spec) {
  const size_t body = body_index(spec.node, "body");
  const std::vector<Declared> declared = declared_outputs(*spec.node.bodies()[body]);
  return make_kernel([=](KernelContext& c) {
    const bool bounded = c.has(0), conditional = c.has(1);
    const int64_t most = bounded ? to_scalar<int64_t>(c.in(0)) : std::numeric_limits<int64_t>::max();
    bool go = !conditional || truth(c.in(1));
    std::vector<Datum> carried;
    for (size_t i = 2; i < c.inputs(); ++i) carried.push_back(c.datum(i));
    const size_t states = carried.size();
    check_loop(declared.size(), states, c.outputs());
    std::vector<std::vector<Tensor>> scans(declared.size() - 1 - states);
    for (int64_t i = 0; go && i < most; ++i) {
      std::vector<Datum> inputs{Tensor::scalar(i), Tensor::scalar(go)};
      inputs.insert(inputs.end(), std::make_move_iterator(carried.begin()), std::make_move_iterator(carried.end()));
      std::vector<Datum> results = c.run_body(body, std::move(inputs));
      // A condition that isn't an input of the node still ends the loop.
      go = truth(results[0].tensor());
      carried.assign(results.begin() + 1, results.begin() + 1 + static_cast<ptrdiff_t>(states));
      for (size_t s = 0; s < scans.size(); ++s) scans[s].push_back(results[1 + states + s].tensor());
    }
    for (size_t s = 0; s < states; ++s) c.set_datum(s, std::move(carried[s]));
    for (size_t s = 0; s < scans.size(); ++s)
      if (c.wanted(states + s)) c.set(states + s, stacked(scans[s], 0, false, declared[1 + states + s]));
  });
}

/// One scan. Takes the states' first values and the scanned tensors; gives the states' last values and the stacked outputs.
std::vector<Tensor> scan_once(KernelContext& c, const ScanSpec& s, std::vector<Tensor> states, const std::vector<Tensor>& scanned,
                              std::optional<int64_t> length) {
  std::vector<size_t> axes;
  int64_t steps = -1;
  for (size_t k = 0; k < scanned.size(); ++k) {
    axes.push_back(at(normal_axis(ScanSpec::nth(s.input_axes, k), scanned[k].rank())));
    const int64_t n = scanned[k].shape()[axes[k]];
    if (steps >= 0 && n != steps) malformed("Scan's inputs differ in length: " + std::to_string(steps) + " and " + std::to_string(n));
    steps = n;
  }
  if (length) {
    if (*length < 0 || *length > steps) malformed("Scan's sequence length " + std::to_string(*length) + " of " + std::to_string(steps));
    steps = *length;
  }
  if (s.declared.size() < states.size()) malformed("Scan's body gives fewer outputs than there are states");
  std::vector<std::vector<Tensor>> outputs(s.declared.size() - states.size());
  for (int64_t i = 0; i < steps; ++i) {
    std::vector<Datum> inputs(states.begin(), states.end());
    for (size_t k = 0; k < scanned.size(); ++k)
      inputs.push_back(entry(scanned[k], axes[k], ScanSpec::nth(s.input_directions, k) ? steps - 1 - i : i));
    const std::vector<Datum> results = c.run_body(s.body, std::move(inputs));
    for (size_t k = 0; k < states.size(); ++k) states[k] = results[k].tensor();
    for (size_t k = 0; k < outputs.size(); ++k) outputs[k].push_back(results[states.size() + k].tensor());
  }
  std::vector<Tensor> all = states;
  for (size_t k = 0; k < outputs.size(); ++k)
    all.push_back(stacked(outputs[k], ScanSpec::nth(s.output_axes, k), ScanSpec::nth(s.output_directions, k) != 0, s.declared[states.size() + k]));
  return all;
}

/// The node's inputs from `first` on, parted into states and scanned ones.
std::pair<std::vector<Tensor>, std::vector<Tensor>> parted(KernelContext& c, const ScanSpec& s, size_t first) {
  const size_t states = s.states(c.inputs(), first, c.outputs());
  std::pair<std::vector<Tensor>, std::vector<Tensor>> parts;
  for (size_t i = first; i < c.inputs(); ++i)
    (i - first < states ? parts.first : parts.second).push_back(c.in(i));
  return parts;
}

std::unique_ptr<Kernel> scan(const KernelSpec& spec) {
  const ScanSpec s(spec);
  return make_kernel([s](KernelContext& c) {
    auto [states, scanned] = parted(c, s, 0);
    std::vector<Tensor> results = scan_once(c, s, std::move(states), scanned, std::nullopt);
    for (size_t i = 0; i < results.size(); ++i) c.set(i, std::move(results[i]));
  });
}

/// Scan-8: everything has a batch axis in front, and sequences may be shorter than the tensor; what lies beyond is zero.
std::unique_ptr<Kernel> scan_batched(const KernelSpec& spec) {
  const ScanSpec s(spec);
  return make_kernel([s](KernelContext& c) {
    if (c.inputs() < 2) malformed("Scan without inputs");
    const auto [states, scanned] = parted(c, s, 1);
    if (scanned[0].rank() < 2) malformed("Scan of a tensor of shape " + to_string(scanned[0].shape()));
    const int64_t batch = scanned[0].dim(0), steps = scanned[0].dim(1);
    const std::vector<int64_t> lengths = c.has(0) ? integers(c.in(0)) : std::vector<int64_t>(at(batch), steps);
    if (static_cast<int64_t>(lengths.size()) != batch)
      malformed("Scan has " + std::to_string(lengths.size()) + " sequence lengths for a batch of " + std::to_string(batch));
    std::vector<std::vector<Tensor>> by_output(c.outputs());
    for (int64_t b = 0; b < batch; ++b) {
      const auto take = [b](const std::vector<Tensor>& all) {
        std::vector<Tensor> one;
        for (const Tensor& t : all) {
          if (t.rank() < 1 || b >= t.dim(0)) malformed("Scan's inputs differ in their batch");
          one.push_back(entry(t, 0, b));
        }
        return one;
      };
      std::vector<Tensor> results = scan_once(c, s, take(states), take(scanned), lengths[at(b)]);
      for (size_t k = 0; k < results.size(); ++k) {
        if (k >= states.size() && results[k].dim(0) < steps) {
          Shape full = results[k].shape();
          full[0] = steps;
          Tensor padded = Tensor::zeros(results[k].dtype(), full);
          std::copy_n(results[k].raw(), results[k].bytes(), padded.mutable_raw());
          results[k] = padded;
        }
        by_output[k].push_back(results[k]);
      }
    }
    for (size_t k = 0; k < by_output.size(); ++k) c.set(k, stacked(by_output[k], 0, false, s.declared[k]));
  });
}

}  // namespace

bool truth(const Tensor& t) {
  if (t.dtype() != DType::Bool) malformed("a condition should be bool, not " + std::string(name_of(t.dtype())));
  return to_scalar<int64_t>(t) != 0;
}

std::vector<Declared> declared_outputs(const Graph& body) {
  std::vector<Declared> all;
  for (const ValueId id : body.outputs()) {
    const Type& type = body.value(id).type;
    Declared d;
    if (type.dtype != DType::Undefined) d.dtype = type.dtype;
    for (const Dim& dim : type.shape) d.shape.push_back(std::max<int64_t>(0, dim.size));
    all.push_back(d);
  }
  return all;
}

ScanSpec::ScanSpec(const KernelSpec& spec)
    : body(body_index(spec.node, "body")), declared(declared_outputs(*spec.node.bodies()[body])), scan_inputs(spec.node.i("num_scan_inputs", 0)) {
  input_axes = spec.node.ints("scan_input_axes");
  input_directions = spec.node.ints(spec.opset < 9 ? "directions" : "scan_input_directions");
  output_axes = spec.node.ints("scan_output_axes");
  output_directions = spec.node.ints("scan_output_directions");
}

size_t ScanSpec::states(size_t inputs, size_t first, size_t outputs) const {
  const auto given = static_cast<int64_t>(inputs - first);
  if (scan_inputs < 1 || scan_inputs > given)
    malformed("Scan has num_scan_inputs " + std::to_string(scan_inputs) + " and " + std::to_string(given) + " inputs");
  if (declared.size() != outputs)
    malformed("Scan's body gives " + std::to_string(declared.size()) + " outputs, the node has " + std::to_string(outputs));
  return at(given - scan_inputs);
}

void check_loop(size_t declared, size_t states, size_t outputs) {
  if (declared < states + 1 || declared - 1 != outputs)
    malformed("Loop's body gives " + std::to_string(declared) + " outputs for " + std::to_string(states) + " carried values and " +
              std::to_string(outputs) + " outputs");
}

std::vector<OpDef> op_control_flow() {
  return {{.name = "If", .cpu = &if_else},
          {.name = "Loop", .cpu = &loop},
          {.name = "Scan", .since = 8, .until = 8, .cpu = &scan_batched},
          {.name = "Scan", .since = 9, .cpu = &scan}};
}

}  // namespace infopt

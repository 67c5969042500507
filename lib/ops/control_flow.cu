// If, Loop and Scan on the device: the host decides, the bodies run on the device, and what they carry stays where it is.
#include "lib/ops/control_flow.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/moves.h"

namespace infopt::cuda {
namespace {

bool truth_of(CudaContext& c, const Placed& value) { return truth(value.host.defined() ? value.host.tensor() : c.run().to_host(value.device)); }

void run_if(CudaContext& c, size_t then_body, size_t else_body) {
  std::vector<Placed> results = c.run_body(truth_of(c, c.placed(0)) ? then_body : else_body, {});
  if (results.size() != c.outputs()) malformed("If's branch gives " + std::to_string(results.size()) + " outputs, the node has " + std::to_string(c.outputs()));
  for (size_t i = 0; i < results.size(); ++i) c.set_placed(i, std::move(results[i]));
}

Tensor on_device(CudaContext& c, const Placed& value) { return value.device.defined() ? value.device : c.run().to_device(value.host.tensor()); }

/// Equally shaped pieces along a new axis, in order or reversed.
void stack(CudaContext& c, size_t output, const std::vector<Placed>& pieces, int64_t given_axis, bool reverse, const Declared& declared) {
  std::vector<Tensor> parts;
  for (const Placed& p : pieces) parts.push_back(on_device(c, p));
  const Shape piece = parts.empty() ? declared.shape : parts[0].shape();
  const DType dtype = parts.empty() ? declared.dtype : parts[0].dtype();
  for (const Tensor& p : parts)
    if (p.shape() != piece || p.dtype() != dtype) malformed("a scan output changes its shape from " + to_string(piece) + " to " + to_string(p.shape()));
  const size_t axis = at(normal_axis(given_axis, static_cast<int64_t>(piece.size()) + 1));
  Shape shape = piece;
  shape.insert(shape.begin() + static_cast<ptrdiff_t>(axis), static_cast<int64_t>(parts.size()));
  if (bits_of(dtype) < 8) unsupported("a scan output of " + std::string(name_of(dtype)) + " on CUDA");
  Tensor& y = c.out(output, dtype, shape);
  if (y.size() == 0) return;
  Shape strides = row_major_strides(shape);
  const int64_t by = strides[axis];
  strides.erase(strides.begin() + static_cast<ptrdiff_t>(axis));
  const size_t size = element_bytes(dtype);
  for (size_t i = 0; i < parts.size(); ++i) {
    const size_t place = reverse ? parts.size() - 1 - i : i;
    copy_box(c.stream(), size, piece, y.mutable_raw() + size * place * at(by), strides, parts[i].raw(), row_major_strides(piece));
  }
}

void run_loop(CudaContext& c, size_t body, const std::vector<Declared>& declared) {
  const int64_t most = c.has(0) ? to_scalar<int64_t>(c.host(0)) : std::numeric_limits<int64_t>::max();
  bool go = !c.has(1) || truth_of(c, c.placed(1));
  std::vector<Placed> carried;
  for (size_t i = 2; i < c.inputs(); ++i) carried.push_back(c.placed(i));
  const size_t states = carried.size();
  check_loop(declared.size(), states, c.outputs());
  std::vector<std::vector<Placed>> scans(declared.size() - 1 - states);
  for (int64_t i = 0; go && i < most; ++i) {
    std::vector<Placed> inputs{{{}, Tensor::scalar(i)}, {{}, Tensor::scalar(go)}};
    std::move(carried.begin(), carried.end(), std::back_inserter(inputs));
    std::vector<Placed> results = c.run_body(body, std::move(inputs));
    go = truth_of(c, results[0]);
    carried.clear();
    for (size_t s = 0; s < states; ++s) carried.push_back(std::move(results[1 + s]));
    for (size_t s = 0; s < scans.size(); ++s)
      if (c.wanted(states + s)) scans[s].push_back(std::move(results[1 + states + s]));
  }
  for (size_t s = 0; s < states; ++s) c.set_placed(s, std::move(carried[s]));
  for (size_t s = 0; s < scans.size(); ++s)
    if (c.wanted(states + s)) stack(c, states + s, scans[s], 0, false, declared[1 + states + s]);
}

/// Entry i of an axis, without that axis.
Tensor entry(CudaContext& c, const Tensor& x, size_t axis, int64_t i) {
  Shape shape = x.shape(), strides = row_major_strides(shape);
  const int64_t offset = i * strides[axis];
  shape.erase(shape.begin() + static_cast<ptrdiff_t>(axis));
  strides.erase(strides.begin() + static_cast<ptrdiff_t>(axis));
  return read_box(c, x, shape, offset, strides);
}

void run_scan(CudaContext& c, const ScanSpec& spec) {
  const size_t count = spec.states(c.inputs(), 0, c.outputs());
  std::vector<Placed> states;
  for (size_t i = 0; i < count; ++i) states.push_back(c.placed(i));
  std::vector<Tensor> scanned;
  std::vector<size_t> axes;
  int64_t steps = -1;
  for (size_t k = 0; count + k < c.inputs(); ++k) {
    scanned.push_back(c.in(count + k));
    if (bits_of(scanned[k].dtype()) < 8) unsupported("Scan over " + std::string(name_of(scanned[k].dtype())) + " on CUDA");
    axes.push_back(at(normal_axis(ScanSpec::nth(spec.input_axes, k), scanned[k].rank())));
    const int64_t n = scanned[k].shape()[axes[k]];
    if (steps >= 0 && n != steps) malformed("Scan's inputs differ in length: " + std::to_string(steps) + " and " + std::to_string(n));
    steps = n;
  }
  if (spec.declared.size() < count) malformed("Scan's body gives fewer outputs than there are states");
  std::vector<std::vector<Placed>> outputs(spec.declared.size() - count);
  for (int64_t i = 0; i < steps; ++i) {
    std::vector<Placed> inputs = std::move(states);
    for (size_t k = 0; k < scanned.size(); ++k) inputs.push_back({entry(c, scanned[k], axes[k], ScanSpec::nth(spec.input_directions, k) ? steps - 1 - i : i), {}});
    std::vector<Placed> results = c.run_body(spec.body, std::move(inputs));
    states.assign(std::make_move_iterator(results.begin()), std::make_move_iterator(results.begin() + static_cast<ptrdiff_t>(count)));
    for (size_t k = 0; k < outputs.size(); ++k) outputs[k].push_back(std::move(results[count + k]));
  }
  for (size_t k = 0; k < count; ++k) c.set_placed(k, std::move(states[k]));
  for (size_t k = 0; k < outputs.size(); ++k)
    if (c.wanted(count + k)) stack(c, count + k, outputs[k], ScanSpec::nth(spec.output_axes, k), ScanSpec::nth(spec.output_directions, k) != 0, spec.declared[count + k]);
}

constexpr const char* kHow = "bodies on the device, the host decides";

std::unique_ptr<Kernel> make_if(const KernelSpec& spec) {
  return make_cuda_kernel([yes = body_index(spec.node, "then_branch"), no = body_index(spec.node, "else_branch")](CudaContext& c) { run_if(c, yes, no); }, kHow);
}

std::unique_ptr<Kernel> make_loop(const KernelSpec& spec) {
  const size_t body = body_index(spec.node, "body");
  return make_cuda_kernel([body, declared = declared_outputs(*spec.node.bodies()[body])](CudaContext& c) { run_loop(c, body, declared); }, kHow);
}

std::unique_ptr<Kernel> make_scan(const KernelSpec& spec) {
  return make_cuda_kernel([s = ScanSpec(spec)](CudaContext& c) { run_scan(c, s); }, kHow);
}

}  // namespace

std::vector<CudaOp> cuda_control_flow() {
  return {{.name = "If", .make = &make_if}, {.name = "Loop", .make = &make_loop}, {.name = "Scan", .since = 9, .make = &make_scan}};
}

}  // namespace infopt::cuda

#include "lib/ops/broadcast.h"

#include <algorithm>
#include <cstring>

#include "lib/base/error.h"
#include "lib/ops/elementwise.h"

namespace infopt {
namespace {

Shape channels_last(const Shape& shape) {
  Shape moved = shape;
  std::rotate(moved.begin() + 1, moved.begin() + 2, moved.end());
  return moved;
}

/// The shape with ones put before it.
Shape padded(const Shape& shape, size_t rank) {
  Shape full(rank - shape.size(), 1);
  full.insert(full.end(), shape.begin(), shape.end());
  return full;
}

/// Whether a plain tensor of this shape (padded to the full rank) lies the same channels-last.
bool same_in_either_layout(const Shape& shape) {
  return shape[1] == 1 || std::all_of(shape.begin() + 2, shape.end(), [](int64_t d) { return d == 1; });
}

struct Input {
  const Tensor* tensor;
  Layout layout;
};

/// Whether all of them can be read channels-last as they lie.
bool agree_on_channels_last(const std::vector<Input>& inputs, size_t rank) {
  if (rank < 3 || std::none_of(inputs.begin(), inputs.end(), [](const Input& i) { return i.layout == Layout::ChannelsLast; })) return false;
  return std::all_of(inputs.begin(), inputs.end(), [&](const Input& i) {
    if (i.layout == Layout::ChannelsLast) return i.tensor->shape().size() == rank;
    return same_in_either_layout(padded(i.tensor->shape(), rank));
  });
}

/// Copies of a short row side by side, so that the inner loop gets long enough to be worth it.
std::vector<std::byte> repeated(const std::byte* row, size_t bytes, int64_t times) {
  std::vector<std::byte> copies(bytes * static_cast<size_t>(times));
  for (int64_t i = 0; i < times; ++i) std::memcpy(copies.data() + bytes * static_cast<size_t>(i), row, bytes);
  return copies;
}

struct Sizes {
  int64_t a, b, y;  ///< bytes of an element
};

constexpr int64_t kShortRow = 64, kLongRow = 512;

/// The rows, with those of an operand that repeats itself made longer where they are short.
void run_rows(BinaryLoop loop, const std::byte* a, const std::byte* b, std::byte* y, const BinaryRows& r, const Sizes& sizes) {
  const bool a_repeats = r.a_row == 0 && r.a_step == 1, b_repeats = r.b_row == 0 && r.b_step == 1;
  const bool a_flows = r.a_row == r.n && r.a_step == 1, b_flows = r.b_row == r.n && r.b_step == 1;
  const int64_t times = std::min(r.rows, kLongRow / std::max<int64_t>(r.n, 1));
  if (r.n >= kShortRow || times < 2 || !((a_repeats && b_flows) || (b_repeats && a_flows))) return loop(a, b, y, r);
  const auto copies = a_repeats ? repeated(a, static_cast<size_t>(r.n * sizes.a), times) : repeated(b, static_cast<size_t>(r.n * sizes.b), times);
  BinaryRows longer{r.rows / times, r.n * times, a_repeats ? 0 : r.n * times, b_repeats ? 0 : r.n * times, 1, 1};
  loop(a_repeats ? copies.data() : a, b_repeats ? copies.data() : b, y, longer);
  const int64_t done = longer.rows * longer.n;
  BinaryRows rest = r;
  rest.rows = r.rows % times;
  if (rest.rows) loop(a_repeats ? a : a + done * sizes.a, b_repeats ? b : b + done * sizes.b, y + done * sizes.y, rest);
}

int64_t element_bytes(DType dtype) { return static_cast<int64_t>(bits_of(dtype) / 8); }

/// A tensor of 16-bit floats as one of float32.
Operand widened(const Operand& operand, std::vector<Tensor>& keep) {
  if (!is_16_bit_float(operand.dtype)) return operand;
  const auto borrowed = std::shared_ptr<const void>(operand.data, [](const void*) {});
  keep.push_back(cast(Tensor(operand.dtype, operand.shape, borrowed, operand.data), DType::F32));
  return {DType::F32, keep.back().raw(), operand.shape};
}

void require_same_type(DType a, DType b) {
  if (a != b)
    throw Error(ErrorKind::Malformed, "the operands' types differ: " + std::string(name_of(a)) + " and " + std::string(name_of(b)));
}

BinaryLoop loop_for(const BinaryOp& op, DType dtype) {
  const BinaryLoop loop = bits_of(dtype) >= 8 ? op.loop(is_16_bit_float(dtype) ? DType::F32 : dtype) : nullptr;
  if (!loop) refuse_type(dtype);
  return loop;
}

/// The result in fresh memory, of the shape `result` and never of a 16-bit float.
Tensor binary_tensor(const BinaryOp& op, const Operand& a, const Operand& b, const Shape& result) {
  const BinaryLoop loop = loop_for(op, a.dtype);
  std::vector<Tensor> keep;
  const Operand wide_a = widened(a, keep), wide_b = widened(b, keep);
  Tensor y(op.gives_bool ? DType::Bool : wide_a.dtype, result);
  run_binary_loop(loop, wide_a, wide_b, result, y.mutable_raw(), y.dtype());
  return y;
}

}  // namespace

Shape broadcast_shape(const Shape& a, const Shape& b) {
  const size_t rank = std::max(a.size(), b.size());
  const Shape x = padded(a, rank), y = padded(b, rank);
  Shape result(rank);
  for (size_t i = 0; i < rank; ++i) {
    if (x[i] != y[i] && x[i] != 1 && y[i] != 1)
      throw Error(ErrorKind::Malformed, "the shapes " + to_string(a) + " and " + to_string(b) + " don't broadcast");
    result[i] = x[i] == 1 ? y[i] : x[i];
  }
  return result;
}

Operands collect_operands(KernelContext& context, size_t count) {
  std::vector<Input> inputs(count);
  Operands all;
  for (size_t i = 0; i < count; ++i) {
    inputs[i].tensor = &context.in_any(i, inputs[i].layout);
    all.shape = i ? broadcast_shape(all.shape, inputs[i].tensor->shape()) : inputs[i].tensor->shape();
  }
  const bool last = agree_on_channels_last(inputs, all.shape.size());
  all.layout = last ? Layout::ChannelsLast : Layout::Plain;
  all.physical = last ? channels_last(all.shape) : all.shape;
  for (size_t i = 0; i < count; ++i) {
    const Tensor& t = last || inputs[i].layout == Layout::Plain ? *inputs[i].tensor : context.in(i);
    all.list.push_back({t.dtype(), t.raw(), last ? channels_last(padded(t.shape(), all.shape.size())) : t.shape()});
  }
  return all;
}

Loops plan_loops(const Shape& result, const std::vector<Shape>& operands) {
  const size_t rank = result.size(), count = operands.size();
  std::vector<std::vector<int64_t>> strides(count, std::vector<int64_t>(rank));
  for (size_t k = 0; k < count; ++k) {
    const Shape shape = padded(operands[k], rank);
    int64_t stride = 1;
    for (size_t d = rank; d-- > 0;) {
      strides[k][d] = shape[d] == 1 ? 0 : stride;
      stride *= shape[d];
    }
  }
  Loops loops;
  loops.strides.resize(count);
  for (size_t d = 0; d < rank; ++d) {
    if (result[d] == 1) continue;
    const bool merges = !loops.sizes.empty() && std::all_of(strides.begin(), strides.end(), [&](const auto& s) {
      return loops.strides[static_cast<size_t>(&s - strides.data())].back() == s[d] * result[d];
    });
    if (merges) loops.sizes.back() *= result[d];
    else loops.sizes.push_back(result[d]);
    for (size_t k = 0; k < count; ++k) {
      if (merges) loops.strides[k].back() = strides[k][d];
      else loops.strides[k].push_back(strides[k][d]);
    }
  }
  if (loops.sizes.empty()) {
    loops.sizes = {1};
    for (auto& s : loops.strides) s = {0};
  }
  return loops;
}

void run_binary_loop(BinaryLoop loop, const Operand& a, const Operand& b, const Shape& result, std::byte* y, DType y_dtype) {
  if (element_count(result) == 0) return;
  const Loops loops = plan_loops(result, {a.shape, b.shape});
  const size_t depth = loops.sizes.size();
  const auto &a_strides = loops.strides[0], &b_strides = loops.strides[1];
  BinaryRows rows{1, loops.sizes[depth - 1], 0, 0, a_strides[depth - 1], b_strides[depth - 1]};
  if (depth > 1) rows.rows = loops.sizes[depth - 2], rows.a_row = a_strides[depth - 2], rows.b_row = b_strides[depth - 2];
  const Sizes sizes{element_bytes(a.dtype), element_bytes(b.dtype), element_bytes(y_dtype)};
  const size_t outer = depth > 2 ? depth - 2 : 0;
  std::vector<int64_t> index(outer, 0);
  int64_t a_at = 0, b_at = 0, y_at = 0;
  while (true) {
    run_rows(loop, a.data + a_at * sizes.a, b.data + b_at * sizes.b, y + y_at * sizes.y, rows, sizes);
    y_at += rows.rows * rows.n;
    size_t d = outer;
    while (d > 0) {
      --d;
      a_at += a_strides[d], b_at += b_strides[d];
      if (++index[d] < loops.sizes[d]) break;
      a_at -= a_strides[d] * loops.sizes[d], b_at -= b_strides[d] * loops.sizes[d];
      index[d] = 0;
      if (d == 0) return;
    }
    if (outer == 0) return;
  }
}

void run_binary(KernelContext& context, const BinaryOp& op) {
  const Operands operands = collect_operands(context, 2);
  const Operand &a = operands.list[0], &b = operands.list[1];
  require_same_type(a.dtype, b.dtype);
  if (is_16_bit_float(a.dtype)) {
    Tensor y = binary_tensor(op, a, b, operands.physical).reshaped(operands.shape);
    return context.set(0, op.gives_bool ? y : cast(y, a.dtype), operands.layout);
  }
  const BinaryLoop loop = loop_for(op, a.dtype);
  const DType dtype = op.gives_bool ? DType::Bool : a.dtype;
  const bool in_a = !op.gives_bool && a.shape == operands.physical, in_b = !op.gives_bool && b.shape == operands.physical;
  Tensor* y = nullptr;
  if (in_a) y = &context.out_reusing(0, 0, dtype, operands.shape, operands.layout);
  else if (in_b) y = &context.out_reusing(0, 1, dtype, operands.shape, operands.layout);
  else y = &context.out(0, dtype, operands.shape, operands.layout);
  run_binary_loop(loop, a, b, operands.physical, y->mutable_raw(), dtype);
}

std::unique_ptr<Kernel> make_binary_kernel(const BinaryOp& op, KernelFunction run) {
  class BinaryKernel : public Kernel {
   public:
    BinaryKernel(const BinaryOp& op, KernelFunction run) : op_(op), run_(std::move(run)) {}
    void run(KernelContext& context) const override { run_ ? run_(context) : run_binary(context, op_); }
    const BinaryOp* as_binary() const override { return &op_; }
    ByItem by_item() const override { return ByItem::All; }

   private:
    BinaryOp op_;
    KernelFunction run_;
  };
  return std::make_unique<BinaryKernel>(op, std::move(run));
}

void run_folded(KernelContext& context, const BinaryOp& op) {
  const size_t count = context.inputs();
  if (count == 1) {
    Layout layout;
    const Tensor& only = context.in_any(0, layout);
    return context.set(0, only, layout);
  }
  if (count == 2) return run_binary(context, op);
  const DType dtype = context.in(0).dtype();
  Tensor total = context.in(0);
  for (size_t i = 1; i < count; ++i) {
    const Tensor& next = context.in(i);
    require_same_type(dtype, next.dtype());
    Tensor wide = is_16_bit_float(dtype) ? cast(next, DType::F32) : next;
    if (is_16_bit_float(total.dtype())) total = cast(total, DType::F32);
    const Operand a{total.dtype(), total.raw(), total.shape()}, b{wide.dtype(), wide.raw(), wide.shape()};
    const Shape shape = broadcast_shape(total.shape(), next.shape());
    if (i > 1 && shape == total.shape()) run_binary_loop(loop_for(op, total.dtype()), a, b, shape, total.mutable_raw(), total.dtype());
    else total = binary_tensor(op, a, b, shape);
  }
  context.set(0, total.dtype() == dtype ? total : cast(total, dtype));
}

}  // namespace infopt

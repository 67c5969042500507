// Comparisons, logic on booleans, and bitwise operators, on the device.
#include "lib/base/error.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/element_ops.h"

namespace infopt::cuda {
namespace {

struct Entry {
  const char* op;
  Fn fn;
  enum Kind { Comparison, Logic, Bitwise } kind;
  int64_t since = 1;
};
constexpr Entry kEntries[] = {{"Equal", Fn::Equal, Entry::Comparison, 7}, {"Less", Fn::Less, Entry::Comparison, 7}, {"Greater", Fn::Greater, Entry::Comparison, 7},
                              {"LessOrEqual", Fn::LessOrEqual, Entry::Comparison}, {"GreaterOrEqual", Fn::GreaterOrEqual, Entry::Comparison},
                              {"And", Fn::And, Entry::Logic, 7}, {"Or", Fn::Or, Entry::Logic, 7}, {"Xor", Fn::Xor, Entry::Logic, 7},
                              {"BitwiseAnd", Fn::And, Entry::Bitwise}, {"BitwiseOr", Fn::Or, Entry::Bitwise}, {"BitwiseXor", Fn::Xor, Entry::Bitwise}};

void run(CudaContext& context, Fn fn, Entry::Kind kind) {
  Layout layout;
  const DType dtype = context.in_any(0, layout).dtype();
  const bool integer = is_integer(dtype) && bits_of(dtype) >= 8, number = integer || dtype == DType::F32 || dtype == DType::F64 || is_16_bit_float(dtype);
  if (kind == Entry::Comparison ? !number && dtype != DType::Bool : kind == Entry::Logic ? dtype != DType::Bool : !integer) refuse_type(dtype);
  run_broadcast(context, 2, {load(0), with_operand(fn, 1, static_cast<float>(bits_of(dtype)))}, kind != Entry::Bitwise);
}

std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  refuse_strings(spec);
  for (const Entry& e : kEntries)
    if (spec.node.op == e.op) return make_cuda_kernel([fn = e.fn, kind = e.kind](CudaContext& context) { run(context, fn, kind); }, "one pass over the elements");
  throw Error(ErrorKind::Defect, "no kernel is listed for " + spec.node.op);
}

std::unique_ptr<Kernel> make_bit_shift(const KernelSpec& spec) {
  const std::string direction = spec.node.s("direction", "");
  if (direction != "LEFT" && direction != "RIGHT") throw Error(ErrorKind::Malformed, "BitShift's direction is '" + direction + "', not LEFT or RIGHT");
  const Fn fn = direction == "LEFT" ? Fn::ShiftLeft : Fn::ShiftRight;
  return make_cuda_kernel([fn](CudaContext& context) { run(context, fn, Entry::Bitwise); }, "one pass over the elements");
}

}  // namespace

std::vector<CudaOp> cuda_logic() {
  std::vector<CudaOp> ops;
  for (const Entry& e : kEntries) ops.push_back({.name = e.op, .since = e.since, .make = &make});
  ops.push_back({.name = "BitShift", .make = &make_bit_shift});
  return ops;
}

}  // namespace infopt::cuda

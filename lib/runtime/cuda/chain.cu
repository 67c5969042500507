// A chain of elementwise nodes as one program: what one node hands to the next stays in the accumulator or in a register.
#include <algorithm>

#include "lib/base/error.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/element_ops.h"

namespace infopt::cuda {
namespace {

bool small_float(DType t) { return t == DType::F32 || is_16_bit_float(t); }

struct Member {
  Step step;                     ///< with its function and numbers
  std::vector<size_t> operands;  ///< one or two values: the chain's inputs first, then its members
};

/// Writes the program. A value is an input of the chain or a member's result.
class Compiler {
 public:
  Compiler(const std::vector<Member>& members, size_t inputs, const std::vector<bool>& is_number, const std::vector<float>& numbers)
      : members_(members), inputs_(inputs), is_number_(is_number), numbers_(numbers), left_(inputs + members.size(), 0), register_(left_.size(), kNowhere) {
    for (const Member& m : members)
      for (size_t o : m.operands) ++left_[o];
  }

  /// False where there are too few registers, or too many steps.
  bool compile() {
    for (size_t m = 0; m < members_.size(); ++m)
      if (!compile_member(m)) return false;
    return steps.size() <= kMostSteps;
  }

  std::vector<Step> steps;

 private:
  bool compile_member(size_t m) {
    const Member& member = members_[m];
    const size_t first = member.operands[0];
    Step step = member.step;
    if (member.operands.size() == 1) {
      bring(first);
    } else if (const size_t second = member.operands[1]; first == second) {
      bring(first);
      step.from = From::Same;
    } else if (accumulator_ == second || (accumulator_ != first && is_number_[first])) {
      bring(second);
      step.swapped = true;
      take(first, step);
    } else {
      bring(first);
      take(second, step);
    }
    for (size_t o : member.operands)
      if (--left_[o] == 0) register_[o] = kNowhere;
    const size_t result = inputs_ + m;
    if (!stays(m)) {
      register_[result] = free_register(true);
      if (register_[result] == kNowhere) return false;
      step.keep = register_[result];
    }
    steps.push_back(step);
    accumulator_ = result;
    return true;
  }

  /// All that read the member's result is the next member, which finds it in the accumulator.
  bool stays(size_t m) const {
    const size_t result = inputs_ + m;
    if (left_[result] == 0) return true;
    const auto& next = members_[m + 1].operands;
    return std::count(next.begin(), next.end(), result) == left_[result];
  }

  /// Makes the value the accumulator's. What that held is in a register where it is still needed.
  void bring(size_t value) {
    if (accumulator_ == value) return;
    Step step{.fn = Fn::Load};
    if (register_[value] != kNowhere) {
      step.from = From::Register;
      step.index = register_[value];
    } else {
      step.from = From::Operand;
      step.index = static_cast<uint8_t>(value);
      if (left_[value] > 1) step.keep = register_[value] = free_register(false);
    }
    steps.push_back(step);
    accumulator_ = value;
  }

  /// Makes the value the step's other operand.
  void take(size_t value, Step& step) {
    if (is_number_[value]) {
      step.from = From::Number;
      step.p = numbers_[value];
      return;
    }
    if (register_[value] == kNowhere && left_[value] > 1) {
      register_[value] = free_register(false);
      if (register_[value] != kNowhere) steps.push_back({.fn = Fn::Hold, .from = From::Operand, .index = static_cast<uint8_t>(value), .keep = register_[value]});
    }
    step.from = register_[value] != kNowhere ? From::Register : From::Operand;
    step.index = register_[value] != kNowhere ? register_[value] : static_cast<uint8_t>(value);
  }

  /// One that nothing needs; where a result `must` have one, an input gives up its own and is read again.
  uint8_t free_register(bool must) {
    for (uint8_t r = 0; r < kMostRegisters; ++r)
      if (std::find(register_.begin(), register_.end(), r) == register_.end()) return r;
    if (must)
      for (size_t i = 0; i < inputs_; ++i)
        if (register_[i] != kNowhere) return std::exchange(register_[i], kNowhere);
    return kNowhere;
  }

  static constexpr size_t kNobody = static_cast<size_t>(-1);
  const std::vector<Member>& members_;
  size_t inputs_;
  const std::vector<bool>& is_number_;
  const std::vector<float>& numbers_;
  std::vector<int64_t> left_;       ///< reads of each value to come
  std::vector<uint8_t> register_;   ///< that holds it
  size_t accumulator_ = kNobody;
};

/// Makes QuantizeLinear's code of the accumulator, by its operations in its order. Nothing else is in a register any more.
void append_code(std::vector<Step>& steps, const CodeEnd& codes) {
  Step quotient = with_number(Fn::Div, codes.scale);
  if (is_float(codes.type)) {
    steps.insert(steps.end(), {quotient, with_number(Fn::Add, codes.zero)});
    return;
  }
  const float low = codes.type == DType::I8 ? -128.0f : 0.0f, least = low - codes.zero, most = low + 255.0f - codes.zero;
  quotient.keep = 0;
  Step above = with_number(Fn::Greater, least), chosen = with_number(Fn::Select, least);
  above.keep = chosen.third = 1;
  steps.insert(steps.end(), {quotient, above, {.fn = Fn::Load, .from = From::Register, .index = 0}, chosen,  // NaN becomes the least
                             with_number(Fn::Min, most), {.fn = Fn::Round}, with_number(Fn::Add, codes.zero)});
}

class ChainKernel : public CudaKernel {
 public:
  ChainKernel(std::vector<Step> steps, size_t inputs, size_t members, std::vector<bool> is_number, const std::optional<CodeEnd>& codes)
      : steps_(std::move(steps)), inputs_(inputs), members_(members), is_number_(std::move(is_number)), codes_(codes) {}

  void run_cuda(CudaContext& context) const override {
    const Operands all = collect_operands(context.base(), inputs_);
    DType dtype = DType::Undefined;
    for (size_t i = 0; i < inputs_; ++i) {
      if (is_number_[i]) continue;
      if (dtype == DType::Undefined) dtype = all.list[i].dtype;
      if (all.list[i].dtype != dtype)
        throw Error(ErrorKind::Malformed, "the operands' types differ: " + std::string(name_of(dtype)) + " and " + std::string(name_of(all.list[i].dtype)));
    }
    if (!small_float(dtype)) refuse_type(dtype);
    if (codes_ && dtype != DType::F32) throw Error(ErrorKind::Malformed, "float32 is expected, not " + std::string(name_of(dtype)));
    const DType to = codes_ ? codes_->type : dtype;
    Tensor& y = context.out(0, to, all.shape, all.layout);
    run_elements(context.stream(), Compute::Float, steps_, all.list, all.physical, to, y.mutable_raw());
  }

  std::string describe() const override {
    return (members_ == 1 ? "one elementwise operator" : "chain of " + std::to_string(members_) + " elementwise operators") + (codes_ ? ", to codes" : "");
  }

 private:
  std::vector<Step> steps_;
  size_t inputs_, members_;
  std::vector<bool> is_number_;
  std::optional<CodeEnd> codes_;
};

std::optional<Member> member_of(const Graph& graph, const FusedChain& how, const FusedChain::Member& m) {
  const Node& node = graph.node(m.node);
  const auto constant = [&](size_t i) -> const Tensor* {
    const size_t behind = i - m.operands.size();
    return behind < m.constants.size() && m.constants[behind].defined() ? &m.constants[behind] : nullptr;
  };
  if (m.operands.size() == 1) {
    const auto f = unary_function(node, how.opset, constant);
    if (!f) return std::nullopt;
    return Member{{.fn = f->fn, .p = f->p, .q = f->q}, m.operands};
  }
  const auto fn = binary_function(node);
  if (!fn || m.operands.size() != 2) return std::nullopt;
  return Member{{.fn = *fn}, m.operands};
}

/// x to a power that multiplications give.
void simplify_power(Member& m, const std::vector<bool>& is_number, const std::vector<float>& numbers) {
  if (m.step.fn != Fn::Pow || !is_number[m.operands[1]]) return;
  const float exponent = numbers[m.operands[1]];
  if (exponent != 2 && exponent != 3 && exponent != 0.5f) return;
  m.step.fn = exponent == 2 ? Fn::Square : exponent == 3 ? Fn::Cube : Fn::Root;
  m.operands.pop_back();
}

}  // namespace

std::unique_ptr<Kernel> make_chain(const Graph& graph, FusedChain how) {
  if (how.inputs > kMostOperands || how.opset < 7 || (how.codes && how.codes->precision != DType::F32)) return nullptr;
  std::vector<bool> is_number(how.inputs + how.members.size(), false);
  std::vector<float> numbers(is_number.size(), 0);
  for (size_t i = 0; i < how.known.size(); ++i) {
    if (!how.known[i].defined() || how.known[i].size() != 1) continue;
    is_number[i] = true;
    numbers[i] = to_scalar<float>(how.known[i]);
  }
  if (std::all_of(is_number.begin(), is_number.begin() + static_cast<int64_t>(how.inputs), [](bool b) { return b; })) return nullptr;
  std::vector<Member> members;
  for (const FusedChain::Member& m : how.members) {
    auto member = member_of(graph, how, m);
    if (!member) return nullptr;
    simplify_power(*member, is_number, numbers);
    members.push_back(std::move(*member));
  }
  Compiler compiler(members, how.inputs, is_number, numbers);
  if (!compiler.compile()) return nullptr;
  if (how.codes) append_code(compiler.steps, *how.codes);
  if (compiler.steps.size() > kMostSteps) return nullptr;
  return std::make_unique<ChainKernel>(std::move(compiler.steps), how.inputs, members.size(), std::vector<bool>(is_number.begin(), is_number.begin() + static_cast<int64_t>(how.inputs)), how.codes);
}

}  // namespace infopt::cuda

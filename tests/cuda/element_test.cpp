// Elementwise operators on the device give what the CPU's give: every function, type, broadcast and layout.
#include "tests/cuda/elements.h"

namespace infopt::test {
namespace {

constexpr DType kFloats[] = {DType::F32, DType::F16, DType::BF16, DType::F64};
constexpr DType kIntegers[] = {DType::I8, DType::U8, DType::I16, DType::U16, DType::I32, DType::U32, DType::I64, DType::U64};

/// Sizes around a thread's fours, a warp, and a block's share.
int64_t random_size(Random& r) { return r.pick<int64_t>({0, 1, 3, 4, 7, 8, 127, 512, 1023, 1024, 1025, 2500}); }

TEST(CudaElements, FunctionsOfOneElement) {
  Random r(11);
  for (const char* op : {"Neg", "Ceil", "Floor", "Round", "Sqrt", "Reciprocal", "Erf", "Tanh", "Sign", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh",
                         "Abs", "Exp", "Log", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "HardSigmoid", "HardSwish", "Sigmoid", "Softplus", "Softsign", "Mish", "Gelu", "Shrink"})
    for (DType dtype : kFloats) {
      // Tan near its poles tells the argument's rounding, which 16-bit floats have either way.
      const float reach = std::string(op) == "Tan" || std::string(op) == "Atanh" ? 1.4f : 6;
      expect_node(op, {random_tensor(r, dtype, {random_size(r)}, -reach, reach, false)});
      expect_node(op, {random_tensor(r, dtype, {r.in(1, 40)}, -1, 1, true)}, {}, 21, 2);
    }
  for (DType dtype : kFloats) {
    expect_node("Gelu", {random_tensor(r, dtype, {700})}, {{"approximate", std::string("tanh")}});
    expect_node("Swish", {random_tensor(r, dtype, {70})}, {{"alpha", 1.7f}}, 24);
    expect_node("Celu", {random_tensor(r, dtype, {70})}, {{"alpha", 0.3f}});
    expect_node("Shrink", {random_tensor(r, dtype, {70})}, {{"lambd", 1.5f}, {"bias", 0.25f}});
    expect_node("HardSigmoid", {random_tensor(r, dtype, {70})}, {{"alpha", 0.4f}, {"beta", 0.1f}});
  }
}

TEST(CudaElements, FunctionsOfIntegersWrap) {
  Random r(12);
  for (const char* op : {"Abs", "Neg", "Sign", "Relu", "BitwiseNot", "Shrink"})
    for (DType dtype : kIntegers) expect_node(op, {random_tensor(r, dtype, {random_size(r)}, -200, 200, true)});
  expect_node("Not", {random_tensor(r, DType::Bool, {1030}, 0, 1)});
}

TEST(CudaElements, TestsOfFloats) {
  Random r(13);
  for (DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F64, DType::F8E4M3FN, DType::F8E5M2, DType::F8E4M3FNUZ}) {
    expect_node("IsNaN", {random_tensor(r, dtype, {random_size(r)}, -4, 4, true)});
    expect_node("IsInf", {random_tensor(r, dtype, {300}, -4, 4, true)}, {{"detect_negative", r.in(0, 1)}, {"detect_positive", r.in(0, 1)}});
  }
}

/// A shape that broadcasts to `full`.
Shape part_of(Random& r, const Shape& full) {
  Shape s(full.begin() + (r.chance(3) ? r.in(0, static_cast<int64_t>(full.size())) : 0), full.end());
  for (int64_t& d : s)
    if (r.chance(3)) d = 1;
  return s;
}

Shape broadcast_target(Random& r) {
  Shape full = random_shape(r, 0, 5, 6);
  if (!full.empty() && r.chance(2)) full.back() = r.pick<int64_t>({4, 8, 12, 16, 64});
  return full;
}

TEST(CudaElements, TwoOperandsBroadcast) {
  Random r(14);
  for (int i = 0; i < 150; ++i) {
    const Shape full = broadcast_target(r);
    const DType dtype = r.chance(2) ? r.pick({DType::F32, DType::F16, DType::BF16, DType::F64}) : kIntegers[r.in(0, 7)];
    const std::string op = r.pick<const char*>({"Add", "Sub", "Mul", "Div", "PRelu", "Pow", "Mod", "Min", "Max", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"});
    const bool power = op == "Pow", floats = is_float(dtype);
    Attributes attributes;
    if (op == "Mod" && floats) attributes.push_back({"fmod", int64_t{1}});
    const Tensor a = random_tensor(r, dtype, op == "PRelu" ? full : part_of(r, full), power && floats ? 0.1f : -9, 9);
    const Tensor b = random_tensor(r, dtype, part_of(r, full), op == "Mod" && floats ? 1.5f : -3, 3);
    expect_node(op, {a, b}, attributes, 21, power || op == "Mod" ? 4 : 1);
  }
}

TEST(CudaElements, OddNumbersInPairs) {
  Random r(15);
  for (const char* op : {"Add", "Sub", "Mul", "Min", "Max", "Equal", "Less", "Greater", "GreaterOrEqual", "LessOrEqual", "PRelu"})
    for (DType dtype : {DType::F32, DType::F16, DType::F64, DType::I8, DType::I64, DType::U64}) {
      const Shape shape{r.in(1, 300)};
      expect_node(op, {random_tensor(r, dtype, shape, -4, 4, true), random_tensor(r, dtype, shape, -4, 4, true)});
    }
  for (DType dtype : kIntegers)
    for (const char* op : {"Div", "Mod", "Pow"}) expect_node(op, {random_tensor(r, dtype, {300}, -120, 120, true), random_tensor(r, dtype, {300}, -3, 3, false)});
}

TEST(CudaElements, BitsAndLogic) {
  Random r(16);
  for (DType dtype : kIntegers) {
    for (const char* op : {"BitwiseAnd", "BitwiseOr", "BitwiseXor"}) expect_node(op, {random_tensor(r, dtype, {3, 1, 8}, -100, 100, true), random_tensor(r, dtype, {5, 1}, -100, 100, true)});
    for (const char* direction : {"LEFT", "RIGHT"}) expect_node("BitShift", {random_tensor(r, dtype, {90}, -100, 100, true), random_tensor(r, dtype, {90}, 0, 66)}, {{"direction", std::string(direction)}});
  }
  for (const char* op : {"And", "Or", "Xor", "Equal"}) expect_node(op, {random_tensor(r, DType::Bool, {3, 7}, 0, 1), random_tensor(r, DType::Bool, {1, 7}, 0, 1)});
}

TEST(CudaElements, AnyNumberOfOperands) {
  Random r(17);
  for (const char* op : {"Sum", "Mean", "Min", "Max"})
    for (int64_t count : {1, 2, 3, 7, 16, 17, 40}) {
      const Shape full = broadcast_target(r);
      const DType dtype = r.pick({DType::F32, DType::F16, DType::F64, DType::BF16});
      std::vector<Tensor> inputs;
      for (int64_t i = 0; i < count; ++i) inputs.push_back(random_tensor(r, dtype, part_of(r, full)));
      expect_node(op, inputs, {}, 21, 2);
    }
  expect_node("Max", {random_tensor(r, DType::I32, {50}, -9, 9), random_tensor(r, DType::I32, {50}, -9, 9), random_tensor(r, DType::I32, {1}, -9, 9)});
}

TEST(CudaElements, PowersOfOtherTypesAndByConstants) {
  Random r(18);
  for (DType base : {DType::F32, DType::F16, DType::I32, DType::I64, DType::U8, DType::F64})
    for (DType exponent : {DType::F32, DType::I64, DType::I32, DType::F64})
      expect_node("Pow", {random_tensor(r, base, {6, 5}, 1, 5), random_tensor(r, exponent, {5}, 0, 4)}, {}, 21, 4);
  for (float exponent : {2.0f, 3.0f, 0.5f, 1.7f})
    for (DType dtype : kFloats) {
      Net net;
      const ValueId x = net.input(dtype, {77});
      net.output(net.add("Pow", {x, net.number(exponent)}));
      expect_close(net.graph(), {{x, random_tensor(r, dtype, {77}, 0, 5)}}, 4);
    }
}

TEST(CudaElements, ClipByInputsAttributesAndHalves) {
  Random r(19);
  for (DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F64, DType::I8, DType::U8, DType::I32, DType::I64, DType::U64})
    for (int which = 0; which < 4; ++which)
      expect_node("Clip", {random_tensor(r, dtype, {random_size(r)}, -9, 9), which & 1 ? random_tensor(r, dtype, {}, -5, 0) : Tensor(), which & 2 ? random_tensor(r, dtype, {}, 1, 5) : Tensor()});
  expect_node("Clip", {random_tensor(r, DType::F32, {33}, -9, 9, true)}, {{"min", -1.0f}, {"max", 2.0f}}, 6);
}

TEST(CudaElements, WhereMovesAnyType) {
  Random r(20);
  for (DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F64, DType::I8, DType::U8, DType::I32, DType::I64, DType::U64, DType::Bool, DType::F8E4M3FN})
    for (int i = 0; i < 4; ++i) {
      const Shape full = broadcast_target(r);
      expect_node("Where", {random_tensor(r, DType::Bool, part_of(r, full), 0, 1), random_tensor(r, dtype, part_of(r, full), -4, 4, true), random_tensor(r, dtype, part_of(r, full), -4, 4, true)});
    }
}

constexpr DType kAll[] = {DType::F32, DType::F64, DType::F16, DType::BF16, DType::U8, DType::I8, DType::U16, DType::I16, DType::I32, DType::I64, DType::U32, DType::U64, DType::Bool,
                          DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ, DType::F8E8M0, DType::U4, DType::I4, DType::U2, DType::I2, DType::F4E2M1};

void expect_cast(const Tensor& x, DType to, Attributes attributes = {}) {
  attributes.push_back({"to", static_cast<int64_t>(to)});
  Net net(25);
  const ValueId in = net.input(x.dtype(), x.shape());
  net.output(net.add("Cast", {in}, attributes));
  SCOPED_TRACE(std::string(name_of(x.dtype())) + " to " + std::string(name_of(to)));
  const Feeds feeds{{in, x}};
  expect_same_bits(run_cuda(net.graph(), feeds), Session(net.graph()).run(feeds));
}

TEST(CudaElements, CastsBetweenAllTypes) {
  Random r(21);
  for (DType from : kAll)
    for (DType to : kAll) {
      const bool integral = !is_float(from) && !is_float(to), narrow = is_float(from) && !is_float(to) && bits_of(to) < 8;
      const bool eight_bit = bits_of(from) <= 8 && is_float(from);
      expect_cast(random_tensor(r, from, {r.pick<int64_t>({1, 5, 13, 1030})}, from == DType::Bool ? 0 : -300, from == DType::Bool ? 1 : 300, (integral || is_float(to)) && !narrow && !eight_bit), to);
    }
}

TEST(CudaElements, CastsRoundHalfToEvenAndSaturateAsTold) {
  Tensor x(DType::F32, {4000});
  for (int64_t i = 0; i < x.size(); ++i) x.mutable_data<float>()[i] = static_cast<float>(i - 2000) * (i % 3 == 0 ? 0.25f : i % 3 == 1 ? 40.0f : 0.00390625f);
  for (DType to : {DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ})
    for (int64_t saturate : {0, 1}) expect_cast(x, to, {{"saturate", saturate}});
  for (const char* mode : {"up", "down", "nearest"}) expect_cast(x, DType::F8E8M0, {{"round_mode", std::string(mode)}});
  for (DType to : {DType::F4E2M1, DType::F16, DType::BF16, DType::I8, DType::U8, DType::I64}) expect_cast(x, to);
}

TEST(CudaElements, CastLikeTakesTheOthersType) {
  Random r(22);
  expect_node("CastLike", {random_tensor(r, DType::F32, {3, 5}, -9, 9), random_tensor(r, DType::I32, {2}, 0, 1)});
}

TEST(CudaElements, SlopesOfOldOpsetsLieAtTheirAxis) {
  Random r(23);
  expect_node("PRelu", {random_tensor(r, DType::F32, {2, 3, 4, 5}), random_tensor(r, DType::F32, {3})}, {}, 6);
  expect_node("Add", {random_tensor(r, DType::F32, {2, 3, 4, 5}), random_tensor(r, DType::F32, {3, 4})}, {{"broadcast", int64_t{1}}, {"axis", int64_t{1}}}, 6);
}

}  // namespace
}  // namespace infopt::test

// Einsum on the device gives what the CPU's gives.
#include <map>

#include "tests/cuda/elements.h"

namespace infopt::test {
namespace {

/// Equations over letters of random sizes; an ellipsis stands for up to two axes.
void check(Random& r, const std::string& equation, DType type) {
  SCOPED_TRACE(equation + " " + std::string(name_of(type)));
  std::map<char, int64_t> sizes;
  const Shape dots = random_shape(r, 0, 2, 3);
  std::vector<Tensor> inputs;
  const size_t arrow = std::min(equation.find("->"), equation.size());
  for (size_t at = 0; at < arrow; ++at) {
    Shape shape;
    for (; at < arrow && equation[at] != ','; ++at) {
      if (equation[at] == '.') {
        shape.insert(shape.end(), dots.begin(), dots.end());
        if (!dots.empty() && r.chance(4)) shape[shape.size() - 1] = 1;  // broadcasts
        at += 2;
      } else if (equation[at] != ' ') {
        shape.push_back(sizes.emplace(equation[at], r.in(1, 9)).first->second);
        if (r.chance(8) && std::count(equation.begin(), equation.begin() + static_cast<std::ptrdiff_t>(arrow), equation[at]) > 1) shape.back() = 1;
      }
    }
    inputs.push_back(random_tensor(r, type, shape, -1, 1));
  }
  expect_node("Einsum", inputs, {{"equation", equation}}, 12, 8);
}

TEST(CudaEinsum, ProductsAndMoves) {
  Random r(81);
  for (const char* equation : {"ij,jk->ik", "bhid,bhjd->bhij", "bhij,bhjd->bhid", "bind,bjnd->bnij", "bnij,bjnd->bind", "...ij,...jk->...ik", "bn,hn->bh", "i,j->ij", "i,j->ji", "bij,bkj->kbi", "abc,cd->adb",
                               "ijk,ijk->", "ij->ji", "abc->cab", "ii->i", "...ij->...ji", "bchw,bkhw->bkc", "ij,ij->ij", "nkctv,kvw->nctw", "bqd,bkd->bqk", "bhwij,bhwjc->bhwic", "ij, jk", "i,i", "xbn,xb->xn"})
    for (int i = 0; i < 6 && !testing::Test::HasFailure(); ++i) check(r, equation, r.pick({DType::F32, DType::F32, DType::F16, DType::BF16}));
}

TEST(CudaEinsum, OfWhatItHasNoKernelForIsTheCpus) {
  Random r(82);
  for (const char* equation : {"ij->i", "ij,jk,kl->il", "ij,kl->i", "ii->"}) {
    Net net(12);
    std::vector<ValueId> inputs;
    for (size_t i = 0; i < static_cast<size_t>(std::count(equation, equation + std::string(equation).size(), ',')) + 1; ++i) inputs.push_back(net.input(DType::F32, {4, 4}));
    net.output(net.add("Einsum", inputs, {{"equation", std::string(equation)}}));
    SessionOptions options;
    options.device = cuda_device();
    const auto plan = Session(net.graph(), options).plan();
    EXPECT_EQ(plan.at(0).place, Session::PlanLine::Cpu);
    EXPECT_NE(plan.at(0).refusal.find("Einsum"), std::string::npos) << plan.at(0).refusal;
  }
}

}  // namespace
}  // namespace infopt::test

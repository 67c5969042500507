// GridSample on the device: the CPU's values, within rounding.
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

Tensor reals(Random& r, DType type, const Shape& shape, float most) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.chance(8) ? r.pick({-1.0f, 0.0f, 1.0f, 5.0f}) : r.real(-most, most);
  return cast(t, type);
}

TEST(CudaGridSample, EveryModeBorderAndRank) {
  Random r(131);
  for (int i = 0; i < 72 && !testing::Test::HasFatalFailure(); ++i) {
    const int64_t dims = 1 + i % 3, batch = r.in(1, 2);
    const DType type = r.pick({DType::F32, DType::F32, DType::F64, DType::F16});
    Shape x{batch, r.pick<int64_t>({1, 3, 11})}, grid{batch};
    for (int64_t d = 0; d < dims; ++d) x.push_back(r.pick<int64_t>({1, 4, 7})), grid.push_back(r.in(1, 6));
    grid.push_back(dims);
    Net net;
    const ValueId image = net.input(type, x), places = net.input(DType::F32, grid);
    const std::string mode = r.pick<std::string>({"linear", "nearest", "cubic"}), border = r.pick<std::string>({"zeros", "border", "reflection"});
    net.output(net.add("GridSample", {image, places}, {{"mode", mode}, {"padding_mode", border}, {"align_corners", r.in(0, 1)}}));
    SCOPED_TRACE(testing::Message() << mode << ", " << border << ", " << name_of(type) << to_string(x) << " at " << to_string(grid));
    expect_as_cpu(net.graph(), {{image, reals(r, type, x, 1)}, {places, reals(r, DType::F32, grid, 1.4f)}}, type == DType::F16 ? 2e-3 : 1e-5);
  }
}

}  // namespace
}  // namespace infopt::test

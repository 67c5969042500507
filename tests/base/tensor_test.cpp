#include "lib/base/tensor.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "lib/base/memory.h"

namespace infopt {
namespace {

/// Floats 1, 2, 3… one byte past an aligned address.
struct Shifted {
  std::shared_ptr<std::vector<std::byte>> file;
  Tensor tensor;

  explicit Shifted(Shape shape) : file(std::make_shared<std::vector<std::byte>>(static_cast<size_t>(element_count(shape)) * 4 + 16)) {
    const auto address = reinterpret_cast<uintptr_t>(file->data());
    std::byte* at = file->data() + (16 - address % 16) % 16 + 1;
    for (int64_t i = 0; i < element_count(shape); ++i) {
      const float v = static_cast<float>(i + 1);
      std::memcpy(at + 4 * i, &v, 4);
    }
    tensor = Tensor::unaligned(DType::F32, std::move(shape), file, at);
  }
};

TEST(Tensor, UnalignedElementsAreReadFromAnAlignedCopyThatAllSharesHave) {
  const Shifted s({3, 2});
  const Tensor share = s.tensor, other = s.tensor.reshaped({6});
  EXPECT_EQ(reinterpret_cast<uintptr_t>(s.tensor.unaligned_bytes()) % 4, 1u);
  const float* data = share.data<float>();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0u);
  EXPECT_EQ(other.data<float>(), data);
  EXPECT_EQ(static_cast<const void*>(s.tensor.raw()), data);
  EXPECT_EQ(static_cast<const void*>(s.tensor.unaligned_bytes()), data);
  EXPECT_EQ((std::vector<float>(data, data + 6)), (std::vector<float>{1, 2, 3, 4, 5, 6}));
}

TEST(Tensor, ElementsReadOnceAreCopiedForNow) {
  const Shifted s({5});
  const Tensor now = s.tensor.aligned_for_now();
  EXPECT_EQ(now.data<float>()[4], 5.0f);
  EXPECT_TRUE(now.unique());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(s.tensor.unaligned_bytes()) % 4, 1u);  // the tensor itself has no copy yet
  EXPECT_EQ(s.tensor.clone().data<float>()[2], 3.0f);
  const float* data = s.tensor.data<float>();
  EXPECT_EQ(s.tensor.aligned_for_now().data<float>(), data);
}

TEST(Tensor, SlicesOfUnalignedElementsOutliveTheTensor) {
  Tensor slice;
  {
    const Shifted s({4, 2});
    slice = s.tensor.slice_front(1, 2);
  }
  EXPECT_EQ((std::vector<float>(slice.data<float>(), slice.data<float>() + 4)), (std::vector<float>{3, 4, 5, 6}));
}

TEST(Tensor, ThreadsThatReadUnalignedElementsAtOnceGetOneCopy) {
  const Shifted s({1000});
  const float* seen[4];
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) threads.emplace_back([&, t] { seen[t] = Tensor(s.tensor).data<float>(); });
  for (auto& t : threads) t.join();
  for (const float* data : seen) {
    EXPECT_EQ(data, seen[0]);
    EXPECT_EQ(data[999], 1000.0f);
  }
}

}  // namespace
}  // namespace infopt

// What only the emulated device can be told to do with sparse weights: to lack cuSPARSELt or memory, to tell times, to see misuse.
#include <gmock/gmock.h>

#include "lib/runtime/cuda/fault.h"
#include "lib/runtime/cuda/sparse_library.h"
#include "tests/cuda/kernel_harness.h"
#include "tests/cuda/sparse.h"

namespace infopt::test {
namespace {

using cuda::MatrixProduct;
using testing::HasSubstr;
using testing::Not;

/// Faults as they were, at the end.
class EmulatedSparse : public testing::Test {
 protected:
  EmulatedSparse() : before_(cuda::faults()) {}
  ~EmulatedSparse() override { cuda::faults() = before_; }

  /// x [16,64] · W [64,32] in float16.
  void make(Zeros zeros) {
    Random r(5);
    net_ = std::make_unique<Net>();
    const ValueId x = net_->input(DType::F16, {16, 64});
    net_->output(net_->add("MatMul", {x, net_->constant(masked(r, DType::F16, 32, 64, random_mask(r, 32, 64, zeros, 40), false))}));
    feeds_ = {{x, random_reals(r, DType::F16, {16, 64})}};
  }
  std::vector<Tensor> run(SparseUse use, std::string* said = nullptr) { return run_on(sparse_device(use), net_->graph(), feeds_, said); }

  cuda::Faults before_;
  std::unique_ptr<Net> net_;
  Feeds feeds_;
};

TEST_F(EmulatedSparse, WithoutTheLibraryTwoOfFourIsDense) {
  make(Zeros::TwoOfFour);
  cuda::faults().no_sparse_library = true;
  std::string said;
  const auto got = run(SparseUse::Always, &said);
  EXPECT_THAT(said, HasSubstr("2:4, dense: built without cuSPARSELt"));
  expect_same_bits(got, run(SparseUse::Never));
  EXPECT_THROW(cuda::SparseLibrary::open(), Error);
}

TEST_F(EmulatedSparse, WithoutTimesTheChoiceIsDense) {
  make(Zeros::TwoOfFour);
  std::string said;
  const auto got = run(SparseUse::Auto, &said);
  EXPECT_THAT(said, HasSubstr("zeros 2:4: dense, as an emulated device has no times to choose by"));
  expect_same_bits(got, run(SparseUse::Never));
}

TEST_F(EmulatedSparse, WithTimesItIsTimedOnceAndTheResultIsTheSame) {
  for (const Zeros zeros : {Zeros::TwoOfFour, Zeros::Blocks}) {
    make(zeros);
    cuda::faults().takes_times = true;
    SessionOptions options;
    options.device = sparse_device(SparseUse::Auto);
    const Session session(net_->graph(), options);
    EXPECT_THAT(session.plan()[0].kernel, HasSubstr(kTimedInFirstRun));
    const auto got = session.run(feeds_);
    const std::string said = session.plan()[0].kernel;
    EXPECT_THAT(said, HasSubstr(zeros == Zeros::Blocks ? "; blocks, " : "; 2:4, "));
    EXPECT_THAT(said, HasSubstr("x (16 rows)"));
    const int64_t before = cuda::launches();
    session.run(feeds_);
    EXPECT_LE(cuda::launches() - before, 2);  // nothing is timed again
    session.run(feeds_);
    EXPECT_EQ(session.plan()[0].kernel, said);
    EXPECT_EQ(session.recorded_runs(), 1);
    Agreement().compare(got[0], run(SparseUse::Never)[0], rounding_of(DType::F16));
  }
}

TEST_F(EmulatedSparse, WithoutMemoryForItDenseIsTaken) {
  make(Zeros::TwoOfFour);
  const auto want = run(SparseUse::Never);
  cuda::faults().takes_times = true;
  const auto device = sparse_device(SparseUse::Auto), always = sparse_device(SparseUse::Always);
  const size_t used = cuda::device_bytes_used();
  // What dense weights, input and output take: 4,096 + 2,048 + 1,024 bytes.
  cuda::faults().memory_limit = used + 4096 + 2048 + 1024 + 64;
  std::string said;
  expect_same_bits(run_on(device, net_->graph(), feeds_, &said), want);
  EXPECT_THAT(said, HasSubstr("2:4, dense: there is no memory"));
  cuda::faults().memory_limit = used + 2048 + 1024 + 64;
  try {
    run_on(always, net_->graph(), feeds_);
    ADD_FAILURE() << "it ran";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Limit);
  }
}

TEST_F(EmulatedSparse, MemoryThatEndsAnywhereEndsARunCleanly) {
  for (const Zeros zeros : {Zeros::TwoOfFour, Zeros::Blocks}) {
    make(zeros);
    const auto want = run(SparseUse::Never);
    const auto device = sparse_device(SparseUse::Always);
    const size_t used = cuda::device_bytes_used();
    bool ran = false;
    for (size_t limit = 0; !ran && limit < 65536; limit += 512) {
      cuda::faults().memory_limit = used + limit;
      try {
        Agreement().compare(run_on(device, net_->graph(), feeds_)[0], want[0], rounding_of(DType::F16));
        ran = true;
      } catch (const Error& e) {
        ASSERT_EQ(e.kind(), ErrorKind::Limit) << e.what();
      }
      cuda::faults().memory_limit = SIZE_MAX;
    }
    EXPECT_TRUE(ran);
    EXPECT_LE(cuda::device_bytes_used(), used + 512);  // the library's workspace stays with the stream
  }
}

TEST_F(EmulatedSparse, WhatLosesGivesItsMemoryBack) {
  make(Zeros::TwoOfFour);
  cuda::faults().takes_times = true;
  SessionOptions options;
  options.device = sparse_device(SparseUse::Auto);
  const size_t used = cuda::device_bytes_used();
  const Session session(net_->graph(), options);
  session.run(feeds_);
  const bool dense = session.plan()[0].kernel.find("dense is faster") != std::string::npos;
  const size_t weights = 64 * 32 * 2, compressed = weights / 2 + weights / 16, more = cuda::device_bytes_used() - used;
  EXPECT_LE(more, weights + (dense ? 0 : compressed) + 1024);
}

class EmulatedSparseLibrary : public testing::Test {
 protected:
  EmulatedSparseLibrary() : run_(cuda_device()->begin()), library_(cuda::SparseLibrary::open()) {}

  /// Whether the call is refused as a defect.
  template <class F> bool refused(F&& call) {
    try {
      call();
      return false;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Defect) << e.what();
      return true;
    }
  }
  Tensor compressed(const Tensor& w, DType type, int64_t n, int64_t k) {
    const auto size = library_->compressed_size(type, n, k);
    Tensor to = run_->make(DType::U8, {static_cast<int64_t>(size.weights)}), buffer = run_->make(DType::U8, {static_cast<int64_t>(size.buffer)});
    const Tensor there = run_->to_device(w);
    library_->compress(stream_, type, n, k, there.raw(), to.mutable_raw(), buffer.mutable_raw());
    return to;
  }

  std::unique_ptr<DeviceRun> run_;
  std::unique_ptr<cuda::SparseLibrary> library_;
  cuda::Stream stream_;
};

TEST_F(EmulatedSparseLibrary, ProductsAreWhatTheyAreDefinedToBe) {
  for (unsigned seed = 0; seed < 40 && !testing::Test::HasFatalFailure(); ++seed) {
    Random r(seed);
    const DType type = r.pick({DType::F16, DType::BF16, DType::I8});
    const bool integer = type == DType::I8;
    const int64_t step = integer ? 16 : 8, m = step * r.in(1, 4), n = 2 * step * r.in(1, 4), k = 2 * step * r.in(1, 4);
    MatrixProduct p{.type = type, .out = integer ? DType::I32 : type, .transpose_b = true, .m = m, .n = n, .k = k, .lda = k + step * r.in(0, 1), .ldb = k, .ldc = n + step * r.in(0, 1)};
    if (!integer) {
      p.beta = r.chance(2) ? 1.0f : 0.0f;
      p.bias = r.chance(2);
      p.activation = r.chance(2) ? MatrixProduct::Relu : MatrixProduct::None;
    }
    const Tensor w = masked(r, type, n, k, random_mask(r, n, k, Zeros::TwoOfFour), true), a = integer ? random_codes(r, type, {m, p.lda}) : random_reals(r, type, {m, p.lda});
    const Tensor c = integer ? Tensor::zeros(DType::I32, {m, p.ldc}) : random_reals(r, type, {m, p.ldc}), bias = integer ? Tensor() : random_reals(r, type, {n});
    const Tensor packed = compressed(w, type, n, k), x = run_->to_device(a), biases = integer ? Tensor() : run_->to_device(bias);
    Tensor y = run_->to_device(c);
    library_->multiply(stream_, p, x.raw(), packed.raw(), y.mutable_raw(), p.bias ? biases.raw() : nullptr);
    const auto got = to_vector<double>(run_->to_host(y)), ws = to_vector<double>(w), as = to_vector<double>(a), cs = to_vector<double>(c);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < p.ldc; ++j) {
        double want = cs[static_cast<size_t>(i * p.ldc + j)];
        if (j < n) {
          want *= static_cast<double>(p.beta);
          for (int64_t q = 0; q < k; ++q) want += as[static_cast<size_t>(i * p.lda + q)] * ws[static_cast<size_t>(j * k + q)];
          if (p.bias) want += to_vector<double>(bias)[static_cast<size_t>(j)];
          if (p.activation == MatrixProduct::Relu) want = std::max(want, 0.0);
        }
        ASSERT_NEAR(got[static_cast<size_t>(i * p.ldc + j)], want, integer ? 0 : rounding_of(type) * 8) << seed;
      }
  }
}

TEST_F(EmulatedSparseLibrary, WeightsMustBeCompressedFirst) {
  const Tensor never = run_->make(DType::U8, {32 * 16 * 2}), x = run_->to_device(Tensor::zeros(DType::F16, {8, 32}));
  Tensor y = run_->make(DType::F16, {8, 16});
  const MatrixProduct p{.type = DType::F16, .out = DType::F16, .transpose_b = true, .m = 8, .n = 16, .k = 32, .lda = 32, .ldb = 32, .ldc = 16};
  EXPECT_TRUE(refused([&] { library_->multiply(stream_, p, x.raw(), never.raw(), y.mutable_raw()); }));
}

TEST_F(EmulatedSparseLibrary, WeightsMustBeTwoOfFour) {
  Tensor w = Tensor::zeros(DType::I8, {32, 32});
  for (int i = 0; i < 3; ++i) w.mutable_data<int8_t>()[4 + i] = 1;
  EXPECT_TRUE(refused([&] { compressed(w, DType::I8, 32, 32); }));
  w.mutable_data<int8_t>()[5] = 0;
  EXPECT_FALSE(refused([&] { compressed(w, DType::I8, 32, 32); }));
}

TEST_F(EmulatedSparseLibrary, LimitsAreHeld) {
  const MatrixProduct good{.type = DType::F16, .out = DType::F16, .transpose_b = true, .m = 8, .n = 16, .k = 16, .lda = 16, .ldb = 16, .ldc = 16};
  alignas(16) std::byte place[16];
  const auto breaks = [&](auto change) {
    MatrixProduct p = good;
    change(p);
    return refused([&] { cuda::check_sparse_limits(p, place, place, place, place, place); });
  };
  EXPECT_FALSE(breaks([](MatrixProduct&) {}));
  EXPECT_TRUE(breaks([](MatrixProduct& p) { p.m = 9; }));
  EXPECT_TRUE(breaks([](MatrixProduct& p) { p.n = 24; }));
  EXPECT_TRUE(breaks([](MatrixProduct& p) { p.k = 24, p.lda = 24; }));
  EXPECT_TRUE(breaks([](MatrixProduct& p) { p.lda = 17; }));
  EXPECT_TRUE(breaks([](MatrixProduct& p) { p.type = p.out = DType::F32; }));
  EXPECT_TRUE(breaks([](MatrixProduct& p) { p.out = DType::F32; }));
  EXPECT_TRUE(breaks([](MatrixProduct& p) { p.transpose_b = false; }));
  EXPECT_TRUE(breaks([](MatrixProduct& p) { p.batch = 2; }));
  EXPECT_TRUE(breaks([](MatrixProduct& p) { p.activation = MatrixProduct::Gelu; }));
  EXPECT_TRUE(breaks([](MatrixProduct& p) { p.type = DType::I8, p.out = DType::I32; }));
  EXPECT_TRUE(refused([&] { cuda::check_sparse_limits(good, place + 8, place, place, place, place); }));
}

}  // namespace
}  // namespace infopt::test

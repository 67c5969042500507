// Stand-ins for the libraries, with their limits: products on the host.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>
#include <oneapi/dnnl/dnnl.h>

#include "lib/base/error.h"
#include "lib/base/float8.h"
#include "lib/base/share.h"
#include "lib/base/simd.h"
#include "lib/base/tensor.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/libraries.h"

namespace infopt::cuda {
namespace {

/// `count` elements as float32; float32 itself isn't copied.
class Floats {
 public:
  Floats(DType type, const void* data, int64_t count) {
    if (type == DType::F32) {
      data_ = static_cast<const float*>(data);
      return;
    }
    if (type == DType::F8E4M3FN) {
      copy_ = Tensor(DType::F32, {count});
      float table[256];
      for (int i = 0; i < 256; ++i) table[i] = decode_small_float(type, static_cast<uint8_t>(i));
      for (int64_t i = 0; i < count; ++i) copy_.mutable_data<float>()[i] = table[static_cast<const uint8_t*>(data)[i]];
    } else {
      copy_ = cast(Tensor(type, {count}, nullptr, data), DType::F32);
    }
    data_ = copy_.data<float>();
  }
  const float* data() const { return data_; }

 private:
  Tensor copy_;
  const float* data_ = nullptr;
};

/// Elements from the first of the first matrix to the last of the last.
int64_t span(int64_t rows, int64_t columns, int64_t ld, int64_t batch, int64_t stride) { return (batch - 1) * stride + (rows - 1) * ld + columns; }

float activated(MatrixProduct::Activation kind, float v) {
  if (kind == MatrixProduct::Relu) return v > 0 ? v : v != v ? v : 0;
  if (kind == MatrixProduct::Gelu) return 0.5f * v * (1 + std::tanh(0.7978845608f * (v + 0.044715f * v * v * v)));
  return v;
}

/// sums[m,n] to C: what was added before, bias and activation.
void store(const MatrixProduct& p, float* sums, void* c, const void* bias, const void* added) {
  const auto read = [&](const void* from, int64_t i) {
    if (p.out == DType::F32) return static_cast<const float*>(from)[i];
    return p.out == DType::F16 ? to_float(static_cast<const half*>(from)[i]) : to_float(static_cast<const bfloat16*>(from)[i]);
  };
  const bool changes = p.beta != 0 || p.bias || p.activation != MatrixProduct::None;
  std::vector<float> row_bias(static_cast<size_t>(p.bias ? p.n : 0));
  for (size_t i = 0; i < row_bias.size(); ++i) row_bias[i] = read(bias, static_cast<int64_t>(i));
  for (int64_t r = 0; r < p.m; ++r) {
    float* row = sums + r * p.n;
    if (changes)
      for (int64_t i = 0; i < p.n; ++i) {
        float v = row[i];
        if (p.beta != 0) v += p.beta * read(added, r * p.ldc + i);
        if (p.bias) v += row_bias[static_cast<size_t>(i)];
        row[i] = activated(p.activation, v);
      }
    switch (p.out) {
      case DType::F32: std::copy_n(row, p.n, static_cast<float*>(c) + r * p.ldc); break;
      case DType::F16: for (int64_t i = 0; i < p.n; ++i) static_cast<half*>(c)[r * p.ldc + i] = to_half(row[i]); break;
      default: for (int64_t i = 0; i < p.n; ++i) static_cast<bfloat16*>(c)[r * p.ldc + i] = to_bfloat16(row[i]);
    }
  }
}

const void* moved(const void* p, DType type, int64_t elements) { return static_cast<const std::byte*>(p) + elements * static_cast<int64_t>(bits_of(type) / 8); }

void multiply_floats(const MatrixProduct& p, const void* a, const void* b, void* c, const void* bias, const void* added) {
  const Floats left(p.type, a, p.transpose_a ? span(p.k, p.m, p.lda, p.batch, p.stride_a) : span(p.m, p.k, p.lda, p.batch, p.stride_a));
  const Floats right(p.type, b, p.transpose_b ? span(p.n, p.k, p.ldb, p.batch, p.stride_b) : span(p.k, p.n, p.ldb, p.batch, p.stride_b));
  Tensor sums(DType::F32, {p.m, p.n});
  omp_set_num_threads(run_threads());
  for (int64_t i = 0; i < p.batch; ++i) {
    const auto status = dnnl_sgemm(p.transpose_a ? 'T' : 'N', p.transpose_b ? 'T' : 'N', p.m, p.n, p.k, p.alpha, left.data() + i * p.stride_a, p.lda, right.data() + i * p.stride_b, p.ldb, 0.0f,
                                   sums.mutable_data<float>(), p.n);
    if (status != dnnl_success) throw Error(ErrorKind::Defect, "the emulation's product failed");
    store(p, sums.mutable_data<float>(), const_cast<void*>(moved(c, p.out, i * p.stride_c)), bias, moved(added, p.out, i * p.stride_c));
  }
}

INFOPT_SIMD void dot_rows(const int16_t* row, const int16_t* b, int64_t k, int64_t n, int32_t* out) {
  for (int64_t j = 0; j < n; ++j) {
    int32_t sum = 0;
    for (int64_t i = 0; i < k; ++i) sum += row[i] * b[j * k + i];
    out[j] = sum;
  }
}

void multiply_codes(const MatrixProduct& p, const int8_t* a, const int8_t* b, int32_t* c, const int32_t* added) {
  std::vector<int16_t> right(static_cast<size_t>(p.n * p.k));
  for (int64_t i = 0; i < p.batch; ++i) {
    if (i == 0 || p.stride_b != 0)
      for (int64_t j = 0; j < p.n; ++j) std::copy_n(b + i * p.stride_b + j * p.ldb, p.k, right.data() + j * p.k);
    share_work(p.m, 16, [&](int64_t begin, int64_t end) {
      constexpr int64_t kBlock = 64;  // columns whose weights stay in the cache
      std::vector<int16_t> rows(static_cast<size_t>((end - begin) * p.k));
      for (int64_t r = begin; r < end; ++r) std::copy_n(a + i * p.stride_a + r * p.lda, p.k, rows.data() + (r - begin) * p.k);
      std::vector<int32_t> sums(kBlock);
      for (int64_t j = 0; j < p.n; j += kBlock)
        for (int64_t r = begin; r < end; ++r) {
          const int64_t count = std::min(kBlock, p.n - j), at = i * p.stride_c + r * p.ldc + j;
          dot_rows(rows.data() + (r - begin) * p.k, right.data() + j * p.k, p.k, count, sums.data());
          for (int64_t q = 0; q < count; ++q) c[at + q] = static_cast<int32_t>(static_cast<uint32_t>(sums[static_cast<size_t>(q)]) + (p.beta != 0 ? static_cast<uint32_t>(added[at + q]) : 0u));
        }
    });
  }
}

class EmulatedLibraries : public Libraries {
 public:
  std::string versions() const override { return "emulated libraries"; }
  void multiply(Stream& stream, const MatrixProduct& p, const void* a, const void* b, void* c, const void* bias, const void* added) override {
    if (p.m == 0 || p.n == 0 || p.batch == 0) return;
    note_launch("matrix product");
    if (!added) added = c;
    check_limits(p, a, b, c, bias, added);
    stream.emulate([=] {
      if (p.type == DType::I8) multiply_codes(p, static_cast<const int8_t*>(a), static_cast<const int8_t*>(b), static_cast<int32_t*>(c), static_cast<const int32_t*>(added));
      else multiply_floats(p, a, b, c, bias, added);
    });
  }
};

}  // namespace

std::unique_ptr<Libraries> Libraries::open(const DeviceFacts&, bool) { return std::make_unique<EmulatedLibraries>(); }

}  // namespace infopt::cuda

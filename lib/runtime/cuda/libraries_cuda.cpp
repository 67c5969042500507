// cuBLASLt, opened when it is needed. It knows columns first: the row-major C = A·B is its Cᵀ = Bᵀ·Aᵀ, so that the operands change places.
#include <cublasLt.h>
#include <dlfcn.h>

#include <array>
#include <limits>
#include <map>
#include <string>

#include "lib/base/error.h"
#include "lib/runtime/cuda/finish.h"
#include "lib/runtime/cuda/libraries.h"

namespace infopt::cuda {
namespace {

constexpr size_t kWorkspace = size_t{32} << 20;

[[noreturn]] void failed(const char* what, cublasStatus_t status) {
  throw Error(status == CUBLAS_STATUS_ALLOC_FAILED ? ErrorKind::Limit : ErrorKind::Defect, std::string("cuBLASLt: ") + what + " failed with status " + std::to_string(static_cast<int>(status)));
}

/// The library's functions, loaded once a process.
struct Lt {
  decltype(&::cublasLtCreate) create;
  decltype(&::cublasLtDestroy) destroy;
  decltype(&::cublasLtGetVersion) version;
  decltype(&::cublasLtMatmulDescCreate) desc_create;
  decltype(&::cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&::cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&::cublasLtMatrixLayoutCreate) layout_create;
  decltype(&::cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&::cublasLtMatrixLayoutSetAttribute) layout_set;
  decltype(&::cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&::cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&::cublasLtMatmul) matmul;

  Lt() {
    void* library = nullptr;
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"})
      if (!library) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) throw Error(ErrorKind::Unsupported, "NVIDIA's cuBLASLt is missing: neither libcublasLt.so.13 nor libcublasLt.so.12 can be loaded");
    const auto load = [library](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      if (!function) throw Error(ErrorKind::Unsupported, std::string("NVIDIA's cuBLASLt has no ") + name);
    };
    load(create, "cublasLtCreate");
    load(destroy, "cublasLtDestroy");
    load(version, "cublasLtGetVersion");
    load(desc_create, "cublasLtMatmulDescCreate");
    load(desc_destroy, "cublasLtMatmulDescDestroy");
    load(desc_set, "cublasLtMatmulDescSetAttribute");
    load(layout_create, "cublasLtMatrixLayoutCreate");
    load(layout_destroy, "cublasLtMatrixLayoutDestroy");
    load(layout_set, "cublasLtMatrixLayoutSetAttribute");
    load(preference_create, "cublasLtMatmulPreferenceCreate");
    load(preference_destroy, "cublasLtMatmulPreferenceDestroy");
    load(preference_set, "cublasLtMatmulPreferenceSetAttribute");
    load(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    load(matmul, "cublasLtMatmul");
  }
};
const Lt& lt() {
  static const Lt functions;
  return functions;
}

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) failed(what, status);
}

cudaDataType_t type_of(DType t) {
  switch (t) {
    case DType::F32: return CUDA_R_32F;
    case DType::F16: return CUDA_R_16F;
    case DType::BF16: return CUDA_R_16BF;
    case DType::F8E4M3FN: return CUDA_R_8F_E4M3;
    case DType::I8: return CUDA_R_8I;
    default: return CUDA_R_32I;
  }
}

/// A matrix that is stored with rows of `ld` elements: columns, as the library sees it.
class LayoutOf {
 public:
  LayoutOf(DType type, int64_t rows, int64_t columns, int64_t ld, int64_t batch, int64_t stride) {
    check(lt().layout_create(&layout_, type_of(type), static_cast<uint64_t>(columns), static_cast<uint64_t>(rows), ld), "a layout");
    const auto count = static_cast<int32_t>(batch);
    check(lt().layout_set(layout_, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count), "a layout's batch");
    check(lt().layout_set(layout_, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride), "a layout's stride");
  }
  ~LayoutOf() { lt().layout_destroy(layout_); }
  LayoutOf(const LayoutOf&) = delete;
  LayoutOf& operator=(const LayoutOf&) = delete;
  cublasLtMatrixLayout_t get() const { return layout_; }

 private:
  cublasLtMatrixLayout_t layout_ = nullptr;
};

uint32_t alignment_of(const void* p) {
  const auto bits = reinterpret_cast<uintptr_t>(p) | 256;
  return static_cast<uint32_t>(bits & ~(bits - 1));
}

/// A product's description and the algorithm chosen for it.
class Chosen {
 public:
  struct Pointers { const void *a, *b, *c, *d, *bias; };

  Chosen(cublasLtHandle_t handle, const MatrixProduct& p, bool tf32, const Pointers& at)
      : a_(p.type, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda, p.batch, p.stride_a),
        b_(p.type, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb, p.batch, p.stride_b),
        c_(p.out, p.m, p.n, p.ldc, p.batch, p.stride_c) {
    const bool integer = p.type == DType::I8;
    const cublasComputeType_t compute = integer ? CUBLAS_COMPUTE_32I : p.type == DType::F32 && tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    check(lt().desc_create(&desc_, compute, integer ? CUDA_R_32I : CUDA_R_32F), "a description");
    set(CUBLASLT_MATMUL_DESC_TRANSA, static_cast<int32_t>(p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N));
    set(CUBLASLT_MATMUL_DESC_TRANSB, static_cast<int32_t>(p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N));
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, static_cast<uint32_t>(epilogue_of(p)));
    if (p.bias) {
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(type_of(p.out)));
      set_bias(at.bias);
    }
    find_algorithm(handle, at);
  }
  ~Chosen() {
    if (desc_) lt().desc_destroy(desc_);
  }
  Chosen(const Chosen&) = delete;
  Chosen& operator=(const Chosen&) = delete;

  bool found() const { return found_; }
  void run(cublasLtHandle_t handle, const MatrixProduct& p, const void* a, const void* b, void* c, const void* bias, const void* added, void* workspace, cudaStream_t stream) {
    if (p.bias) set_bias(bias);
    const int32_t ones[] = {1, p.beta != 0};
    const bool integer = p.type == DType::I8;
    const void* alpha = integer ? static_cast<const void*>(&ones[0]) : &p.alpha;
    const void* beta = integer ? static_cast<const void*>(&ones[1]) : &p.beta;
    check(lt().matmul(handle, desc_, alpha, b, b_.get(), a, a_.get(), beta, added, c_.get(), c, c_.get(), &algorithm_, workspace, kWorkspace, stream), "a product");
  }

 private:
  template <class T> void set(cublasLtMatmulDescAttributes_t what, T value) { check(lt().desc_set(desc_, what, &value, sizeof value), "a description's attribute"); }
  void set_bias(const void* bias) { set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias); }

  static cublasLtEpilogue_t epilogue_of(const MatrixProduct& p) {
    switch (p.activation) {
      case MatrixProduct::Relu: return p.bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
      case MatrixProduct::Gelu: return p.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
      default: return p.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    }
  }

  void find_algorithm(cublasLtHandle_t handle, const Pointers& at) {
    cublasLtMatmulPreference_t preference = nullptr;
    check(lt().preference_create(&preference), "a preference");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t what, auto value) { check(lt().preference_set(preference, what, &value, sizeof value), "a preference's attribute"); };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspace});
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(at.b));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(at.a));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(at.d));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(at.c));
    cublasLtMatmulHeuristicResult_t result = {};
    int count = 0;
    const cublasStatus_t status = lt().heuristic(handle, desc_, b_.get(), a_.get(), c_.get(), c_.get(), preference, 1, &result, &count);
    lt().preference_destroy(preference);
    found_ = status == CUBLAS_STATUS_SUCCESS && count == 1 && result.state == CUBLAS_STATUS_SUCCESS;
    if (status != CUBLAS_STATUS_SUCCESS && status != CUBLAS_STATUS_NOT_SUPPORTED) failed("the choice of an algorithm", status);
    algorithm_ = result.algo;
  }

  LayoutOf a_, b_, c_;
  cublasLtMatmulDesc_t desc_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_ = {};
  bool found_ = false;
};

class CublasLibraries : public Libraries {
 public:
  explicit CublasLibraries(bool tf32) : tf32_(tf32) {
    check(lt().create(&handle_), "opening the library");
    try {
      workspace_ = device_malloc(kWorkspace);
    } catch (...) {
      lt().destroy(handle_);
      throw;
    }
  }
  ~CublasLibraries() override {
    chosen_.clear();
    device_free(workspace_);
    lt().destroy(handle_);
  }

  std::string versions() const override {
    const size_t v = lt().version();
    return "cuBLASLt " + std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100);
  }

  void multiply(Stream& stream, const MatrixProduct& p, const void* a, const void* b, void* c, const void* bias, const void* added) override {
    if (p.m == 0 || p.n == 0 || p.batch == 0) return;
    if (!added) added = c;
    check_limits(p, a, b, c, bias, added);
    Key key{static_cast<int64_t>(p.type), static_cast<int64_t>(p.out), p.transpose_a, p.transpose_b, p.m, p.n, p.k, p.lda, p.ldb, p.ldc, p.batch, p.stride_a, p.stride_b, p.stride_c,
            static_cast<int64_t>(p.activation), p.bias, p.beta != 0, alignment_of(a) | alignment_of(b) << 10 | alignment_of(c) << 20, alignment_of(added)};
    auto& chosen = chosen_[key];
    if (!chosen) chosen = std::make_unique<Chosen>(handle_, p, tf32_, Chosen::Pointers{a, b, c, added, bias});
    if (chosen->found()) return chosen->run(handle_, p, a, b, c, bias, added, workspace_, static_cast<cudaStream_t>(stream.native()));
    if (p.type == DType::I8) return multiply_integers(stream, p, a, b, c, added);
    if (p.bias || p.activation != MatrixProduct::None) return multiply_and_finish(stream, p, a, b, c, bias, added);
    throw Error(ErrorKind::Unsupported, "cuBLASLt has no algorithm for a product of " + std::to_string(p.m) + " x " + std::to_string(p.k) + " and " + std::to_string(p.k) + " x " + std::to_string(p.n) +
                                            " in " + std::string(name_of(p.type)) + " on this device");
  }

 private:
  /// Where the library has no such epilogue: by a kernel of ours.
  void multiply_and_finish(Stream& stream, MatrixProduct p, const void* a, const void* b, void* c, const void* bias, const void* added) {
    if (p.ldc != p.n && p.m > 1) throw Error(ErrorKind::Unsupported, "cuBLASLt has no algorithm for a product with an epilogue on this device");
    Finish finish;
    if (p.bias) finish.bias = bias;
    finish.bias_row = 0;
    if (p.activation == MatrixProduct::Relu) finish.post = {PostActivation::Clip, 0, std::numeric_limits<float>::infinity()};
    if (p.activation == MatrixProduct::Gelu) finish.post.kind = PostActivation::GeluTanh;
    p.bias = false;
    p.activation = MatrixProduct::None;
    multiply(stream, p, a, b, c, nullptr, added);
    for (int64_t i = 0; i < p.batch; ++i) finish_rows(stream, p.out, static_cast<std::byte*>(c) + i * p.stride_c * static_cast<int64_t>(bits_of(p.out) / 8), p.m, p.n, finish);
  }

  using Key = std::array<int64_t, 19>;
  bool tf32_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<Key, std::unique_ptr<Chosen>> chosen_;
};

}  // namespace

std::unique_ptr<Libraries> Libraries::open(const DeviceFacts&, bool tf32) { return std::make_unique<CublasLibraries>(tf32); }

}  // namespace infopt::cuda

// cuSPARSELt, opened when it is needed; without its header at build time there is none. It takes the weights as its structured A[n,k] and the
// activations as Bᵀ, so that the row-major C[m,n] is its n × m result in column order.
#include "lib/runtime/cuda/sparse_library.h"

#include "lib/base/error.h"

#if defined(INFOPT_CUSPARSELT)
#include <cusparseLt.h>
#include <dlfcn.h>

#include <array>
#include <map>
#include <type_traits>

#if CUSPARSELT_VERSION < 502
#error "infopt needs cuSPARSELt 0.5.2 or later"
#endif

namespace infopt::cuda {
namespace {

/// The library's functions, loaded once a process.
struct Lt {
  decltype(&::cusparseLtInit) init;
  decltype(&::cusparseLtDestroy) destroy;
  decltype(&::cusparseLtGetVersion) version;
  decltype(&::cusparseLtDenseDescriptorInit) dense_init;
  decltype(&::cusparseLtStructuredDescriptorInit) structured_init;
  decltype(&::cusparseLtMatDescriptorDestroy) descriptor_destroy;
  decltype(&::cusparseLtMatmulDescriptorInit) matmul_init;
  decltype(&::cusparseLtMatmulDescSetAttribute) matmul_set;
  decltype(&::cusparseLtMatmulAlgSelectionInit) algorithm_init;
  decltype(&::cusparseLtMatmulPlanInit) plan_init;
  decltype(&::cusparseLtMatmulPlanDestroy) plan_destroy;
  decltype(&::cusparseLtMatmulGetWorkspace) workspace;
  decltype(&::cusparseLtMatmul) matmul;
  decltype(&::cusparseLtSpMMACompressedSize2) compressed_size;
  decltype(&::cusparseLtSpMMACompress2) compress;
  std::string missing;

  Lt() {
    void* library = dlopen("libcusparseLt.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      missing = "libcusparseLt.so.0 can't be loaded";
      return;
    }
    const auto load = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      if (!function) missing = std::string("cuSPARSELt has no ") + name;
    };
    load(init, "cusparseLtInit");
    load(destroy, "cusparseLtDestroy");
    load(version, "cusparseLtGetVersion");
    load(dense_init, "cusparseLtDenseDescriptorInit");
    load(structured_init, "cusparseLtStructuredDescriptorInit");
    load(descriptor_destroy, "cusparseLtMatDescriptorDestroy");
    load(matmul_init, "cusparseLtMatmulDescriptorInit");
    load(matmul_set, "cusparseLtMatmulDescSetAttribute");
    load(algorithm_init, "cusparseLtMatmulAlgSelectionInit");
    load(plan_init, "cusparseLtMatmulPlanInit");
    load(plan_destroy, "cusparseLtMatmulPlanDestroy");
    load(workspace, "cusparseLtMatmulGetWorkspace");
    load(matmul, "cusparseLtMatmul");
    load(compressed_size, "cusparseLtSpMMACompressedSize2");
    load(compress, "cusparseLtSpMMACompress2");
  }
};
const Lt& lt() {
  static const Lt functions;
  return functions;
}

void check(cusparseStatus_t status, const char* what) {
  if (status == CUSPARSE_STATUS_SUCCESS) return;
  const auto kind = [&] {
    switch (status) {
      case CUSPARSE_STATUS_ALLOC_FAILED:
      case CUSPARSE_STATUS_INSUFFICIENT_RESOURCES: return ErrorKind::Limit;
      case CUSPARSE_STATUS_EXECUTION_FAILED:
      case CUSPARSE_STATUS_INTERNAL_ERROR: return ErrorKind::Defect;
      default: return ErrorKind::Unsupported;  // a shape, type or device that this version doesn't take: dense products do
    }
  };
  throw Error(kind(), std::string("cuSPARSELt: ") + what + " failed with status " + std::to_string(static_cast<int>(status)));
}

cudaDataType type_of(DType t) {
  switch (t) {
    case DType::F16: return CUDA_R_16F;
    case DType::BF16: return CUDA_R_16BF;
    case DType::I8: return CUDA_R_8I;
    default: return CUDA_R_32I;
  }
}

constexpr uint32_t kAlignment = 16;

/// A matrix's description. Others point to it: it stays where it is made.
class Description {
 public:
  Description() = default;
  ~Description() {
    if (made_) lt().descriptor_destroy(&matrix_);
  }
  Description(const Description&) = delete;
  Description& operator=(const Description&) = delete;

  void dense(const cusparseLtHandle_t& handle, DType type, int64_t rows, int64_t columns, int64_t ld, cusparseOrder_t order) {
    check(lt().dense_init(&handle, &matrix_, rows, columns, ld, kAlignment, type_of(type), order), "a matrix");
    made_ = true;
  }
  void structured(const cusparseLtHandle_t& handle, DType type, int64_t n, int64_t k) {
    check(lt().structured_init(&handle, &matrix_, n, k, k, kAlignment, type_of(type), CUSPARSE_ORDER_ROW, CUSPARSELT_SPARSITY_50_PERCENT), "2:4 weights");
    made_ = true;
  }
  const cusparseLtMatDescriptor_t* get() const { return &matrix_; }

 private:
  cusparseLtMatDescriptor_t matrix_ = {};
  bool made_ = false;
};

/// A product's plan with its workspace, of its own because recorded graphs keep the address.
class Planned {
 public:
  Planned(const cusparseLtHandle_t& handle, const MatrixProduct& p, const void* bias) : handle_(handle) {
    const bool integer = p.type == DType::I8;
    weights_.structured(handle, p.type, p.n, p.k);
    x_.dense(handle, p.type, p.m, p.k, p.lda, CUSPARSE_ORDER_ROW);
    c_.dense(handle, p.out, p.n, p.m, p.ldc, CUSPARSE_ORDER_COL);
    check(lt().matmul_init(&handle, &matmul_, CUSPARSE_OPERATION_NON_TRANSPOSE, CUSPARSE_OPERATION_TRANSPOSE, weights_.get(), x_.get(), c_.get(), c_.get(), integer ? CUSPARSE_COMPUTE_32I : CUSPARSE_COMPUTE_32F), "a product's description");
    if (p.bias) check(lt().matmul_set(&handle, &matmul_, CUSPARSELT_MATMUL_BIAS_POINTER, &bias, sizeof bias), "a bias");
    const int on = 1;
    if (p.activation == MatrixProduct::Relu) check(lt().matmul_set(&handle, &matmul_, CUSPARSELT_MATMUL_ACTIVATION_RELU, &on, sizeof on), "ReLU");
    check(lt().algorithm_init(&handle, &algorithm_, &matmul_, CUSPARSELT_MATMUL_ALG_DEFAULT), "the choice of an algorithm");
    check(lt().plan_init(&handle, &plan_, &matmul_, &algorithm_), "a plan");
    try {
      size_t bytes = 0;
      check(lt().workspace(&handle, &plan_, &bytes), "asking for a workspace");
      if (bytes > 0) memory_ = device_malloc(bytes);
    } catch (...) {
      lt().plan_destroy(&plan_);
      throw;
    }
  }
  ~Planned() {
    if (memory_) device_free(memory_);
    lt().plan_destroy(&plan_);
  }
  Planned(const Planned&) = delete;
  Planned& operator=(const Planned&) = delete;

  void run(const MatrixProduct& p, const void* a, const void* compressed, void* c, const void* added, cudaStream_t stream) {
    check(lt().matmul(&handle_, &plan_, &p.alpha, compressed, a, &p.beta, added, c, memory_, &stream, 1), "a product");
  }

 private:
  const cusparseLtHandle_t& handle_;
  Description weights_, x_, c_;
  cusparseLtMatmulDescriptor_t matmul_ = {};
  cusparseLtMatmulAlgSelection_t algorithm_ = {};
  cusparseLtMatmulPlan_t plan_ = {};
  void* memory_ = nullptr;
};

class CusparseLt : public SparseLibrary {
 public:
  CusparseLt() { check(lt().init(&handle_), "opening the library"); }
  ~CusparseLt() override {
    plans_.clear();
    lt().destroy(&handle_);
  }

  std::string version() const override {
    int v = 0;
    check(lt().version(&handle_, &v), "asking for the version");
    return "cuSPARSELt " + std::to_string(v / 1000000) + "." + std::to_string(v / 100 % 10000) + "." + std::to_string(v % 100);
  }

  CompressedSize compressed_size(DType type, int64_t n, int64_t k) override {
    Description weights;
    weights.structured(handle_, type, n, k);
    CompressedSize size;
    check(lt().compressed_size(&handle_, weights.get(), &size.weights, &size.buffer), "asking for the size of compressed weights");
    return size;
  }

  void compress(Stream& stream, DType type, int64_t n, int64_t k, const void* dense, void* compressed, void* buffer) override {
    Description weights;
    weights.structured(handle_, type, n, k);
    constexpr int kIsFirstOperand = 1;
    check(lt().compress(&handle_, weights.get(), kIsFirstOperand, CUSPARSE_OPERATION_NON_TRANSPOSE, dense, compressed, buffer, static_cast<cudaStream_t>(stream.native())), "compressing weights");
  }

  void multiply(Stream& stream, const MatrixProduct& p, const void* a, const void* compressed, void* c, const void* bias, const void* added) override {
    if (p.m == 0 || p.n == 0) return;
    if (!added) added = c;
    check_sparse_limits(p, a, compressed, c, bias, added);
    const Key key{static_cast<int64_t>(p.type), p.m, p.n, p.k, p.lda, p.ldc, static_cast<int64_t>(p.activation), p.bias ? static_cast<int64_t>(reinterpret_cast<intptr_t>(bias)) : 0};
    auto& plan = plans_[key];
    if (!plan) plan = std::make_unique<Planned>(handle_, p, bias);
    plan->run(p, a, compressed, c, added, static_cast<cudaStream_t>(stream.native()));
  }

 private:
  using Key = std::array<int64_t, 8>;
  cusparseLtHandle_t handle_ = {};
  std::map<Key, std::unique_ptr<Planned>> plans_;
};

}  // namespace

std::string sparse_library_missing() { return lt().missing; }

std::unique_ptr<SparseLibrary> SparseLibrary::open() {
  if (!lt().missing.empty()) throw Error(ErrorKind::Unsupported, lt().missing);
  return std::make_unique<CusparseLt>();
}

}  // namespace infopt::cuda

#else

namespace infopt::cuda {

std::string sparse_library_missing() { return "built without cuSPARSELt"; }
std::unique_ptr<SparseLibrary> SparseLibrary::open() { throw Error(ErrorKind::Unsupported, sparse_library_missing()); }

}  // namespace infopt::cuda

#endif

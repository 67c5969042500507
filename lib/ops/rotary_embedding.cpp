// RotaryEmbedding: pairs of a head's elements turned by the angle of their position.
#include <algorithm>

#include "lib/base/share.h"
#include "lib/base/vector_math.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

/// Cosines or sines: the row for each entry of the batch and position.
struct Angles {
  Tensor tensor;  ///< float32
  int64_t width = 0, batch_stride = 0, step = 0;
  const float* row(int64_t b, int64_t s, const std::vector<int64_t>& ids) const {
    const int64_t at = b * batch_stride + s * step;
    return tensor.data<float>() + width * (ids.empty() ? at : ids[static_cast<size_t>(at)]);
  }
};

class RotaryEmbeddingKernel : public Kernel {
 public:
  explicit RotaryEmbeddingKernel(const Node& node) : pairs_(node.i("interleaved", 0) != 0), rotated_(node.i("rotary_embedding_dim", 0)), heads_(node.i("num_heads", 0)) {}

  void run(KernelContext& context) const override {
    const Tensor& given = context.in(0);
    const DType dtype = given.dtype();
    if (dtype != DType::F32 && dtype != DType::F16 && dtype != DType::BF16) unsupported("a rotation of " + std::string(name_of(dtype)));
    const bool wide = given.rank() == 4;
    if (!wide && (given.rank() != 3 || heads_ < 1 || given.dim(2) % heads_ != 0)) malformed("the shape " + to_string(given.shape()) + " isn't one of " + std::to_string(heads_) + " heads");
    const int64_t batch = given.dim(0), heads = wide ? given.dim(1) : heads_, length = given.dim(wide ? 2 : 1), depth = wide ? given.dim(3) : given.dim(2) / heads_;
    const int64_t rotated = rotated_ > 0 ? rotated_ : depth, half = rotated / 2;
    if (rotated % 2 != 0 || rotated > depth) malformed("a rotation of " + std::to_string(rotated) + " of " + std::to_string(depth) + " elements");
    const std::vector<int64_t> ids = position_ids(context);
    const Angles cos = angles(context, 1, batch, length, half), sin = angles(context, 2, batch, length, half);
    const bool narrow = dtype != DType::F32;
    Tensor wide_x = narrow ? cast(given, DType::F32) : Tensor();
    Tensor& y = narrow ? wide_x : context.out_reusing(0, 0, DType::F32, given.shape());
    const float* from = (narrow ? wide_x : given).data<float>();
    float* to = y.mutable_data<float>();
    constexpr int64_t kLeastElements = 1 << 14;
    share_work(batch * heads * length, std::max<int64_t>(1, kLeastElements / std::max<int64_t>(depth, 1)), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t b = r / (heads * length), s = wide ? r % length : r / heads % length;
        const float *c = cos.row(b, s, ids), *i = sin.row(b, s, ids), *row = from + r * depth;
        if (pairs_) rotate_pairs(row, to + r * depth, half, c, i);
        else rotate_halves(row, to + r * depth, half, c, i, c, i);
        if (row != to + r * depth) std::copy(row + rotated, row + depth, to + r * depth + rotated);
      }
    });
    if (narrow) context.set(0, cast(y, dtype));
  }

  std::string describe() const override { return pairs_ ? "float32 rotation of neighbours" : "float32 rotation of halves"; }

 private:
  static std::vector<int64_t> position_ids(KernelContext& context) {
    if (!context.has(3)) return {};
    std::vector<int64_t> ids = integers(context.in(3));
    for (size_t i : {1u, 2u})
      if (context.in(i).rank() != 2) malformed("a cache of shape " + to_string(context.in(i).shape()) + " for position_ids");
    const int64_t rows = std::min(context.in(1).dim(0), context.in(2).dim(0));
    for (int64_t& id : ids) id = normal_index(id, rows);
    return ids;
  }

  static Angles angles(KernelContext& context, size_t i, int64_t batch, int64_t length, int64_t half) {
    const Tensor& given = context.in(i);
    const Shape shape = context.has(3) ? context.in(3).shape() : Shape(given.shape().begin(), given.shape().begin() + std::min<int64_t>(2, given.rank()));
    const bool fits = shape.size() == 2 && (shape[0] == batch || shape[0] == 1) && (shape[1] == length || shape[1] == 1) && given.rank() == (context.has(3) ? 2 : 3) && given.dim(-1) >= half;
    if (!fits) malformed("a cache of shape " + to_string(given.shape()) + " for a batch of " + std::to_string(batch) + ", " + std::to_string(length) + " positions and rotations of " + std::to_string(half));
    return {cast(given, DType::F32), given.dim(-1), shape[0] == 1 ? 0 : shape[1], shape[1] == 1 ? 0 : int64_t{1}};
  }

  bool pairs_;
  int64_t rotated_, heads_;
};

}  // namespace

std::vector<OpDef> op_rotary_embedding() {
  return {{.name = "RotaryEmbedding", .since = 23, .cpu = [](const KernelSpec& s) -> std::unique_ptr<Kernel> { return std::make_unique<RotaryEmbeddingKernel>(s.node); }}};
}

}  // namespace infopt

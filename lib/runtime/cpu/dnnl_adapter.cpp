#include "lib/runtime/cpu/dnnl_adapter.h"

#include <map>
#include <mutex>
#include <numeric>
#include <tuple>

#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "lib/base/share.h"
#include "lib/runtime/cpu/dnnl_common.h"
#include "lib/runtime/cpu/few_rows.h"
#include "lib/runtime/cpu/float_depthwise.h"

namespace infopt::cpu {
namespace {

dnnl::primitive_attr attributes(const PostActivation& post, bool accumulate = false) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  dnnl::post_ops ops;
  if (accumulate) ops.append_sum(1.0f);
  if (post.kind == PostActivation::Clip) {
#if INFOPT_DNNL3
    if (post.low == 0 && post.high == std::numeric_limits<float>::infinity()) ops.append_eltwise(dnnl::algorithm::eltwise_relu, 0, 0);
    else ops.append_eltwise(dnnl::algorithm::eltwise_clip, post.low, post.high);
#else
    if (post.low == 0 && post.high == std::numeric_limits<float>::infinity()) ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0, 0);
    else ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_clip, post.low, post.high);
#endif
  }
  if (post.kind == PostActivation::HardSwish) {
#if INFOPT_DNNL3
    ops.append_eltwise(dnnl::algorithm::eltwise_hardswish, 1.0f / 6, 0.5f);
#else
    ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_hardswish, 0, 0);
#endif
  }
  for (const auto& [kind, algorithm] : {std::pair(PostActivation::Gelu, dnnl::algorithm::eltwise_gelu_erf), {PostActivation::GeluTanh, dnnl::algorithm::eltwise_gelu_tanh},
                                        {PostActivation::Silu, dnnl::algorithm::eltwise_swish}}) {
    if (post.kind != kind) continue;
#if INFOPT_DNNL3
    ops.append_eltwise(algorithm, 1.0f, 0);
#else
    ops.append_eltwise(1.0f, algorithm, 1.0f, 0);
#endif
  }
  if (ops.len() > 0) attr.set_post_ops(ops);
  return attr;
}

/// oneDNN's names for the memory of one run: made once and lent from run to run, since making them costs as much as a small convolution.
struct Arguments {
  memory src, weights, bias, dst, scratchpad;
};

/// Sets the handle where it is another: setting it may clear the padding behind.
void point(memory& m, const void* data) {
  if (m.get_data_handle() != data) m.set_data_handle(const_cast<void*>(data));
}

/// A primitive with what it needs to run besides the user's memory.
struct Compiled {
  dnnl::primitive primitive;
  memory::desc src, weights, bias, dst, scratchpad;
  memory::desc user_weights;
  int64_t panel_width = 0;  ///< of a product's weights that lie in panels of so many columns, else 0
  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<Arguments>> idle;

  std::unique_ptr<Arguments> take() const {
    {
      std::lock_guard lock(mutex);
      if (!idle.empty()) {
        auto a = std::move(idle.back());
        idle.pop_back();
        return a;
      }
    }
    const auto unset = [](const memory::desc& d) { return d.get_size() ? memory(d, engine(), DNNL_MEMORY_NONE) : memory(); };
    return std::make_unique<Arguments>(Arguments{unset(src), unset(weights), unset(bias), unset(dst), unset(scratchpad)});
  }
  void give(std::unique_ptr<Arguments> a) const {
    std::lock_guard lock(mutex);
    idle.push_back(std::move(a));
  }
};

void execute(const Compiled& c, const void* src, const void* weights, const void* bias, const void* dst) {
  auto a = c.take();
  point(a->src, src);
  point(a->weights, weights);
  point(a->dst, dst);
  dnnl_exec_arg_t args[5] = {{DNNL_ARG_SRC, a->src.get()}, {DNNL_ARG_WEIGHTS, a->weights.get()}, {DNNL_ARG_DST, a->dst.get()}};
  int count = 3;
  if (bias) {
    point(a->bias, bias);
    args[count++] = {DNNL_ARG_BIAS, a->bias.get()};
  }
  Tensor scratchpad;
  if (c.scratchpad.get_size() > 0) {
    scratchpad = Tensor(DType::U8, {static_cast<int64_t>(c.scratchpad.get_size())});
    point(a->scratchpad, scratchpad.raw());
    args[count++] = {DNNL_ARG_SCRATCHPAD, a->scratchpad.get()};
  }
  dnnl::error::wrap_c_api(dnnl_primitive_execute(c.primitive.get(), stream().get(), count, args), "the primitive failed");
  stream().wait();
  c.give(std::move(a));
}

Tensor reorder(const memory::desc& wanted, const memory::desc& given, const Tensor& given_weights) {
  const Tensor weights = given_weights.aligned_for_now();
  const auto memory_of_it = allocate_lasting(wanted.get_size());
  Tensor out(DType::U8, {static_cast<int64_t>(wanted.get_size())}, memory_of_it, memory_of_it.get());
  memory from = view(given, weights.raw()), to = view(wanted, out.raw());
  dnnl::reorder(from, to).execute(stream(), from, to);
  stream().wait();
  return out;
}

thread_local bool shapes_only = false, convolution_skipped = false;

/// Constant weights in the forms that primitives asked for: most nodes have one.
class PackedWeights {
 public:
  Tensor get(const Compiled& c, const Tensor& weights) {
    std::lock_guard lock(mutex_);
    for (const auto& [desc, tensor] : forms_)
      if (desc == c.weights) return tensor;
    Tensor made = reorder(c.weights, c.user_weights, weights);
    weights.release_pages();
    forms_.emplace_back(c.weights, made);
    return made;
  }

 private:
  std::mutex mutex_;
  std::vector<std::pair<memory::desc, Tensor>> forms_;
};

}  // namespace

struct Convolution::Impl {
  ConvGeometry geometry;
  std::mutex mutex;
  bool accumulate = false;
  std::map<std::tuple<Shape, bool, int>, std::shared_ptr<Compiled>> compiled;  ///< by input shape, bias, threads
  PackedWeights packed;
  std::once_flag depthwise_packed;
  Tensor depthwise_weights;

  void run_depthwise(const Tensor& src, const Tensor& weights, bool packable, const Tensor* bias, Tensor& dst);
  std::shared_ptr<Compiled> compile(const Tensor& src, const Tensor& weights, bool bias, const Tensor& dst);
};

Convolution::Convolution(ConvGeometry geometry, bool accumulate) : impl_(std::make_unique<Impl>()) {
  impl_->geometry = std::move(geometry);
  impl_->accumulate = accumulate;
}
Convolution::~Convolution() = default;

std::shared_ptr<Compiled> Convolution::Impl::compile(const Tensor& src, const Tensor& weights, bool with_bias, const Tensor& dst) {
  std::lock_guard lock(mutex);
  auto& entry = compiled[{src.shape(), with_bias, run_threads()}];
  if (entry) return entry;
  const size_t rank = src.shape().size();
  auto c = std::make_shared<Compiled>();
  Shape from = src.shape(), to = dst.shape(), kernel = weights.shape();
  ConvGeometry g = geometry;
  if (is_column(from, kernel, to, g)) {
    for (Shape* shape : {&from, &to, &kernel}) std::swap((*shape)[2], (*shape)[3]);
    for (auto* each : {&g.strides, &g.dilations, &g.pads_begin, &g.pads_end}) std::swap((*each)[0], (*each)[1]);
  }
  const memory::desc s(dims_of(from), memory::data_type::f32, channels_last(rank));
  const memory::desc d(dims_of(to), memory::data_type::f32, channels_last(rank));
  c->user_weights = weight_desc(kernel, g);
  const memory::desc w = any_of(c->user_weights);
  const memory::desc b = with_bias ? memory::desc({dst.dim(1)}, memory::data_type::f32, Tag::a) : memory::desc();
  memory::dims dilations;
  for (int64_t v : g.dilations) dilations.push_back(v - 1);
  const memory::dims strides(g.strides.begin(), g.strides.end());
  const memory::dims low(g.pads_begin.begin(), g.pads_begin.end()), high(g.pads_end.begin(), g.pads_end.end());
  const auto attr = attributes(g.post, accumulate);
  const auto kind = dnnl::prop_kind::forward_inference;
  auto take = [&](const auto& pd, auto primitive) {
    c->primitive = primitive;
    c->src = pd.src_desc();
    c->weights = pd.weights_desc();
    c->bias = b;
    c->dst = pd.dst_desc();
    c->scratchpad = pd.scratchpad_desc();
  };
  if (g.transposed) {
#if INFOPT_DNNL3
    const dnnl::deconvolution_forward::primitive_desc pd(engine(), kind, dnnl::algorithm::deconvolution_direct, s, w, b, d, strides, dilations, low, high, attr);
#else
    const dnnl::deconvolution_forward::desc desc(kind, dnnl::algorithm::deconvolution_direct, s, w, b, d, strides, dilations, low, high);
    const dnnl::deconvolution_forward::primitive_desc pd(desc, attr, engine());
#endif
    take(pd, dnnl::deconvolution_forward(pd));
  } else {
#if INFOPT_DNNL3
    const dnnl::convolution_forward::primitive_desc pd(engine(), kind, dnnl::algorithm::convolution_direct, s, w, b, d, strides, dilations, low, high, attr);
#else
    const dnnl::convolution_forward::desc desc(kind, dnnl::algorithm::convolution_direct, s, w, b, d, strides, dilations, low, high);
    const dnnl::convolution_forward::primitive_desc pd(desc, attr, engine());
#endif
    take(pd, dnnl::convolution_forward(pd));
  }
  entry = std::move(c);
  return entry;
}

void Convolution::Impl::run_depthwise(const Tensor& src, const Tensor& weights, bool packable, const Tensor* bias, Tensor& dst) {
  if (!packable) return depthwise(geometry, src, weights.shape(), pack_depthwise(weights), bias, accumulate, dst);
  std::call_once(depthwise_packed, [&] {
    depthwise_weights = pack_depthwise(weights);
    weights.release_pages();
  });
  depthwise(geometry, src, weights.shape(), depthwise_weights, bias, accumulate, dst);
}

ShapesOnly::ShapesOnly() { shapes_only = true, convolution_skipped = false; }
ShapesOnly::~ShapesOnly() { shapes_only = false; }
bool ShapesOnly::skipped() const { return convolution_skipped; }

void Convolution::run(const Tensor& src, const Tensor& weights, bool packable, const Tensor* bias, Tensor& dst) const {
  if (dst.size() == 0) return;
  if (shapes_only) {
    std::fill_n(dst.mutable_data<float>(), dst.size(), 0.0f);
    convolution_skipped = true;
    return;
  }
  if (is_plain_depthwise(impl_->geometry, weights.shape())) return impl_->run_depthwise(src, weights, packable, bias, dst);
  translate([&] {
    stream();
    const auto c = impl_->compile(src, weights, bias != nullptr, dst);
    Tensor w = weights;
    if (c->weights != c->user_weights) w = packable ? impl_->packed.get(*c, weights) : reorder(c->weights, c->user_weights, weights);
    execute(*c, src.raw(), w.raw(), bias ? bias->raw() : nullptr, dst.raw());
  });
}

struct Product::Impl {
  PostActivation post;
  std::mutex mutex;
  struct Key {
    Shape a, b, bias;
    bool ta, tb;
    int threads;
    auto operator<=>(const Key&) const = default;
  };
  std::map<Key, std::shared_ptr<Compiled>> compiled;
  PackedWeights packed;
};

namespace {

/// A row-major tensor, or one whose last two axes lie swapped: the shape given is the logical one.
memory::desc matrix_desc(Shape shape, bool transposed) {
  const size_t rank = shape.size();
  memory::dims strides(rank);
  Shape stored = shape;
  if (transposed) std::swap(stored[rank - 1], stored[rank - 2]);
  int64_t step = 1;
  for (size_t i = rank; i-- > 0;) {
    strides[i] = step;
    step *= stored[i];
  }
  if (transposed) std::swap(strides[rank - 1], strides[rank - 2]);
  return memory::desc(dims_of(shape), memory::data_type::f32, strides);
}

/// Columns of a panel where the weights, depth × columns, lie so that multiply_few_rows can read them.
int64_t panel_width_of(const memory::desc& weights, const Shape& shape) {
  for (const auto& [tag, width] : {std::pair(Tag::BA16a64b, 64), {Tag::BA16a48b, 48}, {Tag::BA16a32b, 32}, {Tag::BA16a16b, 16}})
    if (weights == memory::desc(dims_of(shape), memory::data_type::f32, tag)) return width;
  return 0;
}

}  // namespace

Product::Product(PostActivation post) : impl_(std::make_unique<Impl>()) { impl_->post = post; }
Product::~Product() = default;

void Product::run(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, bool b_packable, const Tensor* bias, Tensor& dst) const {
  if (dst.size() == 0) return;
  translate([&] {
    stream();
    Shape as = a.shape(), bs = b.shape();
    if (transpose_a) std::swap(as[as.size() - 1], as[as.size() - 2]);
    if (transpose_b) std::swap(bs[bs.size() - 1], bs[bs.size() - 2]);
    std::shared_ptr<Compiled> c;
    {
      std::lock_guard lock(impl_->mutex);
      auto& entry = impl_->compiled[{as, bs, bias ? bias->shape() : Shape{-1}, transpose_a, transpose_b, run_threads()}];
      if (!entry) {
        auto made = std::make_shared<Compiled>();
        const memory::desc ad = matrix_desc(as, transpose_a);
        made->user_weights = matrix_desc(bs, transpose_b);
        const memory::desc wd = b_packable && bs.size() == 2 ? any_of(made->user_weights) : made->user_weights;
        const memory::desc dd = matrix_desc(dst.shape(), false);
        const memory::desc bd = bias ? matrix_desc(bias->shape(), false) : memory::desc();
        const auto attr = attributes(impl_->post);
#if INFOPT_DNNL3
        const dnnl::matmul::primitive_desc pd = bias ? dnnl::matmul::primitive_desc(engine(), ad, wd, bd, dd, attr) : dnnl::matmul::primitive_desc(engine(), ad, wd, dd, attr);
#else
        const dnnl::matmul::desc desc = bias ? dnnl::matmul::desc(ad, wd, bd, dd) : dnnl::matmul::desc(ad, wd, dd);
        const dnnl::matmul::primitive_desc pd(desc, attr, engine());
#endif
        made->primitive = dnnl::matmul(pd);
        made->src = pd.src_desc();
        made->weights = pd.weights_desc();
        made->bias = bd;
        made->dst = pd.dst_desc();
        made->scratchpad = pd.scratchpad_desc();
        const bool few = as.size() == 2 && !transpose_a && made->weights != made->user_weights && (!bias || bias->shape() == Shape{1, bs[1]});
        if (const int64_t width = few ? panel_width_of(made->weights, bs) : 0; width > 0 && takes_few_rows(as[0], width)) made->panel_width = width;
        entry = std::move(made);
      }
      c = entry;
    }
    Tensor w = b;
    if (c->weights != c->user_weights) w = impl_->packed.get(*c, b);
    if (const int64_t width = c->panel_width) {
      const int64_t depth = (as[1] + 15) / 16 * 16;
      return multiply_few_rows({a.data<float>(), as[0], as[1], bs[1], {reinterpret_cast<const float*>(w.raw()), width, depth * width}, bias ? bias->data<float>() : nullptr, impl_->post, dst.mutable_data<float>()});
    }
    execute(*c, a.raw(), w.raw(), bias ? bias->raw() : nullptr, dst.raw());
  });
}

}  // namespace infopt::cpu

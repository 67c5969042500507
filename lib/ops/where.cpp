// Where: a choice between two operands by a third.
#include <cstring>
#include <string>

#include "lib/base/error.h"
#include "lib/base/simd.h"
#include "lib/ops/broadcast.h"
#include "lib/ops/elementwise.h"

namespace infopt {
namespace {

/// One row of n elements; steps are 0 or 1.
struct Row {
  int64_t n, condition_step, x_step, y_step;
};

template <class T> void choose(const bool* condition, const T* x, const T* y, T* out, const Row& r) {
  for (int64_t i = 0; i < r.n; ++i) out[i] = condition[i * r.condition_step] ? x[i * r.x_step] : y[i * r.y_step];
}

INFOPT_SIMD void choose_words(const uint8_t* condition, const uint32_t* x, const uint32_t* y, uint32_t* out, int64_t n, bool x_moves, bool y_moves) {
  if (x_moves && y_moves) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t a = x[i], b = y[i];
      out[i] = condition[i] ? a : b;
    }
  } else if (x_moves) {
    const uint32_t b = *y;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t a = x[i];
      out[i] = condition[i] ? a : b;
    }
  } else if (y_moves) {
    const uint32_t a = *x;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t b = y[i];
      out[i] = condition[i] ? a : b;
    }
  } else {
    const uint32_t a = *x, b = *y;
    for (int64_t i = 0; i < n; ++i) out[i] = condition[i] ? a : b;
  }
}

void choose_row(const bool* condition, const uint32_t* x, const uint32_t* y, uint32_t* out, const Row& r) {
  if (r.condition_step == 0) return choose(condition, x, y, out, r);
  choose_words(reinterpret_cast<const uint8_t*>(condition), x, y, out, r.n, r.x_step != 0, r.y_step != 0);
}
template <class T> void choose_row(const bool* condition, const T* x, const T* y, T* out, const Row& r) { choose(condition, x, y, out, r); }

/// The loop nest, with the elements copied as T.
template <class T> void choose_all(const bool* condition, const T* x, const T* y, T* out, const Loops& loops) {
  const size_t depth = loops.sizes.size(), last = depth - 1;
  const auto &cs = loops.strides[0], &xs = loops.strides[1], &ys = loops.strides[2];
  const Row row{loops.sizes[last], cs[last], xs[last], ys[last]};
  std::vector<int64_t> index(last, 0);
  int64_t c_at = 0, x_at = 0, y_at = 0;
  while (true) {
    choose_row(condition + c_at, x + x_at, y + y_at, out, row);
    out += row.n;
    size_t d = last;
    for (; d > 0; --d) {
      const size_t k = d - 1;
      c_at += cs[k], x_at += xs[k], y_at += ys[k];
      if (++index[k] < loops.sizes[k]) break;
      c_at -= cs[k] * index[k], x_at -= xs[k] * index[k], y_at -= ys[k] * index[k];
      index[k] = 0;
    }
    if (d == 0) return;
  }
}

struct Wide {
  uint64_t parts[2];
};

void run_where(KernelContext& context) {
  const Operands operands = collect_operands(context, 3);
  const Operand &condition = operands.list[0], &x = operands.list[1], &y = operands.list[2];
  const DType dtype = x.dtype;
  if (condition.dtype != DType::Bool) throw Error(ErrorKind::Malformed, "Where's condition is of " + std::string(name_of(condition.dtype)) + ", not bool");
  if (dtype != y.dtype) throw Error(ErrorKind::Malformed, "Where chooses between " + std::string(name_of(dtype)) + " and " + std::string(name_of(y.dtype)));
  const bool strings = dtype == DType::String;
  if (!strings && bits_of(dtype) < 8) refuse_type(dtype);
  const bool in_x = !strings && x.shape == operands.physical, in_y = !strings && y.shape == operands.physical;
  Tensor& out = in_x   ? context.out_reusing(0, 1, dtype, operands.shape, operands.layout)
                : in_y ? context.out_reusing(0, 2, dtype, operands.shape, operands.layout)
                       : context.out(0, dtype, operands.shape, operands.layout);
  if (out.size() == 0) return;
  const Loops loops = plan_loops(operands.physical, {condition.shape, x.shape, y.shape});
  const bool* c = reinterpret_cast<const bool*>(condition.data);
  const auto run = [&]<class T>(T* to) { choose_all(c, reinterpret_cast<const T*>(x.data), reinterpret_cast<const T*>(y.data), to, loops); };
  if (strings) return choose_all(c, context.in(1).strings().data(), context.in(2).strings().data(), out.mutable_strings().data(), loops);
  switch (bits_of(dtype)) {
    case 8: return run(reinterpret_cast<uint8_t*>(out.mutable_raw()));
    case 16: return run(reinterpret_cast<uint16_t*>(out.mutable_raw()));
    case 32: return run(reinterpret_cast<uint32_t*>(out.mutable_raw()));
    case 64: return run(reinterpret_cast<uint64_t*>(out.mutable_raw()));
    default: return run(reinterpret_cast<Wide*>(out.mutable_raw()));
  }
}

std::unique_ptr<Kernel> make_where(const KernelSpec&) { return make_kernel(run_where); }

}  // namespace

std::vector<OpDef> op_where() { return {{.name = "Where", .since = 9, .cpu = make_where}}; }

}  // namespace infopt

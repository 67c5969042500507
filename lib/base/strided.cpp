#include "lib/base/strided.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "lib/base/error.h"

namespace infopt {
namespace {

struct Axis {
  int64_t n, to, from;  // strides in elements
};

/// Drops axes of length 1, puts the axis with the smallest step in `to` last, and merges neighbours that are one in both places.
std::vector<Axis> simplify(const Shape& shape, const Shape& to, const Shape& from) {
  std::vector<Axis> axes;
  for (size_t i = 0; i < shape.size(); ++i)
    if (shape[i] != 1) axes.push_back({shape[i], to[i], from[i]});
  std::stable_sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.to > b.to; });
  std::vector<Axis> merged;
  for (const Axis& a : axes) {
    if (!merged.empty() && merged.back().to == a.to * a.n && merged.back().from == a.from * a.n) {
      merged.back() = {merged.back().n * a.n, a.to, a.from};
    } else {
      merged.push_back(a);
    }
  }
  if (merged.empty()) merged.push_back({1, 1, 1});
  return merged;
}

/// Short runs that are contiguous in both places become one larger element.
size_t widen(std::vector<Axis>& axes, size_t size) {
  const Axis last = axes.back();
  if (last.to != 1 || last.from != 1 || axes.size() < 2) return size;
  const size_t bytes = static_cast<size_t>(last.n) * size;
  if (last.n > 16 || (bytes != 2 && bytes != 4 && bytes != 8 && bytes != 16)) return size;
  for (size_t i = 0; i + 1 < axes.size(); ++i)
    if (axes[i].to % last.n || axes[i].from % last.n) return size;
  axes.pop_back();
  for (Axis& a : axes) a.to /= last.n, a.from /= last.n;
  return bytes;
}

template <class T>
void copy_row(const Axis& a, T* to, const T* from) {
  if (a.to == 1 && a.from == 1) {
    std::memcpy(to, from, static_cast<size_t>(a.n) * sizeof(T));
  } else if (a.to == 1 && a.from == 0) {
    const T value = *from;
    for (int64_t i = 0; i < a.n; ++i) to[i] = value;
  } else {
    for (int64_t i = 0; i < a.n; ++i) to[i * a.to] = from[i * a.from];
  }
}

// A square block of N vectors of N elements is transposed by log2 N rounds, each interleaving row k with row k + N/2.
template <class E>
struct Lanes {
  static constexpr int kCount = 16 / sizeof(E);
  typedef E Vector __attribute__((vector_size(16)));
};
template <class E, int... I>
typename Lanes<E>::Vector interleave(typename Lanes<E>::Vector a, typename Lanes<E>::Vector b, int from, std::integer_sequence<int, I...>) {
  constexpr int n = Lanes<E>::kCount;
  if (from == 0) return __builtin_shufflevector(a, b, (I % 2 ? n + I / 2 : I / 2)...);
  return __builtin_shufflevector(a, b, (I % 2 ? n + n / 2 + I / 2 : n / 2 + I / 2)...);
}
template <class E>
void transpose_block(const E* from, int64_t from_step, E* to, int64_t to_step) {
  using V = typename Lanes<E>::Vector;
  constexpr int n = Lanes<E>::kCount;
  constexpr auto lanes = std::make_integer_sequence<int, n>{};
  V a[n], b[n];
  for (int k = 0; k < n; ++k) std::memcpy(&a[k], from + k * from_step, 16);
  for (int round = 1; round < n; round *= 2) {
    for (int k = 0; k < n / 2; ++k) {
      b[2 * k] = interleave<E>(a[k], a[k + n / 2], 0, lanes);
      b[2 * k + 1] = interleave<E>(a[k], a[k + n / 2], 1, lanes);
    }
    std::memcpy(a, b, sizeof(a));
  }
  for (int k = 0; k < n; ++k) std::memcpy(to + k * to_step, &a[k], 16);
}

/// A tile of kSide × kSide elements, a cache line wide, by way of a buffer: whole lines are read and written at once, however
/// far apart they lie.
template <class T, class E>
void transpose_tile(const T* from, int64_t from_step, T* to, int64_t to_step) {
  constexpr int64_t kSide = 64 / sizeof(E), kBlock = Lanes<E>::kCount;
  alignas(64) E buffer[kSide * kSide];
  for (int64_t j = 0; j < kSide; j += kBlock)
    for (int64_t i = 0; i < kSide; i += kBlock)
      transpose_block<E>(reinterpret_cast<const E*>(from) + j * from_step + i, from_step, buffer + i * kSide + j, kSide);
  for (int64_t i = 0; i < kSide; ++i) std::memcpy(to + i * to_step, buffer + i * kSide, sizeof(E) * kSide);
}

/// rows × columns where `from` is contiguous along the rows' axis and `to` along the columns'.
template <class T>
void copy_transposed(const Axis& rows, const Axis& columns, T* to, const T* from) {
  using E = std::conditional_t<sizeof(T) == 1, uint8_t,
                               std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>>;
  constexpr int64_t kSide = 64 / sizeof(T);
  const auto plain = [&](int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    for (int64_t i = i0; i < i1; ++i)
      for (int64_t j = j0; j < j1; ++j) to[i * rows.to + j] = from[j * columns.from + i];
  };
  for (int64_t i = 0; i < rows.n; i += kSide) {
    const int64_t i1 = std::min(rows.n, i + kSide);
    for (int64_t j = 0; j < columns.n; j += kSide) {
      const int64_t j1 = std::min(columns.n, j + kSide);
      if constexpr (sizeof(T) <= 8) {
        if (i1 - i == kSide && j1 - j == kSide) {
          transpose_tile<T, E>(from + j * columns.from + i, columns.from, to + i * rows.to + j, rows.to);
          continue;
        }
      }
      int64_t i2 = i, j2 = j;  // the end of whole blocks
      if constexpr (sizeof(T) <= 8) {
        constexpr int64_t kBlock = Lanes<E>::kCount;
        i2 = i1 - (i1 - i) % kBlock, j2 = j1 - (j1 - j) % kBlock;
        for (int64_t y = i; y < i2; y += kBlock)
          for (int64_t x = j; x < j2; x += kBlock)
            transpose_block<E>(reinterpret_cast<const E*>(from + x * columns.from + y), columns.from, reinterpret_cast<E*>(to + y * rows.to + x), rows.to);
      }
      plain(i, i2, j2, j1);
      plain(i2, i1, j, j1);
    }
  }
}

template <class T>
void walk(const std::vector<Axis>& axes, size_t depth, bool transposed, T* to, const T* from) {
  const size_t left = axes.size() - depth;
  if (left == 1) return copy_row(axes[depth], to, from);
  if (left == 2 && transposed) return copy_transposed(axes[depth], axes[depth + 1], to, from);
  const Axis& a = axes[depth];
  for (int64_t i = 0; i < a.n; ++i) walk(axes, depth + 1, transposed, to + i * a.to, from + i * a.from);
}

Tensor iota(const Shape& shape, int64_t first) {
  Tensor t(DType::I64, shape);
  int64_t* p = t.mutable_data<int64_t>();
  for (int64_t i = 0; i < t.size(); ++i) p[i] = first + i;
  return t;
}

Tensor unpack(const Tensor& t, size_t bits) {
  Tensor u(DType::U8, t.shape());
  const auto* in = reinterpret_cast<const uint8_t*>(t.raw());
  uint8_t* out = u.mutable_data<uint8_t>();
  const int64_t per = static_cast<int64_t>(8 / bits);
  const unsigned mask = (1U << bits) - 1;
  for (int64_t i = 0; i < t.size(); ++i) out[i] = static_cast<uint8_t>((in[i / per] >> (static_cast<size_t>(i % per) * bits)) & mask);
  return u;
}

Tensor pack(const Tensor& u, DType dtype, size_t bits) {
  Tensor t = Tensor::zeros(dtype, u.shape());
  const uint8_t* in = u.data<uint8_t>();
  auto* out = reinterpret_cast<uint8_t*>(t.mutable_raw());
  const int64_t per = static_cast<int64_t>(8 / bits);
  for (int64_t i = 0; i < u.size(); ++i)
    out[i / per] = static_cast<uint8_t>(out[i / per] | (in[i] << (static_cast<size_t>(i % per) * bits)));
  return t;
}

}  // namespace

size_t element_bytes(DType dtype) {
  const size_t bits = bits_of(dtype);
  if (bits < 8) throw Error(ErrorKind::Unsupported, "elements of " + std::string(name_of(dtype)) + " can't be moved one by one here");
  return bits / 8;
}

Shape row_major_strides(const Shape& shape) {
  Shape strides(shape.size());
  int64_t step = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = step;
    step *= std::max<int64_t>(shape[i], 1);
  }
  return strides;
}

void copy_strided(size_t element_size, const Shape& shape, std::byte* to, const Shape& to_strides, const std::byte* from,
                  const Shape& from_strides) {
  if (element_count(shape) == 0) return;
  std::vector<Axis> axes = simplify(shape, to_strides, from_strides);
  const size_t size = widen(axes, element_size);
  bool transposed = false;
  const Axis last = axes.back();
  if (last.to == 1 && last.from != 1 && last.from != 0) {
    const auto unit = std::find_if(axes.begin(), axes.end() - 1, [](const Axis& a) { return a.from == 1; });
    if (unit != axes.end() - 1) {
      std::rotate(unit, unit + 1, axes.end() - 1);
      transposed = true;
    }
  }
  with_block(size, [&](auto block) {
    using T = decltype(block);
    walk(axes, 0, transposed, reinterpret_cast<T*>(to), reinterpret_cast<const T*>(from));
  });
}

Tensor gather_strided(const Tensor& x, const Shape& shape, int64_t offset, const Shape& strides) {
  const size_t size = element_bytes(x.dtype());
  Tensor y(x.dtype(), shape);
  if (y.size() == 0) return y;
  copy_strided(size, shape, y.mutable_raw(), row_major_strides(shape), x.raw() + static_cast<ptrdiff_t>(size) * offset, strides);
  return y;
}

void fill_elements(size_t element_size, std::byte* to, const std::byte* value, int64_t count) {
  with_block(element_size, [&](auto block) {
    using T = decltype(block);
    const T v = *reinterpret_cast<const T*>(value);
    std::fill_n(reinterpret_cast<T*>(to), count, v);
  });
}

Tensor move_elements(const std::vector<Tensor>& inputs, const std::function<Tensor(const std::vector<Tensor>&)>& move) {
  const DType dtype = inputs.at(0).dtype();
  for (const Tensor& t : inputs)
    if (t.dtype() != dtype)
      throw Error(ErrorKind::Malformed,
                  "inputs of " + std::string(name_of(dtype)) + " and " + std::string(name_of(t.dtype())) + " don't go together");
  const size_t bits = bits_of(dtype);
  if (bits >= 8) return move(inputs);
  std::vector<Tensor> codes;
  if (dtype != DType::String) {
    for (const Tensor& t : inputs) codes.push_back(unpack(t, bits));
    return pack(move(codes), dtype, bits);
  }
  std::vector<const std::string*> pool;
  for (const Tensor& t : inputs) {
    codes.push_back(iota(t.shape(), static_cast<int64_t>(pool.size())));
    for (const std::string& s : t.strings()) pool.push_back(&s);
  }
  const Tensor moved = move(codes);
  Tensor result(DType::String, moved.shape());
  const int64_t* code = moved.data<int64_t>();
  for (std::string& s : result.mutable_strings()) s = *pool[static_cast<size_t>(*code++)];
  return result;
}

}  // namespace infopt

#include "lib/runtime/cuda/moves.h"

#include <algorithm>

#include "lib/base/strided.h"
#include "lib/runtime/cuda/fault.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/launch.h"

namespace infopt::cuda {

bool& wide_indices() {
  static bool wide = false;
  return wide;
}
bool counts_wide(int64_t elements) { return wide_indices() || elements >= (int64_t{1} << 31) - (int64_t{1} << 24); }  // room for what a block counts past the end

namespace {

constexpr int kThreads = 256, kEach = 4, kLanes = 32, kRows = 8;

/// Four elements a thread, all read before the first is written.
template <class T, class I> __global__ void copy_places(const T* from, T* to, Places<I, 2> places, I count) {
  const I step = static_cast<I>(gridDim.x) * (kThreads * kEach);
  for (I first = static_cast<I>(blockIdx.x) * (kThreads * kEach) + threadIdx.x; first < count; first += step) {
    T value[kEach];
    int64_t at[kEach];
    for (int k = 0; k < kEach; ++k) {
      const I e = first + static_cast<I>(k * kThreads);
      if (e >= count) break;
      int64_t offset[2];
      places.of(e, offset);
      value[k] = from[offset[0]];
      at[k] = offset[1];
    }
    for (int k = 0; k < kEach; ++k)
      if (first + static_cast<I>(k * kThreads) < count) to[at[k]] = value[k];
  }
}

/// How many elements of a type make a word that a lane reads and writes at once.
template <class T> constexpr int kPack = sizeof(T) < 4 ? static_cast<int>(4 / sizeof(T)) : 1;

template <class T> INFOPT_DEVICE void read_word(const T* from, T* to) {
  if constexpr (kPack<T> > 1) {
    const uint32_t word = *reinterpret_cast<const uint32_t*>(from);
    for (unsigned k = 0; k < kPack<T>; ++k) to[k] = static_cast<T>(word >> (k * 8 * sizeof(T)));
  } else {
    *to = *from;
  }
}
/// The elements to be written lie `step` apart.
template <class T> INFOPT_DEVICE void write_word(T* to, const T* from, int step) {
  if constexpr (kPack<T> > 1) {
    uint32_t word = 0;
    for (unsigned k = 0; k < kPack<T>; ++k) word |= static_cast<uint32_t>(from[static_cast<int>(k) * step]) << (k * 8 * sizeof(T));
    *reinterpret_cast<uint32_t*>(to) = word;
  } else {
    *to = *from;
  }
}

struct Tiles {
  int64_t in = 0, in_to = 0;     ///< the axis along which `from` is dense, and its stride in `to`
  int64_t out = 0, out_from = 0; ///< the axis along which `to` is dense, and its stride in `from`
  bool packed_in = false, packed_out = false;  ///< whole words lie aligned
};

/// Tiles of 32 words by 32 words, through shared memory.
template <class T, class I> __global__ void copy_tiles(const T* from, T* to, Tiles t, Places<I, 2> outer, int64_t tiles, Divider<I> across, Divider<I> per_box) {
  constexpr int pack = kPack<T>, side = kLanes * pack;
  __shared__ T tile[side][side + 1];
  for (int64_t number = blockIdx.x; number < tiles; number += gridDim.x) {
    I rest = static_cast<I>(number);
    int64_t base[2];
    outer.of(divide_off(rest, per_box), base);
    const int64_t out0 = static_cast<int64_t>(divide_off(rest, across)) * side, in0 = static_cast<int64_t>(rest) * side;
    const int x = static_cast<int>(threadIdx.x) * pack;
    for (int i = static_cast<int>(threadIdx.y); i < side; i += kRows) {
      if (out0 + i >= t.out) break;
      const T* p = from + base[0] + (out0 + i) * t.out_from + in0 + x;
      if (t.packed_in && in0 + x + pack <= t.in) {
        read_word(p, &tile[i][x]);
      } else {
        for (int k = 0; k < pack; ++k)
          if (in0 + x + k < t.in) tile[i][x + k] = p[k];
      }
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.y); i < side; i += kRows) {
      if (in0 + i >= t.in) break;
      T* p = to + base[1] + (in0 + i) * t.in_to + out0 + x;
      if (t.packed_out && out0 + x + pack <= t.out) {
        write_word(p, &tile[x][i], side + 1);
      } else {
        for (int k = 0; k < pack; ++k)
          if (out0 + x + k < t.out) p[k] = tile[x + k][i];
      }
    }
    __syncthreads();
  }
}

template <class T> __global__ void fill_with(T* to, T value, int64_t count) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += static_cast<int64_t>(gridDim.x) * blockDim.x) to[i] = value;
}

struct Axis { int64_t n, to, from; };

/// Axes of `to` outermost first, without those of length 1, merged where both sides allow it.
std::vector<Axis> merged(const Shape& shape, const Shape& to, const Shape& from) {
  std::vector<Axis> axes, all;
  for (size_t d = 0; d < shape.size(); ++d)
    if (shape[d] != 1) all.push_back({shape[d], to[d], from[d]});
  std::stable_sort(all.begin(), all.end(), [](const Axis& a, const Axis& b) { return a.to > b.to; });
  for (const Axis& a : all) {
    if (!axes.empty() && axes.back().to == a.to * a.n && axes.back().from == a.from * a.n) axes.back() = {axes.back().n * a.n, a.to, a.from};
    else axes.push_back(a);
  }
  return axes;
}

bool divides(const std::byte* p, size_t by) { return reinterpret_cast<uintptr_t>(p) % by == 0; }

/// Runs that are dense on both sides become elements of up to 16 bytes. Gives how many elements are one now.
int64_t widen(std::vector<Axis>& axes, size_t bytes, const std::byte* to, const std::byte* from) {
  if (axes.empty() || axes.back().to != 1 || axes.back().from != 1) return 1;
  int64_t by = static_cast<int64_t>(16 / bytes);
  const auto fits = [&] {
    if (!divides(to, bytes * static_cast<size_t>(by)) || !divides(from, bytes * static_cast<size_t>(by)) || axes.back().n % by) return false;
    return std::all_of(axes.begin(), axes.end() - 1, [&](const Axis& a) { return a.to % by == 0 && a.from % by == 0; });
  };
  while (by > 1 && !fits()) by /= 2;
  for (Axis& a : axes)
    if (&a != &axes.back()) a.to /= by, a.from /= by;
  axes.back().n /= by;
  if (axes.back().n == 1) axes.pop_back();
  return by;
}

template <class T> void copy_axes(Stream& stream, const std::vector<Axis>& axes, std::byte* to, const std::byte* from);

/// More axes than a kernel takes: one copy for each place along the first.
template <class T> void copy_one_by_one(Stream& stream, const std::vector<Axis>& axes, std::byte* to, const std::byte* from) {
  const std::vector<Axis> rest(axes.begin() + 1, axes.end());
  for (int64_t i = 0; i < axes[0].n; ++i)
    copy_axes<T>(stream, rest, to + i * axes[0].to * static_cast<int64_t>(sizeof(T)), from + i * axes[0].from * static_cast<int64_t>(sizeof(T)));
}

template <class I> Places<I, 2> places_in(const std::vector<Axis>& axes) {
  Shape sizes;
  std::vector<std::vector<int64_t>> strides(2);
  for (const Axis& a : axes) sizes.push_back(a.n), strides[0].push_back(a.from), strides[1].push_back(a.to);
  return places_of<I, 2>(sizes, strides);
}

template <class T> void copy_by_tiles(Stream& stream, std::vector<Axis> axes, size_t dense, std::byte* to, const std::byte* from) {
  constexpr int64_t pack = kPack<T>, side = kLanes * pack;
  const Axis in = axes[dense], out = axes.back();
  axes.pop_back();
  axes.erase(axes.begin() + static_cast<ptrdiff_t>(dense));
  Tiles t{in.n, in.to, out.n, out.from, false, false};
  t.packed_in = divides(from, 4) && out.from % pack == 0 && std::all_of(axes.begin(), axes.end(), [](const Axis& a) { return a.from % pack == 0; });
  t.packed_out = divides(to, 4) && in.to % pack == 0 && std::all_of(axes.begin(), axes.end(), [](const Axis& a) { return a.to % pack == 0; });
  int64_t boxes = 1;
  for (const Axis& a : axes) boxes *= a.n;
  const int64_t across = blocks_for(in.n, side), per_box = across * blocks_for(out.n, side), tiles = boxes * per_box;
  with_index(tiles, [&](auto zero) {
    using I = decltype(zero);
    INFOPT_LAUNCH(stream, (copy_tiles<T, I>), {grid_for(tiles, 1)}, {kLanes, kRows}, 0, reinterpret_cast<const T*>(from), reinterpret_cast<T*>(to), t, places_in<I>(axes), tiles,
                  Divider<I>(across), Divider<I>(per_box));
  });
}

template <class T> void copy_axes(Stream& stream, const std::vector<Axis>& axes, std::byte* to, const std::byte* from) {
  if (axes.size() > static_cast<size_t>(kMostAxes)) return copy_one_by_one<T>(stream, axes, to, from);
  int64_t count = 1;
  for (const Axis& a : axes) count *= a.n;
  if (axes.empty() || (axes.size() == 1 && axes[0].to == 1 && axes[0].from == 1)) return stream.copy_on_device(to, from, static_cast<size_t>(count) * sizeof(T));
  if (axes.back().to == 1 && axes.back().from != 1 && axes.back().n >= 8)
    for (size_t d = 0; d + 1 < axes.size(); ++d)
      if (axes[d].from == 1 && axes[d].n >= 8) return copy_by_tiles<T>(stream, axes, d, to, from);
  with_index(count, [&](auto zero) {
    using I = decltype(zero);
    INFOPT_LAUNCH(stream, (copy_places<T, I>), {grid_for(count, kThreads * kEach)}, {kThreads}, 0, reinterpret_cast<const T*>(from), reinterpret_cast<T*>(to), places_in<I>(axes),
                  static_cast<I>(count));
  });
}

}  // namespace

void copy_box(Stream& stream, size_t bytes, const Shape& shape, std::byte* to, const Shape& to_strides, const std::byte* from, const Shape& from_strides) {
  if (element_count(shape) == 0) return;
  std::vector<Axis> axes = merged(shape, to_strides, from_strides);
  const size_t wide = bytes * static_cast<size_t>(widen(axes, bytes, to, from));
  with_element(wide, [&](auto zero) { copy_axes<decltype(zero)>(stream, axes, to, from); });
}

void fill_elements(Stream& stream, size_t bytes, std::byte* to, const std::byte* value, int64_t count) {
  if (count == 0) return;
  const size_t all = static_cast<size_t>(count) * bytes;
  if (std::all_of(value, value + bytes, [&](std::byte b) { return b == value[0]; })) return stream.fill(to, static_cast<int>(value[0]), all);
  Sixteen pattern;
  for (size_t i = 0; i < sizeof pattern; i += bytes) std::copy_n(value, bytes, reinterpret_cast<std::byte*>(&pattern) + i);
  const auto whole = static_cast<int64_t>(all / sizeof pattern);
  INFOPT_LAUNCH(stream, fill_with<Sixteen>, {grid_for(whole, kThreads)}, {kThreads}, 0, reinterpret_cast<Sixteen*>(to), pattern, whole);
  const auto rest = static_cast<int64_t>(all % sizeof pattern / bytes);
  if (rest == 0) return;
  with_element(bytes, [&](auto one) {
    using T = decltype(one);
    std::copy_n(value, sizeof one, reinterpret_cast<std::byte*>(&one));
    INFOPT_LAUNCH(stream, fill_with<T>, {1}, {kLanes}, 0, reinterpret_cast<T*>(to + whole * static_cast<int64_t>(sizeof pattern)), one, rest);
  });
}

Shape strides_in(const Shape& shape, Layout layout) {
  if (layout == Layout::Plain || shape.size() < 3) return row_major_strides(shape);
  Shape memory = shape;
  std::rotate(memory.begin() + 1, memory.begin() + 2, memory.end());
  Shape strides = row_major_strides(memory);
  std::rotate(strides.begin() + 1, strides.end() - 1, strides.end());
  return strides;
}

Tensor part_view(const Tensor& x, int64_t first, Shape shape) {
  const auto keep = std::make_shared<Tensor>(x);
  return Tensor(x.dtype(), std::move(shape), keep, x.raw() + first * static_cast<int64_t>(element_bytes(x.dtype())));
}

bool aligned_part(const Tensor& x, int64_t first) { return static_cast<size_t>(first) * element_bytes(x.dtype()) % 16 == 0; }

Tensor read_box(CudaContext& context, const Tensor& x, const Shape& shape, int64_t offset, const Shape& strides, Layout layout) {
  const Shape dense = strides_in(shape, layout);
  bool same = element_count(shape) > 0 && aligned_part(x, offset);
  for (size_t d = 0; d < shape.size(); ++d) same = same && (shape[d] == 1 || strides[d] == dense[d]);
  if (same) return part_view(x, offset, shape);
  Tensor y = context.scratch(x.dtype(), shape);
  const auto bytes = static_cast<int64_t>(element_bytes(x.dtype()));
  copy_box(context.stream(), element_bytes(x.dtype()), shape, y.mutable_raw(), dense, x.raw() + offset * bytes, strides);
  return y;
}

DType declared_type(const KernelSpec& spec, size_t input) {
  const ValueId id = spec.node.input(input);
  if (id == kNone) return DType::Undefined;
  const Tensor* constant = spec.constant(input);
  return constant ? constant->dtype() : spec.graph.value(id).type.dtype;
}

void need_whole_bytes(const KernelSpec& spec, std::initializer_list<size_t> inputs) {
  for (const size_t i : inputs) {
    const DType t = declared_type(spec, i);
    if (t != DType::Undefined && bits_of(t) < 8) throw Error(ErrorKind::Unsupported, "elements of " + std::string(name_of(t)) + " aren't moved on the device");
  }
}

void need_type(const KernelSpec& spec, size_t input, std::initializer_list<DType> types) {
  const DType t = declared_type(spec, input);
  if (t == DType::Undefined || std::find(types.begin(), types.end(), t) != types.end()) return;
  throw Error(ErrorKind::Unsupported, "the CUDA kernel doesn't take " + std::string(name_of(t)));
}

}  // namespace infopt::cuda

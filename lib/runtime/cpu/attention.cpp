#include "lib/runtime/cpu/attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "lib/base/float_math.h"
#include "lib/base/share.h"
#include "lib/base/simd.h"
#include "lib/base/tensor.h"
#include "lib/base/vector_math.h"
#include "lib/runtime/cpu/float_tiles.h"

namespace infopt::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kChunk = 192;     // queries of one item of work: a multiple of every tile's rows
constexpr int64_t kMostRows = 8;    // no tile has more
constexpr int64_t kFewQueries = 4;  // with so few, packing the keys takes longer than dot products with them as they lie
constexpr int64_t kKeyFloats = 1 << 15;  // of a block of keys: 128 kB, and as much of values
constexpr float kVanished = 105.0f;  // exp(−104) rounds to 0

/// Four keys' four elements to four elements' four keys.
inline void transpose_4x4(const float* from, int64_t from_row, float* to, int64_t to_row) {
  typedef float Four __attribute__((vector_size(16)));
  typedef int32_t Index __attribute__((vector_size(16)));
  Four a, b, c, d;
  std::memcpy(&a, from, 16);
  std::memcpy(&b, from + from_row, 16);
  std::memcpy(&c, from + 2 * from_row, 16);
  std::memcpy(&d, from + 3 * from_row, 16);
  const Index low{0, 4, 1, 5}, high{2, 6, 3, 7}, left{0, 1, 4, 5}, right{2, 3, 6, 7};
  const Four ab = __builtin_shuffle(a, b, low), cd = __builtin_shuffle(c, d, low);
  const Four ab2 = __builtin_shuffle(a, b, high), cd2 = __builtin_shuffle(c, d, high);
  a = __builtin_shuffle(ab, cd, left);
  b = __builtin_shuffle(ab, cd, right);
  c = __builtin_shuffle(ab2, cd2, left);
  d = __builtin_shuffle(ab2, cd2, right);
  std::memcpy(to, &a, 16);
  std::memcpy(to + to_row, &b, 16);
  std::memcpy(to + 2 * to_row, &c, 16);
  std::memcpy(to + 3 * to_row, &d, 16);
}

/// Up to `width` rows of `from` as columns of to[depth][width]; columns past them are 0.
void pack_panel(const FloatView& from, int64_t rows, int64_t depth, int64_t width, float* to) {
  if (rows < width)
    for (int64_t k = 0; k < depth; ++k) std::fill(to + k * width + rows, to + (k + 1) * width, 0.0f);
  if (from.row == 1) {
    for (int64_t k = 0; k < depth; ++k) std::copy_n(from.data + k * from.column, rows, to + k * width);
    return;
  }
  int64_t r = 0;
  if (from.column == 1)
    for (; r + 4 <= rows; r += 4) {
      int64_t k = 0;
      for (; k + 4 <= depth; k += 4) transpose_4x4(from.data + r * from.row + k, from.row, to + k * width + r, width);
      for (; k < depth; ++k)
        for (int64_t i = r; i < r + 4; ++i) to[k * width + i] = from.data[i * from.row + k];
    }
  for (; r < rows; ++r)
    for (int64_t k = 0; k < depth; ++k) to[k * width + r] = from.data[r * from.row + k * from.column];
}

/// The matrix with rows `width` apart; columns past its own are 0.
void copy_rows(const FloatView& from, int64_t rows, int64_t columns, int64_t width, float* to) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) to[r * width + c] = from.data[r * from.row + c * from.column];
    std::fill(to + r * width + columns, to + (r + 1) * width, 0.0f);
  }
}

typedef float Lanes __attribute__((vector_size(64)));
constexpr int64_t kLanes = 16;

INFOPT_INLINE void load(Lanes& v, const float* x) { std::memcpy(&v, x, sizeof v); }
INFOPT_INLINE void store(float* x, const Lanes& v) { std::memcpy(x, &v, sizeof v); }
INFOPT_INLINE float highest(const Lanes& v, float top) {
  for (int64_t j = 0; j < kLanes; ++j) top = v[j] > top ? v[j] : top;
  return top;
}

/// s = s·scale + mask, for a mask or none; returns the largest.
INFOPT_SIMD float scale_and_mask(float* s, int64_t n, float scale, const float* mask) {
  Lanes high = Lanes{} - kInfinity, v, m = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    load(v, s + i);
    if (mask) load(m, mask + i);
    v = v * scale + m;
    store(s + i, v);
    high = v > high ? v : high;
  }
  float top = -kInfinity;
  for (; i < n; ++i) {
    s[i] = mask ? s[i] * scale + mask[i] : s[i] * scale;
    top = s[i] > top ? s[i] : top;
  }
  return highest(high, top);
}
/// s[i] = a · row i.
INFOPT_SIMD void dot_rows(const float* a, const float* rows, int64_t stride, int64_t n, int64_t depth, float* s) {
  const int64_t whole = depth / kLanes * kLanes;
  for (int64_t i = 0; i < n; ++i, rows += stride) {
    Lanes sums = {}, x, y;
    for (int64_t c = 0; c < whole; c += kLanes) {
      load(x, a + c);
      load(y, rows + c);
      sums += x * y;
    }
    typedef float Half __attribute__((vector_size(32)));
    typedef float Quarter __attribute__((vector_size(16)));
    Half half[2];
    std::memcpy(half, &sums, sizeof sums);
    half[0] += half[1];
    Quarter quarter[2];
    std::memcpy(quarter, half, sizeof quarter);
    quarter[0] += quarter[1];
    float sum = (quarter[0][0] + quarter[0][2]) + (quarter[0][1] + quarter[0][3]);
    for (int64_t c = whole; c < depth; ++c) sum += a[c] * rows[c];
    s[i] = sum;
  }
}
/// s = cap·tanh(s·scale / cap).
INFOPT_SIMD void cap_softly(float* s, int64_t n, float scale, float cap) {
  const float inner = scale / cap;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) s[i] = cap * tanh_f(s[i] * inner);
}
/// All of one vector.
INFOPT_SIMD void exp_lanes(float* x) {
#pragma GCC ivdep
  for (int64_t i = 0; i < kLanes; ++i) x[i] = exp_f(x[i]);
}
INFOPT_SIMD void replace_masked(float* s, int64_t n, const bool* keep, bool keep_if, float instead) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) s[i] = keep[i] == keep_if ? s[i] : instead;
}
INFOPT_SIMD void extremes_of(const float* s, int64_t n, float& high, float& low) {
  Lanes most = Lanes{} - kInfinity, negative = Lanes{} - kInfinity, v;
  float top = -kInfinity, bottom = -kInfinity;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    load(v, s + i);
    most = v > most ? v : most;
    negative = -v > negative ? -v : negative;
  }
  for (; i < n; ++i) {
    top = s[i] > top ? s[i] : top;
    bottom = -s[i] > bottom ? -s[i] : bottom;
  }
  high = highest(most, top), low = -highest(negative, bottom);
}
/// No row is longer: the root of the sum of the squares that are the largest in their lane of columns. NaN where an element isn't finite.
INFOPT_SIMD float reach_of(const float* x, int64_t rows, int64_t stride, int64_t columns) {
  Lanes most = {}, odd = {}, v;
  float rest = 0, odd_rest = 0;
  for (int64_t r = 0; r < rows; ++r, x += stride) {
    Lanes squares = {};
    int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) {
      load(v, x + c);
      squares += v * v;
      odd += v - v;
    }
    float own = 0;
    for (; c < columns; ++c) {
      own += x[c] * x[c];
      odd_rest += x[c] - x[c];
    }
    rest = own > rest ? own : rest;
    most = squares > most ? squares : most;
  }
  most += odd;
  for (int64_t j = 0; j < kLanes; ++j) rest += most[j];
  return std::sqrt(rest + odd_rest);
}

constexpr int64_t kStep = 16;  // keys are left out by so many

/// The steps of keys, from `begin` to `end`, outside of which no element of the row is above the bound.
struct Range {
  int64_t begin, end;
  bool empty() const { return begin >= end; }
};
INFOPT_SIMD Range range_above(const float* row, int64_t n, float bound) {
  Range range{0, n};
  const auto low = [&](int64_t begin, int64_t end) {
    int above = 0;
    for (int64_t i = begin; i < end; ++i) above |= !(row[i] <= bound);
    return above == 0;
  };
  while (range.end > kStep && low((range.end - 1) / kStep * kStep, range.end)) range.end = (range.end - 1) / kStep * kStep;
  while (range.begin + kStep < range.end && low(range.begin, range.begin + kStep)) range.begin += kStep;
  return range;
}

/// The keys that the query may see.
Range bounds_of(const Attention& a, const AttentionHead& h, int64_t row) {
  Range range{0, a.keys};
  if (!a.bounded) return range;
  const int64_t at = h.position + (a.one_position ? 0 : row);
  if (a.left >= 0) range.begin = std::clamp<int64_t>(at - a.left, 0, a.keys);
  if (a.right >= 0) range.end = std::clamp<int64_t>(at < a.keys - a.right ? at + a.right + 1 : a.keys, 0, a.keys);
  range.end = std::clamp<int64_t>(h.known_keys, 0, range.end);
  return range;
}

/// What one item of work needs, in floats.
struct Sizes {
  int64_t panel, width, block;  ///< keys of a panel; the values' columns, filled up to whole vectors; keys that are packed at a time
  bool pack_queries, pack_keys, pack_values;
  int64_t keys, values, queries, scores, sums, weights;

  Sizes(const Attention& a, const AttentionHead& head, const FloatTiles& tiles) {
    panel = tiles.lanes * tiles.vectors;
    width = round_up(a.value_depth, tiles.lanes);
    const int64_t fit = kKeyFloats / std::max<int64_t>({1, a.depth, a.value_depth});
    block = std::min(round_up(std::max(fit, panel), panel), round_up(a.keys, panel));
    pack_queries = head.q.column != 1;
    pack_keys = a.queries > kFewQueries || head.k.column != 1;
    pack_values = width != a.value_depth || head.v.column != 1;
    keys = pack_keys ? block * round_up(a.depth, 16) : 0;
    values = pack_values ? block * round_up(width, 16) : 0;
    queries = pack_queries ? kChunk * a.depth : 0;
    scores = kMostRows * round_up(block, 16);
    sums = kChunk * width;
    weights = a.has_keep ? round_up(a.keys, 16) : 0;
  }
  int64_t total() const { return keys + values + queries + scores + sums + weights; }
  static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
};

class Worker {
 public:
  Worker(const Attention& a, const std::vector<AttentionHead>& heads, const FloatTiles& tiles, const Sizes& sizes, float* memory)
      : a_(a), heads_(heads), tiles_(tiles), z_(sizes), keys_(memory), values_(keys_ + z_.keys), queries_(values_ + z_.values), scores_(queries_ + z_.queries),
        sums_(scores_ + z_.scores), weights_(sums_ + z_.sums) {}

  /// `next`: the head that comes then, null where it is this one or none.
  void run(int64_t head, int64_t first, int64_t count, const AttentionHead* next) {
    const AttentionHead& h = heads_[static_cast<size_t>(head)];
    FloatView q = h.q;
    q.data += first * q.row;
    if (z_.pack_queries) {
      copy_rows(q, count, a_.depth, a_.depth, queries_);
      q = {queries_, a_.depth, 1};
    }
    std::fill_n(top_, count, -kInfinity);
    std::fill_n(total_, count, 0.0f);
    std::fill_n(sums_, count * z_.width, 0.0f);
    for (int64_t row = 0; row < count; ++row) ranges_[row] = bounds_[row] = bounds_of(a_, h, first + row);
    if (a_.has_mask != a_.has_keep) find_ranges(h, q, first, count);
    for (int64_t key = 0; key < a_.keys; key += z_.block) {
      keys_now_ = std::min(z_.block, a_.keys - key);
      packed_ = false;
      for (int64_t row = 0; row < count; row += tiles_.rows) {
        attend(h, q, first, row, std::min(tiles_.rows, count - row), key);
        if (key == 0 && next) fetch(*next, row, count);
      }
    }
    for (int64_t row = 0; row < count; ++row) {
      float* out = h.out + (first + row) * a_.out_row;
      if ((a_.masked_is_zero && total_[row] == 0) || (a_.nan_is_zero && !(total_[row] > 0))) std::fill_n(out, a_.value_depth, 0.0f);
      else scale_offset(sums_ + row * z_.width, out, a_.value_depth, 1.0f / total_[row], 0.0f);
    }
  }

 private:
  /// No score without its mask is further from 0 than |scale|·max |q|·max |k|: what lies lower than a row's highest mask by twice that has no
  /// weight.
  void find_ranges(const AttentionHead& h, const FloatView& q, int64_t first, int64_t count) {
    const bool same = !a_.bounded && (a_.has_mask ? a_.mask_row : a_.keep_row) == 0;
    const void* mask = a_.has_mask ? static_cast<const void*>(h.mask) : h.keep;
    const bool known = !a_.bounded && mask == known_mask_ && first == known_first_;
    if (!known) {
      spread_ = 0;
      for (int64_t row = 0; row < (same ? 1 : count); ++row) {
        const Range bounds = bounds_[row];
        if (bounds.empty()) continue;
        float low;
        extremes_of(row_weights(h, first + row, bounds) + bounds.begin, bounds.end - bounds.begin, high_[row], low);
        spread_ = std::max(spread_, high_[row] - low);
      }
      known_mask_ = mask, known_first_ = first;
    }
    if (!(spread_ > kVanished)) return;
    float most = kInfinity;  // unless looking at every key pays
    if (z_.pack_keys) {
      if (normed_keys_ != h.k.data) longest_ = reach(h.k, a_.keys), normed_keys_ = h.k.data;
      most = std::fabs(a_.scale) * longest_ * reach(q, count);
    }
    if (a_.softcap != 0 && std::fabs(a_.softcap) < most) most = std::fabs(a_.softcap);
    const float both = 2.002f * most + kVanished;
    for (int64_t row = 0; row < count; ++row) {
      const Range bounds = bounds_[row];
      if (bounds.empty()) continue;
      const float high = high_[same ? 0 : row];
      if (row > 0 && same) {
        ranges_[row] = ranges_[0];
        continue;
      }
      const Range above = range_above(row_weights(h, first + row, bounds) + bounds.begin, bounds.end - bounds.begin, high - both - 1e-6f * std::fabs(high));
      ranges_[row] = {bounds.begin + above.begin, bounds.begin + above.end};
    }
  }

  /// Of the keys within the bounds; a mask may have no others.
  const float* row_weights(const AttentionHead& h, int64_t row, const Range& bounds) {
    if (a_.has_mask) return h.mask + row * a_.mask_row;
    const bool* keep = h.keep + row * a_.keep_row;
    for (int64_t i = bounds.begin; i < bounds.end; ++i) weights_[i] = keep[i] == a_.keep_if ? 0.0f : a_.instead;
    return weights_;
  }

  /// Transposed, a matrix has its rows' elements in its columns: squares are then summed another way.
  float reach(const FloatView& x, int64_t rows) const {
    if (x.column == 1) return reach_of(x.data, rows, x.row, a_.depth);
    float total = 0;
    for (int64_t d = 0; d < a_.depth; ++d) {
      const float* column = x.data + d * x.column;
      float most = 0, odd = 0;
      for (int64_t r = 0; r < rows; ++r) {
        const float v = column[r * x.row];
        most = v * v > most ? v * v : most;
        odd += v - v;
      }
      total += most + odd;
    }
    return std::sqrt(total);
  }

  /// A share of the next head's rows into the cache: they lie far apart, so that the processor doesn't foresee them.
  void fetch(const AttentionHead& next, int64_t row, int64_t rows) const {
    const auto fetch_rows = [&](const FloatView& x, int64_t all, int64_t columns) {
      if (x.column != 1) return;
      for (int64_t r = row * all / rows, end = std::min(row + tiles_.rows, rows) * all / rows; r < end; ++r)
        for (int64_t c = 0; c < columns; c += 16) __builtin_prefetch(x.data + r * x.row + c);
    };
    fetch_rows(next.q, std::min(kChunk, a_.queries), a_.depth);
    fetch_rows(next.k, std::min(z_.block, a_.keys), a_.depth);
    fetch_rows(next.v, std::min(z_.block, a_.keys), a_.value_depth);
  }

  void pack(const AttentionHead& h, int64_t key) {
    FloatView v = h.v;
    v.data += key * v.row;
    if (h.k.data != packed_keys_ || h.v.data != packed_values_ || key != packed_key_) {
      for (int64_t at = 0; z_.pack_keys && at < keys_now_; at += z_.panel) {
        FloatView k = h.k;
        k.data += (key + at) * k.row;
        pack_panel(k, std::min(z_.panel, keys_now_ - at), a_.depth, z_.panel, keys_ + at * a_.depth);
      }
      if (z_.pack_values) copy_rows(v, keys_now_, a_.value_depth, z_.width, values_);
      packed_keys_ = h.k.data, packed_values_ = h.v.data;
      packed_key_ = key;
    }
    v_now_ = z_.pack_values ? FloatView{values_, z_.width, 1} : v;
    packed_ = true;
  }

  /// Rows [row, row + rows) of the item against a block of keys.
  void attend(const AttentionHead& h, const FloatView& q, int64_t first, int64_t row, int64_t rows, int64_t key) {
    int64_t begin = a_.keys, end = 0;
    for (int64_t r = row; r < row + rows; ++r)
      if (!ranges_[r].empty()) begin = std::min(begin, ranges_[r].begin), end = std::max(end, ranges_[r].end);
    begin = std::max<int64_t>(begin - key, 0) / kStep * kStep;
    end = std::min(end - key, keys_now_);
    if (begin >= end) return;
    if (!packed_) pack(h, key);
    if (z_.pack_keys) multiply_keys(q, row, rows, begin, end);
    else
      for (int64_t r = 0; r < rows; ++r) dot_rows(q.data + (row + r) * q.row, h.k.data + (key + begin) * h.k.row, h.k.row, end - begin, a_.depth, scores_ + r * z_.block + begin);
    float decay[kLanes] = {};
    for (int64_t r = 0; r < rows; ++r) {
      float* s = scores_ + r * z_.block + begin;
      const float block_top = finish_scores(h, s, first + row + r, bounds_[row + r], key + begin, end - begin);
      const float top = std::max(top_[row + r], block_top), shift = top == -kInfinity ? 0.0f : top;
      decay[r] = top_[row + r] - shift;
      block_totals_[r] = exp_and_sum(s, s, end - begin, shift);
      top_[row + r] = top;
    }
    exp_lanes(decay);
    for (int64_t r = 0; r < rows; ++r) total_[row + r] = total_[row + r] * decay[r] + block_totals_[r];
    for (int64_t c = 0; c < z_.width; c += z_.panel)
      tiles_.multiply({scores_ + begin, z_.block, rows, end - begin, v_now_.data + begin * v_now_.row + c, v_now_.row,
                       std::min(tiles_.vectors, (z_.width - c) / tiles_.lanes), sums_ + row * z_.width + c, z_.width, key == 0 ? nullptr : decay});
  }

  /// Scores of the rows with the packed keys [begin, end) of the block.
  void multiply_keys(const FloatView& q, int64_t row, int64_t rows, int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end;) {
      const int64_t in_panel = at % z_.panel, vectors = std::min(tiles_.vectors - in_panel / tiles_.lanes, (end - at + tiles_.lanes - 1) / tiles_.lanes);
      tiles_.multiply({q.data + row * q.row, q.row, rows, a_.depth, keys_ + (at - in_panel) * a_.depth + in_panel, z_.panel, vectors, scores_ + at, z_.block, nullptr});
      at += vectors * tiles_.lanes;
    }
  }

  /// Scale, cap, masks and bounds for scores from the given key on; returns the largest.
  float finish_scores(const AttentionHead& h, float* s, int64_t row, const Range& bounds, int64_t key, int64_t n) const {
    const int64_t begin = std::clamp<int64_t>(bounds.begin - key, 0, n), end = std::clamp<int64_t>(bounds.end - key, begin, n);
    std::fill(s, s + begin, -kInfinity);
    std::fill(s + end, s + n, -kInfinity);
    s += begin, key += begin, n = end - begin;
    float scale = a_.scale;
    if (a_.softcap != 0) {
      cap_softly(s, n, scale, a_.softcap);
      scale = 1.0f;
    }
    const bool* keep = a_.has_keep ? h.keep + row * a_.keep_row + key : nullptr;
    const float* mask = a_.has_mask ? h.mask + row * a_.mask_row + key : nullptr;
    if (!keep) return scale_and_mask(s, n, scale, mask);
    if (a_.keep_last) {
      scale_and_mask(s, n, scale, mask);
      mask = nullptr;
    } else {
      scale_and_mask(s, n, scale, nullptr);
    }
    replace_masked(s, n, keep, a_.keep_if, a_.instead);
    return scale_and_mask(s, n, 1.0f, mask);
  }

  const Attention& a_;
  const std::vector<AttentionHead>& heads_;
  const FloatTiles& tiles_;
  const Sizes& z_;
  float *keys_, *values_, *queries_, *scores_, *sums_, *weights_;
  int64_t keys_now_ = 0, packed_key_ = -1;
  const float *packed_keys_ = nullptr, *packed_values_ = nullptr, *normed_keys_ = nullptr;
  bool packed_ = false;
  const void* known_mask_ = nullptr;
  int64_t known_first_ = -1;
  float longest_ = 0, spread_ = 0, high_[kChunk], top_[kChunk], total_[kChunk], block_totals_[kMostRows];
  Range ranges_[kChunk], bounds_[kChunk];
  FloatView v_now_;
};

}  // namespace

void run_attention(const Attention& a, const std::vector<AttentionHead>& heads) {
  if (a.queries == 0 || a.value_depth == 0 || heads.empty()) return;
  if (a.keys == 0) {
    for (const AttentionHead& h : heads)
      for (int64_t r = 0; r < a.queries; ++r) std::fill_n(h.out + r * a.out_row, a.value_depth, 0.0f);
    return;
  }
  const FloatTiles& tiles = float_tiles();
  const Sizes sizes(a, heads[0], tiles);
  const int64_t chunks = (a.queries + kChunk - 1) / kChunk, items = static_cast<int64_t>(heads.size()) * chunks;
  const int64_t work = std::min(a.queries, kChunk) * a.keys * (a.depth + a.value_depth) + 1;
  constexpr int64_t kLeastWork = 1 << 19;
  Tensor memory(DType::F32, {run_threads(), sizes.total()});
  std::atomic<int64_t> workers = 0;
  share_work(items, std::max<int64_t>(1, kLeastWork / work), [&](int64_t begin, int64_t end) {
    Worker worker(a, heads, tiles, sizes, memory.mutable_data<float>() + workers++ * sizes.total());
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % chunks * kChunk;
      const AttentionHead* next = i + 1 < end && (i + 1) / chunks != i / chunks ? &heads[static_cast<size_t>((i + 1) / chunks)] : nullptr;
      worker.run(i / chunks, first, std::min(kChunk, a.queries - first), next);
    }
  });
}

}  // namespace infopt::cpu

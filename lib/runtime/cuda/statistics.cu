// Summaries of tensors: extremes, sums by channel and a histogram, from one read of the elements.
// A block takes tiles of elements into registers, sees whether its histogram's range still holds them (if not, bins merge in powers of two,
// which is exact), and counts; what blocks have is merged by a second kernel. Memory is the limit: a thread has sixteen elements on their way
// while it works on sixteen more, so two blocks keep 16 to 32 KiB a multiprocessor in flight (eight 16-bit elements at once would cost spilled
// registers); an element costs about 12 instructions, of which a third are issued on each pipe at most, beside 30 that an H100 could issue in
// the time that a float takes to arrive.
// Tensors go together, so that small ones don't cost two launches each.
#include <algorithm>

#include "lib/base/error.h"
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/lanes.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/summaries.h"

namespace infopt::cuda {
namespace {

constexpr int kThreads = 256, kUnroll = 4, kVector = 4, kBins = static_cast<int>(kSummaryBins);
constexpr int64_t kMostItems = 528, kLeastElements = 8192;  // two rounds of an H100's 264 blocks
enum Flag : uint32_t { kNan = 1, kPlus = 2, kMinus = 4 };

struct Item {
  float low, high;
  uint32_t flags;
  int exponent;
};

/// How the elements are given to blocks. Columns: the tensor is [rows, width], a thread keeps its `V` columns and steps down the rows; a unit is a
/// chunk of rows and a tile of columns. Planes: rows of `width` elements of one channel, a unit is `256 / lanes` rows, or a chunk of one.
struct Job {
  const void* x;
  int64_t n, width, rows;
  int64_t chunk, chunks;      ///< of rows (columns), of a row's elements (planes)
  int64_t tiles;              ///< of columns
  int64_t units, units_per_item, items;
  int lanes;
  bool columns, histogram, slots;
  // What blocks have: by item, and by slot (columns: chunk·width + column, planes: row·chunks + chunk).
  Item* item;
  uint32_t* counts;
  float *low, *high;
  double *sum, *square;
  SummaryHeader* result;
  uint32_t* result_counts;
  // Slots of a channel c: c·by_channel + i·by_outer + j·by_inner for i below `outer`, j below `inner`.
  int64_t channels, outer, inner, by_channel, by_outer, by_inner;
  float *channel_low, *channel_high;
  double *channel_sum, *channel_square;
};

/// The jobs of one launch: blocks [first[i], first[i + 1]) are job i's.
struct Group {
  int64_t first[kSummariesTogether + 1];
  int count;
  Job job[kSummariesTogether];
};
static_assert(sizeof(Group) <= 4096, "a kernel's parameters");

INFOPT_DEVICE int job_of(const Group& group, int64_t block) {
  int i = 0;
  while (i + 1 < group.count && block >= group.first[i + 1]) ++i;
  return i;
}

INFOPT_DEVICE int exponent_above(float extent) {
  const int e = static_cast<int>(__float_as_uint(extent) >> 23) - 126;  // extent < 2^e
  return e > kSummaryLeastExponent ? e : kSummaryLeastExponent;
}
INFOPT_DEVICE float power_of_two(int e) { return __uint_as_float(static_cast<uint32_t>(e + 127) << 23); }

template <class T, int V> struct Part {
  float low[V], high[V];
  double sum[V], square[V];
  INFOPT_DEVICE void clear() {
    INFOPT_UNROLL for (int j = 0; j < V; ++j) low[j] = __uint_as_float(0x7f800000u), high[j] = -low[j], sum[j] = square[j] = 0;
  }
};

/// The vectors that a thread looks at: the elements [begin, end) of them.
struct Walk {
  int64_t first, step, count, begin, end;
};

template <class T, int V> INFOPT_DEVICE uint32_t load(const T* x, const Walk& w, int64_t i, Lanes<T, V>& to) {
  const int64_t at = w.first + i * w.step;
  if (i < w.count && at >= w.begin && at + V <= w.end) {
    to = load_lanes<V>(x + at);
    return (1u << V) - 1;
  }
  uint32_t mask = 0;
  INFOPT_UNROLL for (int j = 0; j < V; ++j) {
    const bool there = i < w.count && at + j >= w.begin && at + j < w.end;
    to.v[j] = there ? x[at + j] : T{};
    mask |= static_cast<uint32_t>(there) << j;
  }
  return mask;
}

template <class T, int V> INFOPT_DEVICE uint32_t load_tile(const T* x, const Walk& w, int64_t tile, Lanes<T, V> (&to)[kUnroll]) {
  uint32_t mask = 0;
  INFOPT_UNROLL for (int u = 0; u < kUnroll; ++u) mask |= load(x, w, tile * kUnroll + u, to[u]) << (u * V);
  return mask;
}

/// What isn't finite is noted and left out.
template <class T, int V> INFOPT_DEVICE uint32_t leave_out(const Lanes<T, V> (&v)[kUnroll], uint32_t& mask) {
  uint32_t flags = 0;
  INFOPT_UNROLL for (int u = 0; u < kUnroll; ++u)
    INFOPT_UNROLL for (int j = 0; j < V; ++j) {
      const float f = load_float(v[u].v[j]);
      if (f - f == 0.0f || !(mask >> (u * V + j) & 1u)) continue;
      flags |= f != f ? kNan : f > 0 ? kPlus : kMinus;
      mask &= ~(1u << (u * V + j));
    }
  return flags;
}

template <class T, int V> INFOPT_DEVICE uint32_t take(const Lanes<T, V> (&v)[kUnroll], uint32_t& mask, uint32_t whole, bool sums, Part<T, V>& part) {
  float bad = 0;
  INFOPT_UNROLL for (int u = 0; u < kUnroll; ++u)
    INFOPT_UNROLL for (int j = 0; j < V; ++j) bad = __fmaf_rn(load_float(v[u].v[j]), 0.0f, bad);
  uint32_t flags = 0;
  if (bad != 0.0f) flags = leave_out<T, V>(v, mask);
  INFOPT_UNROLL for (int u = 0; u < kUnroll; ++u)
    INFOPT_UNROLL for (int j = 0; j < V; ++j) {
      if (mask != whole && !(mask >> (u * V + j) & 1u)) continue;
      const float f = load_float(v[u].v[j]);
      part.low[j] = fminf(part.low[j], f);
      part.high[j] = fmaxf(part.high[j], f);
    }
  if (!sums) return flags;
  INFOPT_UNROLL for (int u = 0; u < kUnroll; ++u)
    INFOPT_UNROLL for (int j = 0; j < V; ++j) {
      if (mask != whole && !(mask >> (u * V + j) & 1u)) continue;
      const double d = static_cast<double>(load_float(v[u].v[j]));
      part.sum[j] += d;
      part.square[j] += d * d;
    }
  return flags;
}

/// A block's histogram of 4,096 bins in shared memory.
struct Counter {
  uint32_t* bins;
  int exponent;
  float limit;
  uint32_t zeros;  ///< this thread's of the bin at 0, which half of all elements behind a Relu are in

  /// All threads: the largest magnitude that any has seen is `extent` of the block's.
  INFOPT_DEVICE void grow(float extent) {
    __shared__ float most[kThreads / 32];
    const float warp = warp_max(extent);
    if ((threadIdx.x & 31) == 0) most[threadIdx.x >> 5] = warp;
    __syncthreads();
    float all = 0;
    for (int w = 0; w < kThreads / 32; ++w) all = fmaxf(all, most[w]);
    const int wanted = exponent_above(all), by = wanted - exponent > 31 ? 31 : wanted - exponent;
    if (by > 0) {
      uint32_t mine[kBins / kThreads];
      INFOPT_UNROLL for (int i = 0; i < kBins / kThreads; ++i) mine[i] = bins[i * kThreads + static_cast<int>(threadIdx.x)];
      __syncthreads();
      INFOPT_UNROLL for (int i = 0; i < kBins / kThreads; ++i) bins[i * kThreads + static_cast<int>(threadIdx.x)] = 0;
      __syncthreads();
      INFOPT_UNROLL for (int i = 0; i < kBins / kThreads; ++i)
        if (mine[i]) atomicAdd(&bins[((i * kThreads + static_cast<int>(threadIdx.x) - kBins / 2) >> by) + kBins / 2], mine[i]);
      exponent = wanted;
      limit = power_of_two(wanted);
    }
    __syncthreads();
  }

  /// floor(f · 2^(11 − exponent)) + 2048, rounded down once, is left in the low bits.
  template <class T, int V> INFOPT_DEVICE void count(const Lanes<T, V> (&v)[kUnroll], uint32_t mask, uint32_t whole) {
    const float scale = power_of_two(11 - exponent);
    INFOPT_UNROLL for (int u = 0; u < kUnroll; ++u)
      INFOPT_UNROLL for (int j = 0; j < V; ++j) {
        if (mask != whole && !(mask >> (u * V + j) & 1u)) continue;
        const uint32_t bin = __float_as_uint(__fmaf_rd(load_float(v[u].v[j]), scale, 12582912.0f + kBins / 2)) & (kBins - 1);
        if (bin == kBins / 2) ++zeros;
        else atomicAdd(&bins[bin], 1u);
      }
  }
};

template <int V> INFOPT_DEVICE Walk walk_of(const Job& job, int64_t unit, int64_t& slot, int64_t& tiles) {
  const int t = static_cast<int>(threadIdx.x), lane = t % job.lanes, team = t / job.lanes, teams = kThreads / job.lanes;
  Walk w{0, 0, 0, 0, 0};
  slot = -1;
  if (job.columns) {
    const int64_t chunk = unit / job.tiles, column = (unit % job.tiles * job.lanes + lane) * V, row = chunk * job.chunk;
    const int64_t rows = job.rows - row < job.chunk ? job.rows - row : job.chunk;
    tiles = ((rows + teams - 1) / teams + kUnroll - 1) / kUnroll;
    if (team >= teams || column >= job.width) return w;
    w = {(row + team) * job.width + column, teams * job.width, (rows - team + teams - 1) / teams, 0, job.n};
    slot = chunk * job.width + column;
    return w;
  }
  const int64_t longest = (job.chunk + V - 1) / V + 1;
  tiles = ((longest + job.lanes - 1) / job.lanes + kUnroll - 1) / kUnroll;
  const int64_t row = unit / job.chunks * teams + team, chunk = unit % job.chunks;
  if (row >= job.rows) return w;
  w.begin = row * job.width + chunk * job.chunk;
  w.end = (chunk + 1) * job.chunk < job.width ? w.begin + job.chunk : (row + 1) * job.width;
  w.first = w.begin / V * V + lane * V;
  w.step = job.lanes * V;
  w.count = w.first < w.end ? (w.end - w.first + w.step - 1) / w.step : 0;
  slot = row * job.chunks + chunk;
  return w;
}

/// The threads of a team (a stretch of `lanes`, from 32 on) hold parts of one slot, or the teams of a block hold the same columns: joined in a
/// fixed order through shared memory.
template <class T, int V> INFOPT_DEVICE void put_slots(const Job& job, const Part<T, V>& part, int64_t slot) {
  __shared__ float low[kThreads], high[kThreads];
  __shared__ double sum[kThreads], square[kThreads];
  const int t = static_cast<int>(threadIdx.x), lanes = job.lanes, teams = kThreads / lanes;
  const auto put = [&](int64_t at) { job.low[at] = low[t], job.high[at] = high[t], job.sum[at] = sum[t], job.square[at] = square[t]; };
  const auto join = [&](int other) {
    low[t] = fminf(low[t], low[other]), high[t] = fmaxf(high[t], high[other]);
    sum[t] += sum[other], square[t] += square[other];
  };
  if (job.columns) {
    INFOPT_UNROLL for (int j = 0; j < V; ++j) {
      low[t] = part.low[j], high[t] = part.high[j], sum[t] = part.sum[j], square[t] = part.square[j];
      __syncthreads();
      if (t < lanes && slot >= 0) {
        for (int team = 1; team < teams; ++team) join(team * lanes + t);
        put(slot + j);
      }
      __syncthreads();
    }
    return;
  }
  low[t] = part.low[0], high[t] = part.high[0], sum[t] = part.sum[0], square[t] = part.square[0];
  INFOPT_UNROLL for (int j = 1; j < V; ++j) low[t] = fminf(low[t], part.low[j]), high[t] = fmaxf(high[t], part.high[j]), sum[t] += part.sum[j], square[t] += part.square[j];
  __syncthreads();
  for (int by = lanes / 2; by > 0; by /= 2) {
    if (t % lanes < by) join(t + by);
    __syncthreads();
  }
  if (t % lanes == 0 && slot >= 0) put(slot);
  __syncthreads();
}

template <class T, int V> __global__ void __launch_bounds__(kThreads, 2) summarize_items(const __grid_constant__ Group group) {
  const int which = job_of(group, blockIdx.x);
  const Job& job = group.job[which];
  const int64_t block = blockIdx.x - group.first[which];
  constexpr uint32_t kWhole = 0xffffffffu >> (32 - V * kUnroll);
  __shared__ uint32_t bins[kBins];
  __shared__ Item parts[kThreads / 32];
  const int t = static_cast<int>(threadIdx.x);
  const T* x = static_cast<const T*>(job.x);
  if (job.histogram) {
    for (int i = t; i < kBins; i += kThreads) bins[i] = 0;
    if (block == 0)
      for (int i = t; i < kBins; i += kThreads) job.result_counts[i] = 0;
    __syncthreads();
  }
  Counter counter{bins, kSummaryLeastExponent, power_of_two(kSummaryLeastExponent), 0};
  Item mine{__uint_as_float(0x7f800000u), -__uint_as_float(0x7f800000u), 0, 0};
  const int64_t first = block * job.units_per_item, last = first + job.units_per_item < job.units ? first + job.units_per_item : job.units;
  for (int64_t unit = first; unit < last; ++unit) {
    int64_t slot = 0, tiles = 0;
    const Walk w = walk_of<V>(job, unit, slot, tiles);
    Part<T, V> part;
    part.clear();
    Lanes<T, V> next[kUnroll];
    uint32_t next_mask = load_tile<T, V>(x, w, 0, next);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      Lanes<T, V> now[kUnroll];
      INFOPT_UNROLL for (int u = 0; u < kUnroll; ++u) now[u] = next[u];
      uint32_t mask = next_mask;
      if (tile + 1 < tiles) next_mask = load_tile<T, V>(x, w, tile + 1, next);
      mine.flags |= take<T, V>(now, mask, kWhole, job.slots, part);
      if (!job.histogram) continue;
      float extent = 0;
      INFOPT_UNROLL for (int j = 0; j < V; ++j)
        if (part.low[j] <= part.high[j]) extent = fmaxf(extent, fmaxf(-part.low[j], part.high[j]));
      if (__syncthreads_or(extent >= counter.limit)) counter.grow(extent);
      counter.count<T, V>(now, mask, kWhole);
    }
    INFOPT_UNROLL for (int j = 0; j < V; ++j) mine.low = fminf(mine.low, part.low[j]), mine.high = fmaxf(mine.high, part.high[j]);
    if (job.slots) put_slots<T, V>(job, part, slot);
  }
  if (counter.zeros) atomicAdd(&bins[kBins / 2], counter.zeros);
  mine.low = warp_min(mine.low), mine.high = warp_max(mine.high);
  for (int by = 16; by > 0; by /= 2) mine.flags |= __shfl_xor_sync(0xffffffffu, mine.flags, by);
  if ((t & 31) == 0) parts[t >> 5] = mine;
  __syncthreads();
  if (t == 0) {
    for (int w = 1; w < kThreads / 32; ++w) mine.low = fminf(mine.low, parts[w].low), mine.high = fmaxf(mine.high, parts[w].high), mine.flags |= parts[w].flags;
    mine.exponent = counter.exponent;
    job.item[block] = mine;
  }
  if (job.histogram)
    for (int i = t; i < kBins; i += kThreads) job.counts[block * kBins + i] = bins[i];
}

/// Channels: threads of a warp are neighbours, warps share what lies behind each.
INFOPT_DEVICE void merge_channels(const Job& job, int64_t block) {
  __shared__ float low[kThreads], high[kThreads];
  __shared__ double sum[kThreads], square[kThreads];
  const int t = static_cast<int>(threadIdx.x), lane = t & 31, warp = t >> 5, warps = kThreads / 32;
  const int64_t c = block * 32 + lane;
  low[t] = __uint_as_float(0x7f800000u), high[t] = -low[t], sum[t] = square[t] = 0;
  if (c < job.channels)
    for (int64_t k = warp; k < job.outer * job.inner; k += warps) {
      const int64_t at = c * job.by_channel + k / job.inner * job.by_outer + k % job.inner * job.by_inner;
      low[t] = fminf(low[t], job.low[at]), high[t] = fmaxf(high[t], job.high[at]);
      sum[t] += job.sum[at], square[t] += job.square[at];
    }
  __syncthreads();
  if (warp != 0 || c >= job.channels) return;
  for (int w = 1; w < warps; ++w) {
    low[t] = fminf(low[t], low[w * 32 + t]), high[t] = fmaxf(high[t], high[w * 32 + t]);
    sum[t] += sum[w * 32 + t], square[t] += square[w * 32 + t];
  }
  job.channel_low[c] = low[t] + 0.0f, job.channel_high[c] = high[t] + 0.0f, job.channel_sum[c] = sum[t], job.channel_square[c] = square[t];
}

__global__ void __launch_bounds__(kThreads) merge_items(const __grid_constant__ Group group) {
  const int which = job_of(group, blockIdx.x);
  const Job& job = group.job[which];
  const int64_t block = blockIdx.x - group.first[which];
  if (block >= job.items) return merge_channels(job, block - job.items);
  __shared__ Item parts[kThreads / 32];
  const int t = static_cast<int>(threadIdx.x);
  Item all{__uint_as_float(0x7f800000u), -__uint_as_float(0x7f800000u), 0, kSummaryLeastExponent};
  for (int64_t i = t; i < job.items; i += kThreads) {
    const Item one = job.item[i];
    all = {fminf(all.low, one.low), fmaxf(all.high, one.high), all.flags | one.flags, all.exponent > one.exponent ? all.exponent : one.exponent};
  }
  for (int by = 16; by > 0; by /= 2) {
    const int e = __shfl_xor_sync(0xffffffffu, all.exponent, by);
    all.flags |= __shfl_xor_sync(0xffffffffu, all.flags, by);
    all.exponent = e > all.exponent ? e : all.exponent;
  }
  all.low = warp_min(all.low), all.high = warp_max(all.high);
  if ((t & 31) == 0) parts[t >> 5] = all;
  __syncthreads();
  for (int w = 0; w < kThreads / 32; ++w) {
    const Item one = parts[w];
    all = {fminf(all.low, one.low), fmaxf(all.high, one.high), all.flags | one.flags, all.exponent > one.exponent ? all.exponent : one.exponent};
  }
  if (block == 0 && t == 0) *job.result = {all.low + 0.0f, all.high + 0.0f, all.flags, all.exponent};
  if (!job.histogram) return;
  const int apart = all.exponent - job.item[block].exponent, by = apart > 31 ? 31 : apart;
  for (int i = t; i < kBins; i += kThreads)
    if (const uint32_t count = job.counts[block * kBins + i]) atomicAdd(&job.result_counts[((i - kBins / 2) >> by) + kBins / 2], count);
}

void plan(Job& job, const ChannelView& view, int64_t vector) {
  const bool channels = view.channels > 0;
  job.channels = view.channels;
  job.slots = channels;
  job.columns = channels && view.inner == 1;
  job.chunks = job.tiles = 1;
  const int64_t blocks = std::clamp<int64_t>(job.n / kLeastElements, 1, kMostItems);
  if (job.columns) {
    int64_t copies = 1;  // rows of the tensor that make one whose length is a multiple of `vector`
    while (view.channels * copies % vector) copies *= 2;
    job.width = view.channels * copies;
    job.rows = blocks_for(job.n, job.width);
    const int64_t vectors = job.width / vector;
    job.tiles = blocks_for(vectors, kThreads);
    job.lanes = static_cast<int>(blocks_for(vectors, job.tiles));
    const int64_t teams = kThreads / job.lanes;
    job.chunk = std::max(blocks_for(job.rows, std::max<int64_t>(1, blocks / job.tiles)), std::min(job.rows, teams * kUnroll));
    job.chunks = blocks_for(job.rows, job.chunk);
    job.units = job.chunks * job.tiles;
    job.outer = job.chunks, job.by_outer = job.width, job.inner = copies, job.by_inner = view.channels, job.by_channel = 1;
  } else {
    job.rows = channels ? view.outer * view.channels : 1;
    job.width = job.n / job.rows;
    job.lanes = job.width <= 1024 ? 32 : kThreads;
    if (job.lanes == kThreads && job.rows < blocks) job.chunks = std::clamp<int64_t>(blocks / job.rows, 1, blocks_for(job.width, kLeastElements));
    job.chunk = blocks_for(job.width, job.chunks);
    job.chunk = blocks_for(job.chunk, vector) * vector;
    job.chunks = blocks_for(job.width, job.chunk);
    if (job.chunks == 1) job.chunk = job.width;
    job.units = blocks_for(job.rows, kThreads / job.lanes) * job.chunks;
    job.outer = view.outer, job.by_outer = view.channels * job.chunks, job.inner = job.chunks, job.by_inner = 1, job.by_channel = job.chunks;
  }
  job.units_per_item = blocks_for(job.units, blocks);
  job.items = blocks_for(job.units, job.units_per_item);
}

struct Planned {
  DType type;
  bool vectors;  ///< kVector elements at a time
  Job job;
};

Planned planned(const SummaryJob& of) {
  Planned p = {of.tensor.dtype(), reinterpret_cast<uintptr_t>(of.tensor.raw()) % 16 == 0, {}};
  Job& job = p.job;
  job.x = of.tensor.raw();
  job.n = of.tensor.size();
  job.histogram = of.places.counts != nullptr;
  job.result = of.places.header;
  job.result_counts = of.places.counts;
  job.channel_low = of.places.low, job.channel_high = of.places.high, job.channel_sum = of.places.sum, job.channel_square = of.places.square;
  plan(job, of.view, p.vectors ? kVector : 1);
  return p;
}

int64_t slots_of(const Job& job) { return !job.slots ? 0 : job.columns ? job.chunks * job.width : job.rows * job.chunks; }

/// Memory for what blocks have, of all jobs at once; the caller keeps it until the kernels are given to the stream.
std::vector<Tensor> place(CudaRun& run, std::vector<Planned>& all) {
  int64_t items = 0, counts = 0, slots = 0;
  for (const Planned& p : all) items += p.job.items, counts += p.job.histogram ? p.job.items * kBins : 0, slots += slots_of(p.job);
  std::vector<Tensor> kept;
  const auto memory = [&](DType type, int64_t size) { return kept.emplace_back(run.make(type, {size})).mutable_raw(); };
  auto* item = reinterpret_cast<Item*>(memory(DType::U8, items * static_cast<int64_t>(sizeof(Item))));
  auto* count = reinterpret_cast<uint32_t*>(memory(DType::I32, counts));
  auto* extreme = reinterpret_cast<float*>(memory(DType::F32, 2 * slots));
  auto* sum = reinterpret_cast<double*>(memory(DType::F64, 2 * slots));
  for (Planned& p : all) {
    const int64_t n = slots_of(p.job);
    p.job.item = item, p.job.counts = count;
    p.job.low = extreme, p.job.high = extreme + n, p.job.sum = sum, p.job.square = sum + n;
    item += p.job.items, count += p.job.histogram ? p.job.items * kBins : 0, extreme += 2 * n, sum += 2 * n;
  }
  return kept;
}

template <class Takes, class Blocks> Group group_of(const std::vector<Planned>& all, Takes takes, Blocks blocks) {
  Group group = {};
  for (const Planned& p : all) {
    if (!takes(p)) continue;
    group.job[group.count] = p.job;
    group.first[group.count + 1] = group.first[group.count] + blocks(p.job);
    ++group.count;
  }
  return group;
}

template <class T, int V> void launch(CudaRun& run, const std::vector<Planned>& all, DType type) {
  const Group group = group_of(all, [&](const Planned& p) { return p.type == type && p.vectors == (V > 1); }, [](const Job& j) { return j.items; });
  INFOPT_LAUNCH(run.stream(), (summarize_items<T, V>), group.first[group.count], kThreads, 0, group);
}

template <class T> void launch_type(CudaRun& run, const std::vector<Planned>& all, DType type) {
  launch<T, kVector>(run, all, type);
  launch<T, 1>(run, all, type);
}

}  // namespace

void summarize_together(CudaRun& run, const std::vector<SummaryJob>& jobs) {
  std::vector<Planned> all;
  for (const SummaryJob& j : jobs) all.push_back(planned(j));
  const std::vector<Tensor> kept = place(run, all);
  launch_type<float>(run, all, DType::F32);
  launch_type<half>(run, all, DType::F16);
  launch_type<bfloat16>(run, all, DType::BF16);
  const Group merged = group_of(all, [](const Planned&) { return true; }, [](const Job& j) { return j.items + blocks_for(j.channels, 32); });
  INFOPT_LAUNCH(run.stream(), merge_items, merged.first[merged.count], kThreads, 0, merged);
}

}  // namespace infopt::cuda

#include "lib/runtime/cuda/element.h"

#include <algorithm>
#include <limits>

#include "lib/base/error.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/element_math.h"
#include "lib/runtime/cuda/launch.h"

namespace infopt::cuda {
namespace {

constexpr int kThreads = 128;

/// Quotients of numbers below 2^31, by multiplication: Granlund and Montgomery's way, with 2^32·2^shift ≥ divisor.
struct Divider {
  uint32_t divisor, multiplier, shift;
};
Divider divider_for(int64_t divisor) {
  uint32_t shift = 0;
  while ((int64_t{1} << shift) < divisor) ++shift;
  const uint64_t multiplier = ((uint64_t{1} << 32) * ((uint64_t{1} << shift) - static_cast<uint64_t>(divisor))) / static_cast<uint64_t>(divisor) + 1;
  return {static_cast<uint32_t>(divisor), static_cast<uint32_t>(multiplier), shift};
}

/// How an operand's elements lie beside the result's.
enum class Lie : uint8_t {
  Flat,      ///< at the same place, four at once
  Scalar,    ///< one for all
  Rows,      ///< four at once, at a place to be computed
  RowScalar, ///< one for each four, at a place to be computed
  Anyhow     ///< each at a place to be computed
};

struct Source {
  const void* data;
  int64_t strides[kMostDims];  ///< innermost first, in elements
  DType dtype;
  Lie lie;
};

struct Program {
  Source sources[kMostOperands];
  Step steps[kMostSteps];
  int64_t sizes[kMostDims];  ///< innermost first
  Divider dividers[kMostDims];
  int64_t n;
  void* y;
  int depth, count;
  DType to;
  bool small;   ///< every place is below 2^31
  bool joined;  ///< a thread's eight elements lie side by side, else four and four
  bool saturate;
  uint8_t rounding;
};
static_assert(sizeof(Program) <= 4096);

INFOPT_DEVICE int64_t place_of(const Program& program, const Source& source, int64_t element) {
  int64_t place = 0;
  if (program.small) {
    uint32_t rest = static_cast<uint32_t>(element);
    for (int d = 0; d < program.depth; ++d) {
      const Divider by = program.dividers[d];
      const uint32_t quotient = (__umulhi(rest, by.multiplier) + rest) >> by.shift;
      place += static_cast<int64_t>(rest - quotient * by.divisor) * source.strides[d];
      rest = quotient;
    }
    return place;
  }
  for (int d = 0; d < program.depth; ++d) {
    const int64_t quotient = element / program.sizes[d];
    place += (element - quotient * program.sizes[d]) * source.strides[d];
    element = quotient;
  }
  return place;
}

/// Where a thread's two fours begin.
struct Places {
  int64_t first, second;
};

template <class T, class W> INFOPT_DEVICE void read_as(const Source& source, bool at_once, bool joined, const int64_t (&places)[kWide], W (&v)[kWide]) {
  const T* data = static_cast<const T*>(source.data);
  if (at_once) {
    if constexpr (sizeof(T) == 2) {
      if (joined) {
        const Eight<T> eight = *reinterpret_cast<const Eight<T>*>(data + places[0]);
        INFOPT_UNROLL for (int i = 0; i < kWide; ++i) v[i] = widen<W>(eight.v[i]);
        return;
      }
    }
    const Four<T> low = *reinterpret_cast<const Four<T>*>(data + places[0]), high = *reinterpret_cast<const Four<T>*>(data + places[4]);
    INFOPT_UNROLL for (int i = 0; i < 4; ++i) v[i] = widen<W>(low.v[i]), v[4 + i] = widen<W>(high.v[i]);
    return;
  }
  if (source.lie == Lie::Scalar) {
    const W value = widen<W>(data[0]);
    INFOPT_UNROLL for (int i = 0; i < kWide; ++i) v[i] = value;
    return;
  }
  if (source.lie == Lie::RowScalar) {
    const W low = places[0] < 0 ? W(0) : widen<W>(data[places[0]]), high = places[4] < 0 ? W(0) : widen<W>(data[places[4]]);
    INFOPT_UNROLL for (int i = 0; i < 4; ++i) v[i] = low, v[4 + i] = high;
    return;
  }
  INFOPT_UNROLL for (int i = 0; i < kWide; ++i) v[i] = places[i] < 0 ? W(0) : widen<W>(data[places[i]]);
}

/// Types without arithmetic of their own, which are seldom.
template <class W> INFOPT_DEVICE void read_bits(const Source& source, const int64_t (&places)[kWide], W (&v)[kWide]) {
  int64_t left[kWide];
  INFOPT_UNROLL for (int i = 0; i < kWide; ++i) left[i] = places[i];
  INFOPT_ROLL for (int k = 0; k < kWide; ++k) {
    const W value = left[0] < 0 ? W(0) : load_bits<W>(source.dtype, source.data, left[0]);
    INFOPT_UNROLL for (int i = 0; i + 1 < kWide; ++i) left[i] = left[i + 1], v[i] = v[i + 1];
    v[kWide - 1] = value;
  }
}

/// The operand's elements that stand beside the thread's; 0 beyond the end.
template <class W> INFOPT_DEVICE void read(const Program& program, const Source& source, Places at, W (&v)[kWide]) {
  const bool whole = at.second + 4 <= program.n;  // the first four come before the second
  const bool by_four = source.lie == Lie::Flat || source.lie == Lie::Rows;
  int64_t places[kWide] = {};
  if (source.lie == Lie::Scalar) {
    INFOPT_UNROLL for (int i = 0; i < kWide; ++i) places[i] = 0;
  } else if (source.lie == Lie::Flat) {
    INFOPT_UNROLL for (int i = 0; i < 4; ++i) {
      places[i] = at.first + i < program.n ? at.first + i : -1;
      places[4 + i] = at.second + i < program.n ? at.second + i : -1;
    }
  } else if (source.lie == Lie::Anyhow) {
    INFOPT_ROLL for (int k = 0; k < kWide; ++k) {
      const int64_t element = k < 4 ? at.first + k : at.second + (k - 4);
      const int64_t place = element < program.n ? place_of(program, source, element) : -1;
      INFOPT_UNROLL for (int i = 0; i + 1 < kWide; ++i) places[i] = places[i + 1];
      places[kWide - 1] = place;
    }
  } else {  // a four lies in one row
    const int64_t low = at.first < program.n ? place_of(program, source, at.first) : -1;
    const int64_t high = at.second < program.n ? place_of(program, source, at.second) : -1;
    const int step = source.lie == Lie::Rows ? 1 : 0;
    INFOPT_UNROLL for (int i = 0; i < 4; ++i) {
      places[i] = low < 0 ? -1 : low + i * step;
      places[4 + i] = high < 0 ? -1 : high + i * step;
    }
  }
  const bool at_once = whole && by_four;
  switch (source.dtype) {
    case DType::F32: return read_as<float>(source, at_once, program.joined, places, v);
    case DType::F16: return read_as<half>(source, at_once, program.joined, places, v);
    case DType::BF16: return read_as<bfloat16>(source, at_once, program.joined, places, v);
    case DType::F64: return read_as<double>(source, at_once, program.joined, places, v);
    case DType::I64: return read_as<int64_t>(source, at_once, program.joined, places, v);
    case DType::I32: return read_as<int32_t>(source, at_once, program.joined, places, v);
    case DType::U8: case DType::Bool: return read_as<uint8_t>(source, at_once, program.joined, places, v);
    case DType::I8: return read_as<int8_t>(source, at_once, program.joined, places, v);
    case DType::U16: return read_as<uint16_t>(source, at_once, program.joined, places, v);
    case DType::I16: return read_as<int16_t>(source, at_once, program.joined, places, v);
    case DType::U32: return read_as<uint32_t>(source, at_once, program.joined, places, v);
    case DType::U64: return read_as<uint64_t>(source, at_once, program.joined, places, v);
    default: return read_bits(source, places, v);
  }
}

template <class W> INFOPT_DEVICE void write(const Program& program, Places at, const W (&v)[kWide]) {
  if (program.joined && (program.to == DType::F16 || program.to == DType::BF16) && at.second + 4 <= program.n) {
    Eight<uint16_t> eight;
    INFOPT_UNROLL for (int i = 0; i < kWide; ++i) eight.v[i] = program.to == DType::F16 ? narrow<half>(v[i]).bits : narrow<bfloat16>(v[i]).bits;
    *reinterpret_cast<Eight<uint16_t>*>(static_cast<uint16_t*>(program.y) + at.first) = eight;
    return;
  }
  const W low[4] = {v[0], v[1], v[2], v[3]}, high[4] = {v[4], v[5], v[6], v[7]};
  const int64_t left = program.n - at.first, right = program.n - at.second;
  if (left > 0) store_some(program.to, program.y, at.first, low, left < 4 ? static_cast<int>(left) : 4, program.saturate, program.rounding);
  if (right > 0) store_some(program.to, program.y, at.second, high, right < 4 ? static_cast<int>(right) : 4, program.saturate, program.rounding);
}

/// Registers are chosen by comparing, so that none of them is an array in memory.
template <class W, size_t R> INFOPT_DEVICE void recall(const W (&registers)[R][kWide], int index, W (&v)[kWide]) {
  INFOPT_UNROLL for (int r = 0; r < static_cast<int>(R); ++r)
    if (index == r) {
      INFOPT_UNROLL for (int i = 0; i < kWide; ++i) v[i] = registers[r][i];
    }
}
template <class W, size_t R> INFOPT_DEVICE void keep(W (&registers)[R][kWide], int index, const W (&v)[kWide]) {
  INFOPT_UNROLL for (int r = 0; r < static_cast<int>(R); ++r)
    if (index == r) {
      INFOPT_UNROLL for (int i = 0; i < kWide; ++i) registers[r][i] = v[i];
    }
}

/// The steps for each tile of elements, with R registers besides the accumulator.
template <class W, int R> __global__ void __launch_bounds__(kThreads) run_program(const __grid_constant__ Program program) {
  const int64_t tiles = (program.n + kThreads * kWide - 1) / (kThreads * kWide), lane = threadIdx.x;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t begin = tile * kThreads * kWide;
    const Places at = program.joined ? Places{begin + lane * 8, begin + lane * 8 + 4} : Places{begin + lane * 4, begin + (kThreads + lane) * 4};
    W a[kWide] = {}, registers[R ? R : 1][kWide] = {};
    for (int s = 0; s < program.count; ++s) {
      const Step& step = program.steps[s];
      if (step.fn == Fn::Load && step.from == From::Operand && step.keep == kNowhere) {
        read(program, program.sources[step.index], at, a);  // no copy, which would wait for it
        continue;
      }
      W b[kWide] = {}, c[kWide] = {};
      switch (step.from) {
        case From::Operand: read(program, program.sources[step.index], at, b); break;
        case From::Register:
          if constexpr (R > 0) recall(registers, step.index, b);
          break;
        case From::Number:
          INFOPT_UNROLL for (int i = 0; i < kWide; ++i) b[i] = static_cast<W>(step.p);
          break;
        case From::Same:
          INFOPT_UNROLL for (int i = 0; i < kWide; ++i) b[i] = a[i];
          break;
        default: break;
      }
      if constexpr (R > 0) {
        if (step.fn == Fn::Hold) {
          keep(registers, step.keep, b);
          continue;
        }
        if (step.fn == Fn::Select) recall(registers, step.third, c);
      }
      if (step.swapped) {
        INFOPT_UNROLL for (int i = 0; i < kWide; ++i) {
          const W v = a[i];
          a[i] = b[i], b[i] = v;
        }
      }
      apply(step.fn, static_cast<W>(step.p), static_cast<W>(step.q), a, b, c);
      if constexpr (R > 0)
        if (step.keep != kNowhere) keep(registers, step.keep, a);
    }
    write(program, at, a);
  }
}

bool aligned(const void* data, int64_t elements, size_t bits) {
  const uint64_t to = std::min<uint64_t>(16, static_cast<uint64_t>(elements) * bits / 8);
  return to == 0 || reinterpret_cast<uintptr_t>(data) % to == 0;
}

Lie lie_of(const Source& s, const Program& program, bool result_shape, int64_t elements) {
  if (std::all_of(s.strides, s.strides + program.depth, [](int64_t stride) { return stride == 0; })) return Lie::Scalar;
  const size_t bits = bits_of(s.dtype);
  const int64_t group = program.joined && bits == 16 ? 8 : 4;
  const bool whole_bytes = bits >= 8, ready = aligned(s.data, group, bits);
  if (result_shape) return ready || !whole_bytes ? Lie::Flat : Lie::Anyhow;
  // With an inner size that the group divides, every group lies in one row, and every row begins on a multiple of it.
  if (elements % 4 || program.sizes[0] % 4) return Lie::Anyhow;
  if (s.strides[0] == 0) return Lie::RowScalar;
  return s.strides[0] == 1 && ready && program.sizes[0] % group == 0 ? Lie::Rows : Lie::Anyhow;
}

void require_known(DType t) {
  if (t == DType::Undefined || t == DType::String || t == DType::C64 || t == DType::C128) refuse_type(t);
}

template <class W, int R> void start(Stream& stream, const Program& program) {
  INFOPT_LAUNCH(stream, (run_program<W, R>), std::min<int64_t>(blocks_for(program.n, kThreads * kWide), 1 << 30), kThreads, 0, program);
}

}  // namespace

Compute compute_for(DType dtype) {
  if (dtype == DType::F64) return Compute::Double;
  if (dtype == DType::U64) return Compute::Unsigned;
  return is_float(dtype) ? Compute::Float : Compute::Integer;
}

void run_elements(Stream& stream, Compute compute, const std::vector<Step>& steps, const std::vector<Operand>& operands, const Shape& result, DType to, void* y, StoreOptions options) {
  if (operands.size() > kMostOperands || steps.size() > kMostSteps) throw Error(ErrorKind::Unsupported, "an elementwise kernel of " + std::to_string(operands.size()) + " operands");
  Program program = {};
  program.n = element_count(result);
  if (program.n == 0) return;
  std::vector<Shape> shapes;
  for (const Operand& o : operands) shapes.push_back(o.shape);
  const Loops loops = plan_loops(result, shapes);
  program.depth = static_cast<int>(loops.sizes.size());
  if (program.depth > kMostDims) throw Error(ErrorKind::Unsupported, "operands that broadcast by turns over " + std::to_string(program.depth) + " axes");
  program.small = program.n <= std::numeric_limits<int32_t>::max() - kThreads * kWide;
  for (int d = 0; d < program.depth; ++d) {
    program.sizes[d] = loops.sizes[static_cast<size_t>(program.depth - 1 - d)];
    if (program.small) program.dividers[d] = divider_for(program.sizes[d]);
  }
  program.y = y;
  program.to = to;
  require_known(to);
  program.joined = bits_of(to) <= 16 && std::all_of(operands.begin(), operands.end(), [](const Operand& o) { return bits_of(o.dtype) <= 16 || element_count(o.shape) == 1; });
  program.saturate = options.saturate;
  program.rounding = options.rounding;
  for (size_t k = 0; k < operands.size(); ++k) {
    Source& s = program.sources[k];
    s.data = operands[k].data;
    s.dtype = operands[k].dtype;
    require_known(s.dtype);
    for (int d = 0; d < program.depth; ++d) s.strides[d] = loops.strides[k][static_cast<size_t>(program.depth - 1 - d)];
    s.lie = lie_of(s, program, element_count(operands[k].shape) == program.n, program.n);
  }
  program.count = static_cast<int>(steps.size());
  std::copy(steps.begin(), steps.end(), program.steps);
  int registers = 0;
  for (const Step& step : steps)
    if (step.keep != kNowhere) registers = std::max(registers, step.keep + 1);
  if (registers > (compute == Compute::Float ? kMostRegisters : 1)) throw Error(ErrorKind::Defect, "an elementwise kernel of " + std::to_string(registers) + " registers");
  switch (compute) {
    case Compute::Float: return registers == 0 ? start<float, 0>(stream, program) : registers <= 2 ? start<float, 2>(stream, program)
                                                   : start<float, kMostRegisters>(stream, program);
    case Compute::Double: return start<double, 1>(stream, program);
    case Compute::Integer: return start<int64_t, 1>(stream, program);
    case Compute::Unsigned: return start<uint64_t, 1>(stream, program);
  }
}

}  // namespace infopt::cuda

// What the reductions of every device share: which axes go, and where the elements that become one lie.
#pragma once
#include <algorithm>
#include <optional>
#include <vector>

#include "lib/ops/elementwise.h"

namespace infopt {

enum class ReduceKind { Sum, Mean, Max, Min, Prod, L1, L2, SumSquare, LogSum, LogSumExp };

/// Where the reduced elements lie: dimensions from the outermost, neighbours of one kind merged.
struct ReduceView {
  struct Part {
    int64_t size, stride;
  };
  std::vector<Part> kept, reduced;
  int64_t kept_count = 1, reduced_count = 1;
  int64_t outer = 1, n = 1, inner = 1;
  bool simple = false;  ///< it is [outer, n, inner], reduced along n
};

inline ReduceView reduce_view(const Shape& shape, const std::vector<bool>& reduce) {
  ReduceView v;
  int64_t stride = 1;
  std::vector<bool> kinds;  // of the merged parts, innermost first
  for (size_t d = shape.size(); d-- > 0;) {
    auto& parts = reduce[d] ? v.reduced : v.kept;
    (reduce[d] ? v.reduced_count : v.kept_count) *= shape[d];
    if (shape[d] != 1) {
      if (!kinds.empty() && kinds.back() == reduce[d]) {
        parts.back().size *= shape[d];
      } else {
        parts.push_back({shape[d], stride});
        kinds.push_back(reduce[d]);
      }
    }
    stride *= shape[d];
  }
  std::reverse(v.kept.begin(), v.kept.end());
  std::reverse(v.reduced.begin(), v.reduced.end());
  v.simple = v.reduced.size() == 1;
  if (v.simple) {
    v.n = v.reduced[0].size;
    v.inner = v.reduced[0].stride;
    v.outer = v.inner ? v.kept_count / v.inner : 0;
  }
  return v;
}

struct ReduceOptions {
  ReduceKind kind;
  bool keep_dims, no_op_without_axes;
  std::optional<std::vector<int64_t>> axes;  ///< of the attribute
};

/// Axes are an attribute before opset 18 (ReduceSum: 13), an input from then on.
inline ReduceOptions reduce_options(const KernelSpec& spec, ReduceKind kind) {
  ReduceOptions options{kind, spec.node.i("keepdims", 1) != 0, spec.node.i("noop_with_empty_axes", 0) != 0, std::nullopt};
  const bool by_attribute = spec.opset < (kind == ReduceKind::Sum ? 13 : 18);
  if (by_attribute) options.axes = spec.node.ints("axes"), options.no_op_without_axes = false;
  return options;
}

inline std::vector<bool> reduced_axes(KernelContext& context, const ReduceOptions& options, int64_t rank) {
  std::vector<int64_t> axes;
  if (options.axes) axes = *options.axes;
  else if (context.has(1)) axes = to_vector<int64_t>(context.host(1));
  std::vector<bool> reduce(static_cast<size_t>(rank), axes.empty() && !options.no_op_without_axes);
  for (int64_t axis : axes) reduce[static_cast<size_t>(normalize_axis(axis, rank))] = true;
  return reduce;
}

inline Shape reduced_shape(const Shape& shape, const std::vector<bool>& reduce, bool keep_dims) {
  Shape result;
  for (size_t d = 0; d < reduce.size(); ++d) {
    if (!reduce[d]) result.push_back(shape[d]);
    else if (keep_dims) result.push_back(1);
  }
  return result;
}

/// Channels-last data reduced over all of space, and only that: the channels' columns.
inline bool over_space(const std::vector<bool>& reduce) {
  return reduce.size() >= 3 && !reduce[0] && !reduce[1] && std::all_of(reduce.begin() + 2, reduce.end(), [](bool r) { return r; });
}

}  // namespace infopt

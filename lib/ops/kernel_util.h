// Small things that many kernels need: errors, axes, lists of integers from inputs.
#pragma once
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/ops/op.h"

namespace infopt {

[[noreturn]] inline void malformed(const std::string& message) { throw Error(ErrorKind::Malformed, message); }
[[noreturn]] inline void unsupported(const std::string& message) { throw Error(ErrorKind::Unsupported, message); }

/// An axis in [-rank, rank) made non-negative. Throws Error(Malformed) where it lies outside.
inline int64_t normal_axis(int64_t axis, int64_t rank) {
  if (axis < -rank || axis >= rank) malformed("axis " + std::to_string(axis) + " is out of range for rank " + std::to_string(rank));
  return axis < 0 ? axis + rank : axis;
}
/// The same for several axes, which must be distinct.
inline std::vector<int64_t> normal_axes(std::vector<int64_t> axes, int64_t rank) {
  std::vector<bool> seen(static_cast<size_t>(rank));
  for (int64_t& axis : axes) {
    axis = normal_axis(axis, rank);
    if (seen[static_cast<size_t>(axis)]) malformed("axis " + std::to_string(axis) + " is given twice");
    seen[static_cast<size_t>(axis)] = true;
  }
  return axes;
}
/// An index in [-n, n) made non-negative. Throws Error(Malformed) where it lies outside.
inline int64_t normal_index(int64_t index, int64_t n) {
  if (index < -n || index >= n) malformed("index " + std::to_string(index) + " is out of range for a dimension of " + std::to_string(n));
  return index < 0 ? index + n : index;
}
/// The elements of an integer input (sizes, axes, indices).
inline std::vector<int64_t> integers(const Tensor& t) {
  if (!is_integer(t.dtype())) malformed("an input should hold integers, not " + std::string(name_of(t.dtype())));
  return to_vector<int64_t>(t);
}
/// Product of shape[begin, end).
inline int64_t product(const Shape& shape, size_t begin, size_t end) {
  int64_t p = 1;
  for (size_t i = begin; i < end; ++i) p *= shape[i];
  return p;
}
/// The number, among the node's bodies, of the one in that attribute. Throws Error(Malformed) where there is none.
inline size_t body_index(const Node& node, std::string_view name) {
  size_t index = 0;
  for (const Attribute& a : node.attributes) {
    const bool graph = std::holds_alternative<std::shared_ptr<Graph>>(a.data);
    if (a.name == name && graph) return index;
    if (graph) ++index;
    if (const auto* many = std::get_if<std::vector<std::shared_ptr<Graph>>>(&a.data)) index += many->size();
  }
  malformed(node.op + " has no " + std::string(name));
}
inline size_t at(int64_t i) { return static_cast<size_t>(i); }

}  // namespace infopt

// Indices that lie in the device's memory: checked where they are used.
#pragma once
#include <algorithm>
#include <type_traits>

#include "lib/base/error.h"
#include "lib/base/strided.h"
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/moves.h"

namespace infopt::cuda {

/// An index in [-n, n) made non-negative; -1, and a complaint, where it lies outside.
template <class K> INFOPT_DEVICE int64_t index_within(K index, int64_t n, Complaint* complaint) {
  const int64_t i = static_cast<int64_t>(index) < 0 ? static_cast<int64_t>(index) + n : static_cast<int64_t>(index);
  if (i >= 0 && i < n) return i;
  *complaint = Complaint::Index;
  return -1;
}

/// GatherND's and ScatterND's tuples: each is a row of the data.
struct TupleRows {
  int width = 0;
  int64_t dims[kMostAxes] = {};  ///< of the data, those that a tuple counts
  int64_t per_batch = 1;         ///< tuples of one place of the batch

  template <class K> INFOPT_DEVICE int64_t row(const K* indices, int64_t tuple, Complaint* complaint) const {
    int64_t at = tuple / per_batch;
    for (int d = 0; d < width; ++d) {
      const int64_t i = index_within(indices[tuple * width + d], dims[d], complaint);
      if (i < 0) return -1;
      at = at * dims[d] + i;
    }
    return at;
  }
};
/// Throws Error(Malformed) where the indices' shape doesn't fit.
TupleRows tuple_rows(const Shape& data, const Shape& indices, size_t batch_dims);
/// For GatherElements and ScatterElements; throws Error(Malformed) where the indices' shape doesn't fit.
void need_indices_within(const Shape& data, const Shape& indices, int64_t axis);

/// Calls f with the indices as a pointer to int32_t or int64_t.
template <class F> void with_indices(const Tensor& indices, F&& f) {
  if (indices.dtype() == DType::I32) return f(indices.data<int32_t>());
  if (indices.dtype() == DType::I64) return f(indices.data<int64_t>());
  throw Error(ErrorKind::Malformed, "indices of " + std::string(name_of(indices.dtype())));
}

/// Runs of `inner` elements go from one tensor to another: calls f(element, inner, count) with an element of up to 16 bytes, how many of these
/// a run has, and how many `to` has.
template <class F> void with_runs(const Tensor& from, const Tensor& to, int64_t inner, F&& f) {
  const size_t bytes = element_bytes(from.dtype()), run = bytes * static_cast<size_t>(inner);
  size_t wide = std::max<size_t>(bytes, 16);
  while (wide > bytes && (run % wide || reinterpret_cast<uintptr_t>(from.raw()) % wide || reinterpret_cast<uintptr_t>(to.raw()) % wide)) wide /= 2;
  with_element(wide, [&](auto zero) { f(zero, static_cast<int64_t>(run / wide), static_cast<int64_t>(to.bytes() / wide)); });
}

}  // namespace infopt::cuda

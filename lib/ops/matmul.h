// Shapes of a matrix product by NumPy's rules.
#pragma once
#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/tensor.h"

namespace infopt {

/// A and B brought to one rank with the leading axes of both, and the result's shape in that rank and as ONNX wants it.
struct ProductShapes {
  Shape a, b, wide, result;
};

inline ProductShapes align_product(const Shape& a_given, const Shape& b_given) {
  ProductShapes o{a_given, b_given, {}, {}};
  if (o.a.empty() || o.b.empty()) throw Error(ErrorKind::Malformed, "a product of scalars");
  const bool vector_a = o.a.size() == 1, vector_b = o.b.size() == 1;
  if (vector_a) o.a.insert(o.a.begin(), 1);
  if (vector_b) o.b.push_back(1);
  const size_t rank = std::max(o.a.size(), o.b.size());
  o.a.insert(o.a.begin(), rank - o.a.size(), 1);
  o.b.insert(o.b.begin(), rank - o.b.size(), 1);
  bool fits = o.a[rank - 1] == o.b[rank - 2];
  for (size_t i = 0; i + 2 < rank; ++i) {
    fits = fits && (o.a[i] == o.b[i] || o.a[i] == 1 || o.b[i] == 1);
    o.wide.push_back(o.a[i] == 1 ? o.b[i] : o.a[i]);
  }
  if (!fits) throw Error(ErrorKind::Malformed, "shapes " + to_string(a_given) + " and " + to_string(b_given) + " don't fit for a product");
  o.wide.insert(o.wide.end(), {o.a[rank - 2], o.b[rank - 1]});
  o.result = o.wide;
  if (vector_b) o.result.pop_back();
  if (vector_a) o.result.erase(o.result.end() - (vector_b ? 1 : 2));
  return o;
}

/// Leading axes of A join its rows where B is one matrix: a two-dimensional product, with B packed once.
inline void flatten_rows(ProductShapes& o) {
  int64_t rows = 1, others = 1;
  for (size_t i = 0; i + 1 < o.a.size(); ++i) rows *= o.a[i];
  for (size_t i = 0; i + 2 < o.b.size(); ++i) others *= o.b[i];
  if (others != 1) return;
  o.a = {rows, o.a.back()};
  o.b = {o.b[o.b.size() - 2], o.b.back()};
  o.wide = {rows, o.b[1]};
}

}  // namespace infopt

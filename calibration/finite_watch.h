// Where a NaN or an infinity begins in a run of a model.
#pragma once
#include <vector>

#include "lib/ir/graph.h"

namespace infopt {

/// What of a tensor isn't finite.
struct NotFinite {
  bool nan = false, plus_infinity = false, minus_infinity = false;
  bool any() const { return nan || plus_infinity || minus_infinity; }
};
/// Of a tensor of any type; integers are finite.
NotFinite not_finite(const Tensor& tensor);

/// One run's: told every value as it is made, in order.
class FiniteWatch {
 public:
  explicit FiniteWatch(const Graph& graph) : graph_(graph), tainted_(graph.value_capacity()) {}

  /// Values to tap for it.
  static std::vector<ValueId> values(const Graph& graph);
  /// Throws Error(Malformed) naming the tensor where a node makes a NaN or an infinity out of finite numbers. Not so: minus infinity from what
  /// isn't a product, since masks are made of it; what comes of infinities that were there before, as constants or out of a body; Cast and
  /// ConstantOfShape; values that the model itself asks IsNaN or IsInf about.
  void see(ValueId value, const NotFinite& found);

 private:
  bool excused(const Value& value) const;
  const Graph& graph_;
  std::vector<bool> tainted_;
};

/// "tensor 'x'", or what makes it where it has no name.
std::string name_of_value(const Graph& graph, ValueId id);

}  // namespace infopt

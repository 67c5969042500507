// What integers a graph computes from shapes: the numbers, or which dimension they are, before any run.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "lib/ir/graph.h"

namespace infopt {

/// The graph of a copy of the model with every type inferred anew: nothing is believed that the file only declares of what nodes make, and
/// each unknown dimension of an input has a symbol: the declared one, where it is an identifier, else one of its own ("?" on two axes needn't
/// be the same size). Two dimensions with the same symbol are equal in every run. Ids are the model's.
std::shared_ptr<Graph> infer_afresh(const Model& model, const Graph& graph);

/// One integer: a number, the size of the dimensions that have a symbol (so it isn't negative), or neither.
struct Element {
  std::optional<int64_t> number;
  std::string symbol;
  bool known() const { return number || !symbol.empty(); }
  bool operator==(const Element&) const = default;
};
using Elements = std::vector<Element>;

/// Follows Shape through the operators that exporters write after it. Elements are in row-major order; at most 64 a value.
class ShapeValues {
 public:
  /// `inferred` is from infer_afresh, of this graph or of what it was before nodes were replaced.
  ShapeValues(const Graph& graph, const Graph& inferred) : graph_(graph), inferred_(inferred) {}

  /// The dimensions of a value; null where not even their number is known.
  const std::vector<Dim>* dims(ValueId value) const;
  DType dtype(ValueId value) const;
  /// The elements of a value; null where nothing is known of them.
  const Elements* elements(ValueId value);

 private:
  std::optional<Elements> compute(const Node& node);
  std::optional<Elements> picked(const Node& node);
  std::optional<Elements> elementwise(const Node& node);

  const Graph& graph_;
  const Graph& inferred_;
  std::unordered_map<ValueId, std::optional<Elements>> memo_;
  int depth_ = 0;
};

}  // namespace infopt

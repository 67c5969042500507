// What the optimizing passes ask of a graph while they look for their patterns.
#pragma once
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "lib/ir/edit.h"
#include "lib/ir/graph.h"

namespace infopt {

/// Calls `pass` with an edit of the graph and then of each body of its nodes, bodies' bodies included. What was done in bodies is
/// counted and noted in `edit`'s log.
void each_graph(GraphEdit& edit, const std::function<void(GraphEdit&)>& pass);

/// The number that every element of the constant is; empty where the value isn't constant, isn't a number or differs within.
std::optional<double> splat(const Graph& graph, ValueId value);
/// The splat, of a constant with one element only.
std::optional<double> scalar(const Graph& graph, ValueId value);
/// Whether |a − b| ≤ 1e-6·max(1, |b|): constants that a float32 exporter wrote.
bool near_to(double a, double b);

/// A node's first output; kNone where a malformed node has none.
inline ValueId output_of(const Node& node) { return node.outputs.empty() ? kNone : node.outputs[0]; }
/// Graph::sole_consumer, null where there is no value.
inline const Node* only_reader(const Graph& graph, ValueId value) { return value == kNone ? nullptr : graph.sole_consumer(value); }

/// The node that makes the value where it is of that operator; null else.
const Node* made_by(const Graph& graph, ValueId value, std::string_view op);
/// The same where nothing else reads the value.
const Node* made_only_for(const Graph& graph, ValueId value, std::string_view op);

/// The rank, where type, constant or producer tell it; -1 where none does.
int64_t rank_of(const Graph& graph, ValueId value);
/// The element type; Undefined where it isn't known.
DType dtype_of_value(const Graph& graph, ValueId value);
/// Whether `constant`, broadcast against a value of rank `rank`, keeps that value's shape: its rank isn't higher and its axes are 1 or
/// (`type` tells so) equal.
bool keeps_shape(const Graph& graph, ValueId value, const Shape& constant);

/// The constant's elements, one a channel, where it broadcasts along `axis` of a value of rank `rank` only: shapes [C,1,1], [1,C,1,1],
/// a single element (repeated)…; `channels` is how many there must be.
std::optional<std::vector<double>> per_channel(const Tensor& constant, int64_t rank, int64_t axis, int64_t channels);

/// The axes of Squeeze, Unsqueeze and the reductions, from attribute or constant input `index`; empty optional where they aren't constant.
std::optional<std::vector<int64_t>> axes_of(const Graph& graph, const Node& node, size_t index);

/// Floats rounded to the dtype of `like` in that shape.
Tensor rounded(const std::vector<double>& values, Shape shape, DType dtype);

/// Every use of `from`, which a node makes, becomes one of `to`, and the nodes that then nobody needs go. Where the model's interface needs
/// `from` to be made by a node (GraphEdit::replaceable), an Identity makes it.
/// A nameless `to` takes over the name.
void replace_and_remove(GraphEdit& edit, ValueId from, ValueId to);
/// Removes the value's producer where nobody uses its outputs, and so on upwards.
void remove_unused(GraphEdit& edit, ValueId value);

}  // namespace infopt

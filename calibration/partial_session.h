// Runs as much of a model as infopt can: what lies behind an operator that it has no kernel for is left out.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/data/dataset.h"
#include "lib/ir/graph.h"
#include "lib/runtime/session.h"

namespace infopt {

class Error;

class PartialSession {
 public:
  /// Options as for a Session; fetches other than the graph's outputs aren't asked for. `probe` is run at once, so that what
  /// turns out to be unsupported only in a run is left out too; null for none.
  /// Throws what Session throws, but for Error(Unsupported).
  explicit PartialSession(const Graph& graph, SessionOptions options = {}, const Sample* probe = nullptr);

  /// The graph's outputs in their order, undefined where they can't be computed.
  std::vector<Tensor> run(const std::map<std::string, Tensor>& inputs, const Tap& tap = {}) const;
  /// With summaries of what a device made, see Session.
  std::vector<Tensor> run(const std::map<std::string, Tensor>& inputs, SummaryTap& tap) const;
  bool computes(ValueId value) const { return computed_[static_cast<size_t>(value)]; }
  /// Why something is left out, one entry a reason; empty where everything runs.
  const std::vector<std::string>& obstacles() const { return obstacles_; }

 private:
  std::vector<Tensor> placed(std::vector<Tensor> computed) const;
  void open();
  void find_unknown();
  void find_computed();
  bool block(const Error& error);

  const Graph& graph_;
  SessionOptions options_;
  std::vector<bool> blocked_, computed_;  ///< by node, by value
  std::vector<std::string> obstacles_;
  std::vector<size_t> fetched_;  ///< positions of outputs
  std::unique_ptr<Session> session_;
};

/// One run of one sample, leaving out what only turns out to be unsupported in it too.
struct PartialRun {
  std::vector<Tensor> outputs;
  std::vector<std::string> obstacles;
};
PartialRun run_partially(const Graph& graph, const SessionOptions& options, const Sample& sample, const Tap& tap = {});

/// "x", "x and y", "x, y and 3 more".
std::string listed(const std::vector<std::string>& items);

}  // namespace infopt

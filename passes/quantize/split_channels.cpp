// Outlier channel splitting (Zhao et al., arXiv 1901.09504): a channel whose weights are the largest of the rows that read it is made twice, and each
// copy read with half of the weights: the same function, with narrower ranges of weights and a little more arithmetic.
//
// before     layers → anything that keeps channels apart → layers with constant float weights
// after      the same nodes, channels more; the two halves of a weight w are (w ± s/2)/2, s the row's new step, so that their roundings add up to w's
// conditions The channel is followed by dimensions.h to all that makes and reads it. Chosen is, again and again, the channel whose splitting takes most of
//            Σ m², m the largest weight of each row (or of the tensor) that reads the group, each row's share of it before; until none takes one percent.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "calibration/calibration.h"
#include "passes/pass.h"
#include "passes/support/channel_scores.h"
#include "passes/support/remove_channels.h"

namespace infopt {
namespace {

constexpr double kPays = 0.01;  ///< of the rounding noise of what reads a group, by one channel

/// The largest weights of each row of a reader by class of its group.
class Rows {
 public:
  Rows(const Graph& graph, const GroupReader& reader, bool per_channel) : classes_(reader.columns.size()) {
    const Layer& l = reader.layer;
    const std::vector<float> w = read_weights(l, *graph.constant(l.weights));
    const int64_t each = l.out / l.groups;
    rows_ = per_channel ? static_cast<size_t>(l.out) : 1;
    largest_.assign(rows_ * (classes_ + 1), 0);  // the last column is what other groups give
    std::vector<size_t> class_of(static_cast<size_t>(l.in * l.groups), classes_);
    for (size_t c = 0; c < classes_; ++c)
      for (int64_t i : reader.columns[c]) class_of[static_cast<size_t>(i)] = c;
    size_t at = 0;
    for (int64_t o = 0; o < l.out; ++o)
      for (int64_t i = 0; i < l.in; ++i)
        for (int64_t t = 0; t < l.taps; ++t, ++at) {
          double& m = largest_[(per_channel ? static_cast<size_t>(o) : 0) * (classes_ + 1) + class_of[static_cast<size_t>(o / each * l.in + i)]];
          m = std::max(m, std::fabs(static_cast<double>(w[at])));
        }
    for (size_t r = 0; r < rows_; ++r) noise_.push_back(std::max(std::pow(row_max(r), 2), 1e-30));
  }

  size_t rows() const { return rows_; }
  /// Σ over the rows of what the splitting of each class takes of a row's noise; added to `gain`.
  void add_gains(std::vector<double>& gain) const {
    for (size_t r = 0; r < rows_; ++r) {
      const double* row = largest_.data() + r * (classes_ + 1);
      const size_t top = static_cast<size_t>(std::max_element(row, row + classes_ + 1) - row);
      if (top == classes_ || row[top] == 0) continue;
      double second = row[top] / 2;
      for (size_t c = 0; c <= classes_; ++c)
        if (c != top) second = std::max(second, row[c]);
      gain[top] += (row[top] * row[top] - second * second) / noise_[r];
    }
  }
  void split(size_t c) {
    for (size_t r = 0; r < rows_; ++r) largest_[r * (classes_ + 1) + c] /= 2;
  }

 private:
  double row_max(size_t r) const { return *std::max_element(largest_.begin() + static_cast<int64_t>(r * (classes_ + 1)), largest_.begin() + static_cast<int64_t>((r + 1) * (classes_ + 1))); }
  size_t classes_, rows_ = 0;
  std::vector<double> largest_, noise_;
};

/// The classes of a group to split, at most so many; none twice.
std::vector<size_t> choose(std::vector<Rows> readers, size_t classes, size_t most) {
  std::vector<size_t> chosen;
  size_t rows = 0;
  for (const Rows& r : readers) rows += r.rows();
  while (chosen.size() < most) {
    std::vector<double> gain(classes, 0);
    for (const Rows& r : readers) r.add_gains(gain);
    for (size_t c : chosen) gain[c] = 0;
    const auto best = std::max_element(gain.begin(), gain.end());
    if (*best < kPays * static_cast<double>(rows)) break;
    chosen.push_back(static_cast<size_t>(best - gain.begin()));
    for (Rows& r : readers) r.split(chosen.back());
  }
  return chosen;
}

class Splitter {
 public:
  Splitter(GraphEdit& edit, PassContext& context, const Options& options) : edit_(edit), graph_(edit.graph()), context_(context), options_(options) {}

  void run() {
    const Dimensions dimensions(context_.model, graph_, context_.calibration ? context_.calibration->observe(graph_) : std::vector<Observed>{});
    const ChannelGroups groups(dimensions);
    std::vector<int> copies(static_cast<size_t>(dimensions.atoms()), 1);
    size_t split = 0;
    for (const ChannelGroup& g : groups.groups()) {
      if (g.kind != GroupKind::Channels && g.kind != GroupKind::Neurons) continue;
      const std::vector<GroupReader> readers = readers_of(dimensions, g);
      if (readers.empty() || readers.size() != g.readers.size() || !all_own(readers)) continue;
      std::vector<Rows> rows;
      for (const GroupReader& r : readers) rows.emplace_back(graph_, r, options_.flag("per_channel"));
      const auto most = static_cast<size_t>(std::ceil(options_.number("expand") * static_cast<double>(g.classes.size())));
      const std::vector<size_t> chosen = choose(std::move(rows), g.classes.size(), most);
      if (chosen.empty()) continue;
      for (size_t c : chosen) copies[static_cast<size_t>(g.classes[c])] = 2;
      for (const GroupReader& r : readers) note_halves(r, chosen);
      split += chosen.size();
      edit_.note(graph_.label(g.node) + ": " + std::to_string(chosen.size()) + " of " + std::to_string(g.classes.size()) + " " + std::string(name_of(g.kind)) + " made twice");
    }
    if (split == 0) return edit_.note("no channel's weights are outliers in what reads it");
    std::vector<std::pair<NodeId, std::vector<int64_t>>> pairs;
    for (const auto& [node, columns] : halves_) pairs.emplace_back(node, new_places(dimensions, copies, node, columns));
    repeat_channels(edit_, dimensions, copies);
    for (const auto& [node, firsts] : pairs) spread(node, firsts);
  }

 private:
  bool all_own(const std::vector<GroupReader>& readers) const {
    return std::all_of(readers.begin(), readers.end(), [&](const GroupReader& r) { return graph_.constant(r.layer.weights)->dtype() == DType::F32 && graph_.value(r.layer.weights).uses.size() == 1; });
  }

  void note_halves(const GroupReader& r, const std::vector<size_t>& chosen) {
    auto& columns = halves_[r.layer.node];
    for (size_t c : chosen) columns.insert(columns.end(), r.columns[c].begin(), r.columns[c].end());
  }

  /// For each column that is split where its two halves come to lie.
  std::vector<int64_t> new_places(const Dimensions& d, const std::vector<int>& copies, NodeId node, const std::vector<int64_t>& columns) const {
    const Layer layer = *layer_of(graph_, node);
    const ValueId x = graph_.node(node).input(0);
    const std::vector<int64_t> from = repeated_positions(*d.axis(x, layer.convolution ? 1 : d.rank(x) - 1), d, copies);
    std::vector<int64_t> out;
    for (int64_t c : columns)
      for (size_t i = 0; i < from.size(); ++i)
        if (from[i] == c) out.push_back(static_cast<int64_t>(i));
    return out;
  }

  /// Moves a quarter of a row's step from one half to the other.
  void spread(NodeId node, const std::vector<int64_t>& halves) {
    const Layer l = *layer_of(graph_, node);
    if (l.groups != 1) return;
    const Tensor old = *graph_.constant(l.weights);
    std::vector<float> w = read_weights(l, old);
    const auto row = static_cast<size_t>(l.in * l.taps);
    const double levels = std::pow(2.0, static_cast<double>(options_.integer("bits")) - 1) - 1;
    float largest = 0;
    for (float v : w) largest = std::max(largest, std::fabs(v));
    for (size_t o = 0; o < static_cast<size_t>(l.out); ++o) {
      float* r = w.data() + o * row;
      float top = 0;
      for (size_t i = 0; i < row; ++i) top = std::max(top, std::fabs(r[i]));
      const auto quarter = static_cast<float>(static_cast<double>(options_.flag("per_channel") ? top : largest) / levels / 4);
      for (size_t i = 0; i + 1 < halves.size(); i += 2)
        for (int64_t t = 0; t < l.taps; ++t) {
          r[halves[i] * l.taps + t] += quarter;
          r[halves[i + 1] * l.taps + t] -= quarter;
        }
    }
    edit_.set_input(node, 1, edit_.add_constant(write_weights(l, old.shape(), w)));
  }

  GraphEdit& edit_;
  const Graph& graph_;
  PassContext& context_;
  const Options& options_;
  std::map<NodeId, std::vector<int64_t>> halves_;  ///< columns of readers that are split
};

void run(GraphEdit& edit, PassContext& context, const Options& options) { Splitter(edit, context, options).run(); }

}  // namespace

PassDef pass_split_channels() {
  return {
      .name = "split_channels",
      .summary = "channels with outlier weights made twice and read with half of the weights each",
      .contract = Contract::Rounding,
      .options =
          {
              {.name = "expand", .help = "share of a group's channels that may be made twice", .otherwise = 0.05, .least = 0, .most = 1},
              {.name = "bits", .help = "of the weights' codes", .otherwise = int64_t{8}, .least = 2, .most = 8},
              {.name = "per_channel", .help = "whether each output channel has a scale of its own, or the tensor one", .otherwise = true},
          },
      .run = run,
  };
}

}  // namespace infopt

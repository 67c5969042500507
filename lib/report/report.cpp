#include "lib/report/report.h"

#include <algorithm>
#include <array>

namespace infopt {

std::string_view name_of(LayerForm form) {
  static constexpr std::array<std::string_view, kLayerFormCount> names{"int8 static", "int8 dynamic", "int8 storage", "weights only",
                                                                       "float16",     "bfloat16",     "float32",      "float8"};
  return names[static_cast<size_t>(form)];
}

bool is_integer(LayerForm form) { return form == LayerForm::Int8Static || form == LayerForm::Int8Dynamic; }

std::vector<MacShare> mac_shares(const Report& report) {
  std::array<MacShare, kLayerFormCount> all{};
  double total = 0;
  for (const LayerReport& layer : report.layers) {
    MacShare& share = all[static_cast<size_t>(layer.form)];
    share.macs += layer.macs;
    share.weight_elements += layer.weight_elements;
    ++share.layers;
    total += static_cast<double>(layer.macs);
  }
  std::vector<MacShare> out;
  if (total <= 0) return out;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!all[i].layers) continue;
    all[i].form = static_cast<LayerForm>(i);
    all[i].share = static_cast<double>(all[i].macs) / total;
    out.push_back(all[i]);
  }
  return out;
}

std::optional<double> integer_mac_share(const Report& report) {
  std::vector<MacShare> shares = mac_shares(report);
  if (shares.empty()) return std::nullopt;
  double sum = 0;
  for (const MacShare& s : shares) {
    if (is_integer(s.form)) sum += s.share;
  }
  return sum;
}

std::optional<double> removed_share(const Report& report) {
  int64_t before = 0, after = 0;
  for (const PrunedLayer& p : report.pruned) before += p.weights_before, after += p.weights_after - p.zeros;
  if (before <= 0) return std::nullopt;
  return 1 - static_cast<double>(after) / static_cast<double>(before);
}

std::optional<double> size_ratio(const Report& report) {
  if (!report.original || !report.optimized || report.original->bytes <= 0) return std::nullopt;
  return static_cast<double>(report.optimized->bytes) / static_cast<double>(report.original->bytes);
}

std::optional<double> latency_ratio(const Report& report) {
  const Measured& m = report.measured;
  if (!m.original_latency || !m.optimized_latency || m.original_latency->median_ms <= 0) return std::nullopt;
  return m.optimized_latency->median_ms / m.original_latency->median_ms;
}

std::optional<double> speedup(const Report& report) {
  const Measured& m = report.measured;
  if (!m.original_latency || !m.optimized_latency || m.optimized_latency->median_ms <= 0) return std::nullopt;
  return m.original_latency->median_ms / m.optimized_latency->median_ms;
}

namespace {

// NaN counts as the worst: an output that is not a number has failed.
std::optional<double> worst(const std::vector<OutputReport>& outputs, double OutputReport::* field) {
  std::optional<double> least;
  for (const OutputReport& o : outputs) {
    double v = o.*field;
    if (!least || v != v || v < *least) least = v;
    if (*least != *least) break;
  }
  return least;
}

}  // namespace

std::optional<double> worst_sqnr_db(const Report& report) { return worst(report.outputs, &OutputReport::sqnr_db); }
std::optional<double> worst_cosine(const Report& report) { return worst(report.outputs, &OutputReport::cosine); }

bool all_gates_passed(const Report& report) {
  return std::all_of(report.gates.begin(), report.gates.end(), [](const GateResult& g) { return g.passed; });
}

}  // namespace infopt

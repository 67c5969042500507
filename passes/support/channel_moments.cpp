#include "passes/support/channel_moments.h"

#include <algorithm>

#include "calibration/calibration.h"
#include "calibration/sample_order.h"
#include "calibration/staged_run.h"
#include "lib/base/error.h"
#include "lib/base/finite.h"
#include "passes/support/dense.h"
#include "passes/support/live_places.h"

namespace infopt {
namespace {

constexpr int64_t kMostChannels = 4096;
constexpr int64_t kPlaces = 256;        ///< of one sample
constexpr double kMostProducts = 4e10;  ///< of a value's XXᵀ, beyond the least places
constexpr double kLeastPlaces = 8192;

class Sums {
 public:
  Sums(int64_t axis, int64_t samples) : axis_(axis), samples_(samples) {}
  void add(const Tensor& t, const std::vector<bool>* live, int threads) {
    const int64_t channels = t.dim(axis_);
    const auto k = static_cast<double>(std::max<int64_t>(1, channels));
    const auto affordable = static_cast<int64_t>(std::max(kMostProducts / (k * k), kLeastPlaces + 4 * k));
    const std::vector<float> rows = channel_rows(t, axis_, std::clamp<int64_t>(affordable / samples_, 8, kPlaces), live);
    const int64_t count = static_cast<int64_t>(rows.size()) / std::max<int64_t>(1, channels);
    if (m_.channels == 0) {
      m_.channels = channels;
      m_.covariance.assign(static_cast<size_t>(channels <= kMostChannels ? channels * channels : channels), 0);
      m_.mean.assign(static_cast<size_t>(channels), 0);
      m_.square = m_.mean;
    }
    if (m_.channels != channels) throw Error(ErrorKind::Malformed, "a value has " + std::to_string(channels) + " channels in one sample and " + std::to_string(m_.channels) + " in another");
    m_.places += count;
    for (int64_t r = 0; r < count; ++r)
      for (int64_t c = 0; c < channels; ++c) {
        const double x = static_cast<double>(rows[static_cast<size_t>(r * channels + c)]);
        m_.mean[static_cast<size_t>(c)] += x;
        m_.square[static_cast<size_t>(c)] += x * x;
      }
    if (channels > kMostChannels) return;
    waiting_.insert(waiting_.end(), rows.begin(), rows.end());
    if (static_cast<int64_t>(waiting_.size()) >= 1024 * channels) take(threads);
  }
  ChannelMoments finish(int threads) {
    if (m_.places == 0) return m_;
    if (!waiting_.empty()) take(threads);
    const auto n = static_cast<double>(m_.places);
    const auto k = static_cast<size_t>(m_.channels);
    for (size_t i = 0; i < k; ++i) m_.mean[i] /= n, m_.square[i] /= n;
    if (m_.full())
      for (size_t i = 0; i < k; ++i)
        for (size_t j = 0; j <= i; ++j) m_.covariance[i * k + j] = m_.covariance[j * k + i] = static_cast<float>(static_cast<double>(m_.covariance[i * k + j]) / n - m_.mean[i] * m_.mean[j]);
    else
      for (size_t i = 0; i < k; ++i) m_.covariance[i] = static_cast<float>(m_.square[i] - m_.mean[i] * m_.mean[i]);
    return std::move(m_);
  }

 private:
  void take(int threads) {
    add_gram(waiting_.data(), static_cast<int64_t>(waiting_.size()) / m_.channels, m_.channels, m_.covariance.data(), threads);
    waiting_.clear();
  }
  int64_t axis_, samples_;
  ChannelMoments m_;
  std::vector<float> waiting_;
};

}  // namespace

std::vector<float> channel_rows(const Tensor& t, int64_t axis, int64_t most, const std::vector<bool>* live) {
  const Tensor plain = cast(t, DType::F32);
  const int64_t channels = plain.dim(axis);
  int64_t inner = 1;
  for (int64_t a = axis + 1; a < plain.rank(); ++a) inner *= plain.dim(a);
  const std::vector<int64_t> places = spread_places(channels > 0 ? plain.size() / channels : 0, live, most);
  std::vector<float> rows;
  rows.reserve(places.size() * static_cast<size_t>(channels));
  const float* p = plain.data<float>();
  for (int64_t place : places) {
    const float* from = p + place / inner * channels * inner + place % inner;
    for (int64_t c = 0; c < channels; ++c) rows.push_back(from[c * inner]);
  }
  return rows;
}

std::map<ChannelAxis, ChannelMoments> collect_channel_moments(const Graph& graph, const std::vector<ChannelAxis>& wanted, PassContext& context, int64_t samples, const LivePlaces* live) {
  std::map<ValueId, std::vector<int64_t>> axes;
  for (const ChannelAxis& w : wanted) axes[w.value].push_back(w.axis);
  std::vector<ValueId> values;  // in the order in which they are made
  for (ValueId v : graph.inputs())
    if (axes.contains(v)) values.push_back(v);
  for (NodeId id : graph.order())
    for (ValueId v : graph.node(id).outputs)
      if (axes.contains(v)) values.push_back(v);
  std::map<ChannelAxis, ChannelMoments> out;
  StagedRun run(graph, *context.calibration, values, {.samples = samples, .threads = context.threads});
  for (ValueId v : values) {
    std::map<int64_t, Sums> sums;
    for (int64_t a : axes[v]) sums.emplace(a, Sums(a, std::max<int64_t>(1, run.samples())));
    SampleOrder<std::vector<Tensor>> order([&](int64_t sample, const std::vector<Tensor>& seen) {
      if (first_nonfinite(seen[0]) >= 0) throw Error(ErrorKind::Malformed, "it has a NaN or an infinite element", graph.value(v).name);
      for (auto& [a, s] : sums) s.add(seen[0], live ? live->of({v, a}, sample) : nullptr, context.threads);
    });
    run.advance({v}, [&](int64_t sample, const std::vector<Tensor>& seen) { order.take(sample, seen); });
    for (auto& [a, s] : sums) out.emplace(ChannelAxis{v, a}, s.finish(context.threads));
  }
  return out;
}

}  // namespace infopt

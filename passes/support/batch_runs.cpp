#include "passes/support/batch_runs.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/threads.h"
#include "passes/support/batches.h"

namespace infopt {
namespace {

constexpr size_t kParts = 4;  // of a batch, run side by side and added in order, however many threads there are

}  // namespace

double BatchSums::ratio(size_t outputs) const {
  double sum = 0;
  for (size_t o = 0; o < outputs; ++o)
    if (signal[o] > 0) sum += noise[o] / signal[o] / static_cast<double>(outputs);
  return sum;
}

BatchSums run_in_parts(const SamplePlaces& samples, size_t most_together, size_t parameters, size_t outputs, int threads, const std::function<void(BatchSums&, const SamplePlaces&)>& run) {
  const size_t together = std::clamp<size_t>(samples.size() / kParts, 1, most_together);
  const size_t groups = (samples.size() + together - 1) / together, parts = std::min(kParts, groups);
  std::vector<BatchSums> sums(parts, BatchSums{std::vector<Tensor>(parameters), std::vector<double>(outputs), std::vector<double>(outputs)});
  parallel_for(static_cast<int64_t>(parts), threads, [&](int64_t part, int) {
    for (size_t g = static_cast<size_t>(part); g < groups; g += parts) {
      const auto from = samples.begin() + static_cast<int64_t>(g * together), to = samples.begin() + static_cast<int64_t>(std::min(samples.size(), (g + 1) * together));
      run(sums[static_cast<size_t>(part)], {from, to});
    }
  });
  BatchSums total = std::move(sums[0]);
  for (size_t p = 1; p < parts; ++p) {
    for (size_t i = 0; i < parameters; ++i)
      if (sums[p].gradients[i].defined()) add_to(total.gradients[i], sums[p].gradients[i]);
    for (size_t o = 0; o < outputs; ++o) total.noise[o] += sums[p].noise[o], total.signal[o] += sums[p].signal[o];
  }
  return total;
}

bool runs_as_one(const Piece& piece, const std::vector<ValueId>& outputs, const std::function<std::unordered_map<ValueId, Laid>(const SamplePlaces&)>& feeds) {
  Tape one(piece), two(piece), both(piece);
  one.forward(feeds({0}));
  two.forward(feeds({1}));
  try {
    both.forward(feeds({0, 1}));
  } catch (const Error&) {
    return false;
  }
  for (ValueId v : outputs) {
    const Tensor apart = stack({one.value(v), two.value(v)}), together = both.value(v);
    if (apart.shape() != together.shape() || energy(minus(apart, together)) > 1e-8 * energy(apart)) return false;
  }
  return true;
}

}  // namespace infopt

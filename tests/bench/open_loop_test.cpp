#include "lib/bench/open_loop.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace infopt {
namespace {

/// Time that passes only while the server serves or sleeps.
struct FakeClock final : LoadClock {
  double time = 1e4;
  double now() override { return time; }
  void sleep_until(double t) override { time = std::max(time, t); }
};

OpenLoopResult serve_at(const std::vector<double>& arrivals, const OpenLoopOptions& options, const std::function<double(int64_t)>& seconds,
                        std::vector<int64_t>* batches = nullptr) {
  FakeClock clock;
  return run_open_loop(arrivals, options, clock, [&](int64_t count) {
    if (batches) batches->push_back(count);
    clock.time += seconds(count);
  });
}

TEST(Arrivals, FixedOnesAreEvenlySpaced) {
  EXPECT_EQ(make_arrivals(Arrivals::Fixed, 4, 1, 1), (std::vector<double>{0, 0.25, 0.5, 0.75}));
  EXPECT_EQ(make_arrivals(Arrivals::Fixed, 1000, 10, 1).size(), 10000u);
  EXPECT_EQ(make_arrivals(Arrivals::Fixed, 0.01, 1, 1).size(), 1u);
}

/// Gaps are exponential: mean 1/λ, variance 1/λ², and P(gap > t) = exp(−λt).
TEST(Arrivals, PoissonGapsAreExponential) {
  const double rate = 500;
  const auto times = make_arrivals(Arrivals::Poisson, rate, 400, 7);
  const auto n = static_cast<double>(times.size());
  EXPECT_NEAR(n, 200000, 4 * std::sqrt(200000));
  double squares = 0, longer = 0;
  for (size_t i = 1; i < times.size(); ++i) {
    const double gap = times[i] - times[i - 1];
    ASSERT_GE(gap, 0);
    squares += gap * gap;
    longer += gap > 2 / rate;
  }
  EXPECT_NEAR(squares / n * rate * rate, 2, 0.05);
  EXPECT_NEAR(longer / n, std::exp(-2), 0.005);
  EXPECT_LT(times.back(), 400);
}

TEST(Arrivals, AreTheSameForTheSameSeed) {
  EXPECT_EQ(make_arrivals(Arrivals::Poisson, 50, 2, 3), make_arrivals(Arrivals::Poisson, 50, 2, 3));
  EXPECT_NE(make_arrivals(Arrivals::Poisson, 50, 2, 3), make_arrivals(Arrivals::Poisson, 50, 2, 4));
}

/// M/D/1, Pollaczek and Khinchine: the mean wait is ρ / (2 (1 − ρ)) services; the mean queue is rate times wait (Little).
TEST(OpenLoop, WaitsAsAnMD1QueueDoes) {
  for (double load : {0.3, 0.5, 0.8}) {
    const double service = 0.01, rate = load / service;
    const auto arrivals = make_arrivals(Arrivals::Poisson, rate, 400000 / rate, 11);
    const OpenLoopResult r = serve_at(arrivals, {}, [&](int64_t) { return service; });
    const double wait = load / (2 * (1 - load)) * service;
    EXPECT_NEAR(r.mean_wait_ms, 1e3 * wait, 0.04 * 1e3 * wait) << load;
    EXPECT_NEAR(r.latency.mean, r.mean_wait_ms + 10, 1e-6);
    EXPECT_NEAR(r.mean_queue, rate * wait, 0.04 * rate * wait);
    EXPECT_NEAR(r.utilization, load, 0.01);
    EXPECT_NEAR(r.achieved_rate, rate, 0.01 * rate);
    EXPECT_EQ(r.served, r.requests);
    EXPECT_FALSE(r.saturated);
  }
}

/// M/M/1: the time in the system is exponential with mean 1 / (μ − λ), so its median is ln 2 and its P99 ln 100 of that.
TEST(OpenLoop, HasTheLatenciesOfAnMM1Queue) {
  const double load = 0.7, service = 0.002, rate = load / service;
  std::mt19937_64 bits(5);
  const auto exponential = [&](int64_t) { return -service * std::log((static_cast<double>(bits() >> 11) + 0.5) * 0x1p-53); };
  const OpenLoopResult r = serve_at(make_arrivals(Arrivals::Poisson, rate, 400000 / rate, 2), {}, exponential);
  const double mean = 1e3 / (1 / service - rate);
  EXPECT_NEAR(r.latency.mean, mean, 0.05 * mean);
  EXPECT_NEAR(r.latency.median, std::log(2) * mean, 0.05 * mean);
  EXPECT_NEAR(r.latency.p99, std::log(100) * mean, 0.08 * std::log(100) * mean);
}

TEST(OpenLoop, EvenArrivalsBelowCapacityDoNotWait) {
  const OpenLoopResult r = serve_at(make_arrivals(Arrivals::Fixed, 100, 10, 1), {}, [](int64_t) { return 0.009; });
  EXPECT_NEAR(r.latency.max, 9, 1e-6);
  EXPECT_NEAR(r.mean_wait_ms, 0, 1e-6);
  EXPECT_EQ(r.max_queue, 1);
  EXPECT_FALSE(r.saturated);
}

/// One stall of a second at 100 requests a second delays the hundred that came meanwhile. A closed loop would have seen one slow run.
TEST(OpenLoop, CountsFromTheScheduleNotFromTheSend) {
  int64_t served = 0;
  const OpenLoopResult r = serve_at(make_arrivals(Arrivals::Fixed, 100, 10, 1), {}, [&](int64_t) { return ++served == 500 ? 1.0 : 0.0; });
  EXPECT_NEAR(r.latency.max, 1000, 1e-6);
  EXPECT_NEAR(r.latency.p90, 0, 1e-6);
  EXPECT_NEAR(r.latency.mean, 50.5, 1e-6);  // 1000 + 990 + … + 10 ms, over 1,000 requests
  EXPECT_EQ(r.max_queue, 100);
}

TEST(OpenLoop, FillsBatchesWhileTheOldestMayWait) {
  std::vector<int64_t> batches;
  const OpenLoopResult r = serve_at(
      make_arrivals(Arrivals::Fixed, 1000, 0.04, 1), {.batch = 4, .max_wait = 0.1}, [](int64_t) { return 0.001; }, &batches);
  EXPECT_EQ(batches, std::vector<int64_t>(10, 4));
  EXPECT_NEAR(r.latency.max, 4, 1e-6);  // the first of a batch waits for three more, and is served in 1 ms
  EXPECT_NEAR(r.latency.min, 1, 1e-6);
  EXPECT_EQ(r.mean_batch, 4);
}

TEST(OpenLoop, ServesAPartOfABatchWhenTheOldestHasWaitedLongEnough) {
  std::vector<int64_t> batches;
  const OpenLoopResult r = serve_at(
      {0, 0.010, 0.100, 0.103}, {.batch = 8, .max_wait = 0.015}, [](int64_t) { return 0.002; }, &batches);
  EXPECT_EQ(batches, (std::vector<int64_t>{2, 2}));
  EXPECT_NEAR(r.latency.max, 17, 1e-6);
  EXPECT_NEAR(r.latency.min, 7, 1e-6);
}

TEST(OpenLoop, WithoutWaitingABatchIsWhatCameDuringTheLastOne) {
  std::vector<int64_t> batches;
  serve_at(
      {0, 0.001, 0.002, 0.003, 0.010}, {.batch = 2}, [](int64_t) { return 0.0045; }, &batches);
  EXPECT_EQ(batches, (std::vector<int64_t>{1, 2, 1, 1}));
}

TEST(OpenLoop, NamesSaturation) {
  const auto twice = make_arrivals(Arrivals::Fixed, 200, 10, 1);
  const OpenLoopResult r = serve_at(twice, {}, [](int64_t) { return 0.01; });
  EXPECT_TRUE(r.saturated);
  EXPECT_NEAR(r.achieved_rate, 100, 1);
  EXPECT_NEAR(r.offered_rate, 200, 1e-6);
  const OpenLoopResult batched = serve_at(twice, {.batch = 4}, [](int64_t) { return 0.01; });
  EXPECT_FALSE(batched.saturated);
}

TEST(OpenLoop, LeavesTheRestUnservedWhenToldToAndCountsItsAge) {
  const OpenLoopResult r = serve_at(make_arrivals(Arrivals::Fixed, 100, 1, 1), {.give_up = 1}, [](int64_t) { return 0.1; });
  EXPECT_TRUE(r.saturated);
  EXPECT_EQ(r.served, 20);  // at 0, 0.1 … 1.9 s; 2.0 is more than a second after the last arrival at 0.99
  EXPECT_EQ(r.latency.count, 100);
  EXPECT_NEAR(r.latency.max, 1810, 1e-6);  // the 20th, due at 0.19 s and answered at 2; the 21st is 1.8 s old
}

TEST(OpenLoop, NothingArrivesNothingIsServed) {
  const OpenLoopResult r = serve_at({}, {}, [](int64_t) { return 1; });
  EXPECT_EQ(r.served, 0);
}

}  // namespace
}  // namespace infopt

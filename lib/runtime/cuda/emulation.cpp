#include "lib/runtime/cuda/emulation.h"

#include <array>
#include <memory>
#include <vector>

#include "lib/base/error.h"
#include "lib/runtime/cuda/fiber.h"

namespace infopt::cuda::emulation {
namespace {

enum class State : uint8_t { Ready, AtBlock, AtWarp, Done };

/// What a lane shows the others.
struct alignas(64) Slot { std::byte bytes[64]; };

struct Warp {
  Slot slots[2][32] = {};
  uint32_t running = 0;  ///< lanes that haven't ended
  uint32_t met = 0;      ///< lanes that came to the last barrier
};

struct AsyncCopy { void* to; const void* from; unsigned bytes, given; };

struct Thread {
  Here here;
  State state = State::Ready;
  unsigned parity = 0;    ///< which of the warp's two sets of slots its next exchange uses
  bool waited = false;
  Fiber* fiber = nullptr;
  std::vector<AsyncCopy> copies;       ///< that aren't done yet
  std::vector<size_t> groups;          ///< where each committed group of them ends
};

/// One block while it runs. A fiber runs threads one after the other until one of them waits; the next thread then gets another fiber.
class Block {
 public:
  void run(const Here& origin, size_t count, const std::function<void()>& body, const char* name) {
    body_ = &body;
    threads_.assign(count, {});
    warps_.assign((count + 31) / 32, {});
    const unsigned w = origin.block_size.x, h = origin.block_size.y;
    for (size_t t = 0; t < count; ++t) {
      Thread& thread = threads_[t];
      thread.here = origin;
      const auto i = static_cast<unsigned>(t);
      thread.here.thread = {i % w, i / w % h, i / (w * h)};
      thread.here.lane = i % 32;
      thread.here.warp = i / 32;
      warps_[i / 32].running |= 1u << (i % 32);
    }
    next_ = 0;
    live_ = count;
    sums_[0] = sums_[1] = 0;
    round_ = 0;
    fault_ = nullptr;
    while (next_ < count || live_ > 0) {
      if (next_ < count) {
        start_fiber();
        continue;
      }
      if (!resume_some()) throw Error(ErrorKind::Defect, std::string("the CUDA kernel ") + name + " has threads that wait for a barrier which others never reach");
    }
    if (fault_) throw Error(ErrorKind::Defect, std::string("the CUDA kernel ") + name + " " + fault_);
  }

  void wait_block() {
    threads_[current_].state = State::AtBlock;
    yield();
  }

  int sum(int value) {
    sums_[round_ & 1] += value;
    const unsigned round = round_;
    wait_block();
    return sums_[round & 1];
  }

  void wait_warp() {
    threads_[current_].state = State::AtWarp;
    yield();
  }

  const Slot* deposit(const void* data, size_t bytes) {
    Thread& thread = threads_[current_];
    Slot* slots = warps_[thread.here.warp].slots[thread.parity];
    std::memcpy(slots[thread.here.lane].bytes, data, bytes);
    thread.parity ^= 1;
    wait_warp();
    return slots;
  }

  uint64_t exchange(uint64_t bits, unsigned from) {
    const Slot* slots = deposit(&bits, sizeof bits);
    std::memcpy(&bits, slots[from & 31u].bytes, sizeof bits);
    return bits;
  }

  uint32_t ballot(bool predicate) {
    const Warp& w = warps_[threads_[current_].here.warp];
    const auto one = static_cast<std::byte>(predicate);
    const Slot* slots = deposit(&one, 1);
    uint32_t bits = 0;
    for (unsigned l = 0; l < 32; ++l)
      if ((w.met >> l & 1u) && slots[l].bytes[0] == std::byte{1}) bits |= 1u << l;
    return bits;
  }

  void copy(const AsyncCopy& copy) {
    std::memset(copy.to, 0xFF, copy.bytes);
    threads_[current_].copies.push_back(copy);
  }
  void commit() { threads_[current_].groups.push_back(threads_[current_].copies.size()); }
  void wait_copies(size_t pending) {
    Thread& t = threads_[current_];
    if (t.groups.size() <= pending) return;
    const size_t groups = t.groups.size() - pending, end = t.groups[groups - 1];
    for (size_t i = 0; i < end; ++i) {
      const AsyncCopy& c = t.copies[i];
      if (c.given) std::memcpy(c.to, c.from, c.given);
      std::memset(static_cast<std::byte*>(c.to) + c.given, 0, c.bytes - c.given);
    }
    t.copies.erase(t.copies.begin(), t.copies.begin() + static_cast<std::ptrdiff_t>(end));
    t.groups.erase(t.groups.begin(), t.groups.begin() + static_cast<std::ptrdiff_t>(groups));
    for (size_t& g : t.groups) g -= end;
  }

  void fault(const char* what) { fault_ = what; }

 private:
  void enter(unsigned thread) {
    current_ = thread;
    place = &threads_[thread].here;
  }

  void start_fiber() {
    if (free_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>([this] { run_threads(); }));
      free_.push_back(fibers_.back().get());
    }
    Fiber* fiber = free_.back();
    free_.pop_back();
    fiber->restart();
    running_ = fiber;
    fiber->resume();
  }

  /// On a fiber: thread after thread, until none is left. A thread that waited goes on here when it is resumed.
  void run_threads() {
    Fiber* fiber = running_;
    while (next_ < threads_.size()) {
      const unsigned me = static_cast<unsigned>(next_++);
      enter(me);
      threads_[me].fiber = fiber;
      (*body_)();
      Thread& thread = threads_[me];
      thread.state = State::Done;
      --live_;
      warps_[thread.here.warp].running &= ~(1u << thread.here.lane);
      if (thread.waited) break;
    }
    free_.push_back(fiber);
  }

  void yield() {
    const unsigned me = current_;
    threads_[me].waited = true;  // its fiber serves no other thread
    threads_[me].fiber->suspend();
  }

  bool resume_some() {
    bool any = false;
    // Warps first: all of a warp's running lanes wait for it.
    for (size_t w = 0; w < warps_.size(); ++w) {
      const size_t begin = w * 32, end = std::min(begin + 32, threads_.size());
      bool all = warps_[w].running != 0;
      for (size_t t = begin; t < end && all; ++t) all = threads_[t].state == State::Done || threads_[t].state == State::AtWarp;
      if (!all) continue;
      any = true;
      warps_[w].met = warps_[w].running;
      release(begin, end);
    }
    if (any) return true;
    for (const Thread& t : threads_)
      if (t.state != State::Done && t.state != State::AtBlock) return false;
    ++round_;
    sums_[round_ & 1] = 0;
    release(0, threads_.size());
    return true;
  }

  void release(size_t begin, size_t end) {
    std::vector<size_t> ready;
    for (size_t t = begin; t < end; ++t)
      if (threads_[t].state != State::Done) {
        threads_[t].state = State::Ready;
        ready.push_back(t);
      }
    for (size_t t : ready) {
      enter(static_cast<unsigned>(t));
      running_ = threads_[t].fiber;
      threads_[t].fiber->resume();
    }
  }

  const std::function<void()>* body_ = nullptr;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  size_t next_ = 0, live_ = 0;
  unsigned current_ = 0, round_ = 0;
  int sums_[2] = {};
  const char* fault_ = nullptr;
  Fiber* running_ = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> free_;
};

Block& block() {
  thread_local Block b;
  return b;
}
bool reversed = false;

}  // namespace

void block_barrier() { block().wait_block(); }
int block_sum(int value) { return block().sum(value); }
void warp_barrier() { block().wait_warp(); }
uint64_t warp_exchange(uint64_t bits, unsigned from) { return block().exchange(bits, from); }
const std::byte* warp_deposit(const void* data, size_t bytes) { return block().deposit(data, bytes)->bytes; }
void async_copy(void* to, const void* from, size_t bytes, size_t given) {
  if (reinterpret_cast<uintptr_t>(to) % bytes || reinterpret_cast<uintptr_t>(from) % bytes || given > bytes) return report_fault("copies to or from a place that isn't aligned");
  block().copy({to, from, static_cast<unsigned>(bytes), static_cast<unsigned>(given)});
}
void async_commit() { block().commit(); }
void async_wait(unsigned pending) { block().wait_copies(pending); }
void report_fault(const char* what) { block().fault(what); }
uint32_t warp_ballot(bool predicate) { return block().ballot(predicate); }
void reverse_block_order(bool reverse) { reversed = reverse; }

void run_grid(Index3 grid, Index3 size, size_t shared, const std::function<void()>& body, const char* name) {
  const size_t threads = size_t{size.x} * size.y * size.z, blocks = size_t{grid.x} * grid.y * grid.z;
  if (threads == 0 || threads > 1024 || size.z > 64 || grid.y > 65535 || grid.z > 65535 || grid.x > 2147483647u)
    throw Error(ErrorKind::Defect, std::string("the CUDA kernel ") + name + " was launched with a grid that no GPU takes");
  if (shared > 227 * 1024) throw Error(ErrorKind::Defect, std::string("the CUDA kernel ") + name + " asks for more shared memory than a GPU has");
  // Aligned as CUDA does.
  std::vector<std::array<std::byte, 128>> memory((shared + 127) / 128 + 1);
  auto* base = reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(memory.data()) + 127) / 128 * 128);
  for (size_t i = 0; i < blocks; ++i) {
    const size_t b = reversed ? blocks - 1 - i : i;
    std::memset(base, 0xFF, shared);
    Here origin;
    origin.grid_size = grid;
    origin.block_size = size;
    origin.block = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y), static_cast<unsigned>(b / (size_t{grid.x} * grid.y))};
    origin.shared = base;
    block().run(origin, threads, body, name);
  }
}

}  // namespace infopt::cuda::emulation

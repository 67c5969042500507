// A function that can stop in the middle and go on later, on a stack of its own.
#pragma once
#include <cstddef>
#include <functional>

namespace infopt::cuda::emulation {

class Fiber {
 public:
  explicit Fiber(std::function<void()> function);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// The function will begin anew at the next resume(). Only before its first, or after it has returned.
  void restart();
  /// Runs until the function suspends or returns.
  void resume();
  /// Called by the function: resume() returns, and the next one goes on from here.
  void suspend();

 private:
  [[noreturn]] static void enter(Fiber* fiber);
  friend void fiber_main(Fiber* fiber);

  std::function<void()> function_;
  std::byte* stack_ = nullptr;
  void* inside_ = nullptr;   ///< the stack pointers of the side that doesn't run
  void* outside_ = nullptr;
  void* fake_inside_ = nullptr;  ///< AddressSanitizer's
  void* fake_outside_ = nullptr;
  const void* outer_stack_ = nullptr;
  size_t outer_size_ = 0;
};

}  // namespace infopt::cuda::emulation

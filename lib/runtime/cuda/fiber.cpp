#include "lib/runtime/cuda/fiber.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdlib>
#include <utility>

#include "lib/base/error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define INFOPT_START_SWITCH(fake, bottom, size) __sanitizer_start_switch_fiber(fake, bottom, size)
#define INFOPT_FINISH_SWITCH(fake, bottom, size) __sanitizer_finish_switch_fiber(fake, bottom, size)
#else
#define INFOPT_START_SWITCH(fake, bottom, size) (void)0
#define INFOPT_FINISH_SWITCH(fake, bottom, size) (void)0
#endif

#if defined(__x86_64__)
// Saves the callee's registers and the stack pointer at *from, and goes on at `to`: the System V ABI's switch of stacks.
extern "C" void infopt_switch_stack(void** from, void* to);
asm(R"(
.text
.type infopt_switch_stack,@function
infopt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size infopt_switch_stack,.-infopt_switch_stack
)");
#endif

namespace infopt::cuda::emulation {
namespace {
constexpr size_t kStack = 128 * 1024;
thread_local Fiber* starting = nullptr;
}  // namespace

Fiber::Fiber(std::function<void()> function) : function_(std::move(function)) {
  void* memory = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED) throw Error(ErrorKind::Limit, "there is no memory for an emulated CUDA thread");
  stack_ = static_cast<std::byte*>(memory);
  mprotect(stack_, 4096, PROT_NONE);
}

Fiber::~Fiber() {
#if !defined(__x86_64__)
  delete static_cast<ucontext_t*>(inside_);
  delete static_cast<ucontext_t*>(outside_);
#endif
  munmap(stack_, kStack);
}

void fiber_main(Fiber* fiber) { Fiber::enter(fiber); }

void Fiber::enter(Fiber* fiber) {
  INFOPT_FINISH_SWITCH(nullptr, &fiber->outer_stack_, &fiber->outer_size_);
  fiber->function_();
  // The stack is left for good: the next restart() builds another frame on it.
  INFOPT_START_SWITCH(nullptr, fiber->outer_stack_, fiber->outer_size_);
#if defined(__x86_64__)
  infopt_switch_stack(&fiber->inside_, fiber->outside_);
#else
  setcontext(static_cast<ucontext_t*>(fiber->outside_));
#endif
  std::abort();
}

#if defined(__x86_64__)
namespace {
[[noreturn]] void entry() {
  fiber_main(starting);
  std::abort();
}
}  // namespace

void Fiber::restart() {
  auto* top = reinterpret_cast<void**>(stack_ + kStack);
  *--top = nullptr;                               // keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(&entry);       // where the switch returns to
  for (int r = 0; r < 6; ++r) *--top = nullptr;   // the saved registers
  inside_ = top;
}

void Fiber::resume() {
  starting = this;
  INFOPT_START_SWITCH(&fake_outside_, stack_, kStack);
  infopt_switch_stack(&outside_, inside_);
  INFOPT_FINISH_SWITCH(fake_outside_, nullptr, nullptr);
}

void Fiber::suspend() {
  INFOPT_START_SWITCH(&fake_inside_, outer_stack_, outer_size_);
  infopt_switch_stack(&inside_, outside_);
  INFOPT_FINISH_SWITCH(fake_inside_, &outer_stack_, &outer_size_);
}
#else
namespace {
void entry() { fiber_main(starting); }
}  // namespace

void Fiber::restart() {
  if (!inside_) inside_ = new ucontext_t, outside_ = new ucontext_t;
  auto* context = static_cast<ucontext_t*>(inside_);
  getcontext(context);
  context->uc_stack.ss_sp = stack_;
  context->uc_stack.ss_size = kStack;
  context->uc_link = nullptr;
  makecontext(context, &entry, 0);
}

void Fiber::resume() {
  starting = this;
  INFOPT_START_SWITCH(&fake_outside_, stack_, kStack);
  swapcontext(static_cast<ucontext_t*>(outside_), static_cast<ucontext_t*>(inside_));
  INFOPT_FINISH_SWITCH(fake_outside_, nullptr, nullptr);
}

void Fiber::suspend() {
  INFOPT_START_SWITCH(&fake_inside_, outer_stack_, outer_size_);
  swapcontext(static_cast<ucontext_t*>(inside_), static_cast<ucontext_t*>(outside_));
  INFOPT_FINISH_SWITCH(fake_inside_, &outer_stack_, &outer_size_);
}
#endif

}  // namespace infopt::cuda::emulation

// Memory for tensors, 64-byte aligned: freed memory is kept for the next, so that the steady state of a run asks the system for nothing.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace infopt {

/// Uninitialized memory of at least `bytes`. Throws Error(Limit) where there is none.
std::shared_ptr<void> allocate(size_t bytes);
/// The same for what outlives a run: packed weights, a thread's scratch. It lies apart, so that it doesn't stand between blocks that come
/// and go.
std::shared_ptr<void> allocate_lasting(size_t bytes);
/// How often the system was asked for memory since the program began.
uint64_t blocks_from_system();
/// Gives what is kept and unused back to the system.
void trim_memory();

}  // namespace infopt

// Memory for tensors: 64-byte aligned, cached by size class so that the steady state of a run asks the system for nothing.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace infopt {

/// Uninitialized memory of at least `bytes`. Throws Error(Limit) where there is none.
std::shared_ptr<void> allocate(size_t bytes);
/// How often the system was asked for a block since the program began.
uint64_t blocks_from_system();
/// Gives what is cached and unused back to the system.
void trim_memory();

}  // namespace infopt

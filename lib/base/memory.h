// Memory for tensors: 64-byte aligned, cached by size class so that the steady state of a run asks the system for nothing.
#pragma once
#include <cstddef>
#include <memory>

namespace infopt {

/// Uninitialized memory of at least `bytes`. Throws Error(Limit) where there is none.
std::shared_ptr<void> allocate(size_t bytes);
/// Gives what is cached and unused back to the system.
void trim_memory();

}  // namespace infopt

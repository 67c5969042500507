#include "lib/runtime/cuda/staging.h"

#include <algorithm>
#include <cstring>

namespace infopt::cuda {

Staging::Piece& Staging::next() {
  Piece& p = pieces_[turn_++ % 2];
  if (!p.memory) {
    p.memory = {static_cast<std::byte*>(pinned_malloc(kPiece)), [](std::byte* memory) { pinned_free(memory); }};
    p.crossed.emplace();
  } else {
    p.crossed->wait();
  }
  return p;
}

void Staging::to_device(Stream& stream, void* to, const void* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kPiece) {
    const size_t size = std::min(kPiece, bytes - at);
    Piece& p = next();
    std::memcpy(p.memory.get(), static_cast<const std::byte*>(from) + at, size);
    stream.copy_to_device(static_cast<std::byte*>(to) + at, p.memory.get(), size);
    p.crossed->record(stream);
  }
}

void Staging::to_host(Stream& stream, void* to, const void* from, size_t bytes) {
  Piece* before = nullptr;  // its elements are on their way, for the place behind `at`
  const auto empty = [&](size_t begin, size_t size) {
    before->crossed->wait();
    std::memcpy(static_cast<std::byte*>(to) + begin, before->memory.get(), size);
  };
  for (size_t at = 0; at < bytes; at += kPiece) {
    Piece& p = next();
    stream.copy_to_host(p.memory.get(), static_cast<const std::byte*>(from) + at, std::min(kPiece, bytes - at));
    p.crossed->record(stream);
    if (before) empty(at - kPiece, kPiece);
    before = &p;
  }
  if (before) empty((bytes - 1) / kPiece * kPiece, (bytes - 1) % kPiece + 1);
}

}  // namespace infopt::cuda

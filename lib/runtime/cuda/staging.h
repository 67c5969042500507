// Copies between the host's pageable memory and the device, through page-locked pieces: while one crosses the bus, the host fills, or empties, the other.
#pragma once
#include <cstddef>
#include <memory>
#include <optional>

#include "lib/runtime/cuda/runtime.h"

namespace infopt::cuda {

/// One thread's at a time; the streams may differ from call to call.
class Staging {
 public:
  static constexpr size_t kPiece = size_t{2} << 20;
  /// The source has been read when it returns; the copy is done in the stream's order.
  void to_device(Stream& stream, void* to, const void* from, size_t bytes);
  /// Done when it returns.
  void to_host(Stream& stream, void* to, const void* from, size_t bytes);

 private:
  struct Piece {
    std::shared_ptr<std::byte> memory;
    std::optional<Event> crossed;  ///< what was last copied from it, or into it
  };
  /// The piece whose turn it is, of no use to anybody any more.
  Piece& next();

  Piece pieces_[2];
  size_t turn_ = 0;
};

}  // namespace infopt::cuda

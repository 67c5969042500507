// Zip archives, as NumPy writes them: stored and deflated members, zip64 (PKWARE APPNOTE 6.3.9; RFC 1951).
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "lib/data/byte_source.h"

namespace infopt {

struct ZipMember {
  std::string name;
  uint16_t flags = 0, method = 0;  ///< method: 0 stored, 8 deflated
  uint32_t crc = 0;
  uint64_t compressed = 0, size = 0, header_offset = 0;
};

class ZipReader {
 public:
  /// Reads the directory. Throws Error(Malformed) where the file isn't a whole zip archive, where its directory contradicts the file,
  /// or where two members have one name; Error(Io) where it can't be read.
  explicit ZipReader(const std::string& path);

  const std::vector<ZipMember>& members() const { return members_; }
  /// The member's bytes, inflated as they are read and checked against its CRC-32 at the end. Throws Error(Unsupported) for
  /// encrypted members and other methods.
  std::unique_ptr<ByteSource> open(const ZipMember& member) const;

 private:
  std::shared_ptr<const InputFile> file_;
  std::vector<ZipMember> members_;
};

}  // namespace infopt

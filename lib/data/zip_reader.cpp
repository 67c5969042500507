#include "lib/data/zip_reader.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "lib/base/error.h"

namespace infopt {
namespace {

constexpr uint32_t kEndSignature = 0x06054b50, kEnd64Signature = 0x06064b50, kLocator64Signature = 0x07064b50;
constexpr uint32_t kCentralSignature = 0x02014b50, kLocalSignature = 0x04034b50;
constexpr size_t kEndSize = 22, kEnd64Size = 56, kLocator64Size = 20, kCentralSize = 46, kLocalSize = 30;
constexpr uint64_t kMaxDirectory = uint64_t{256} << 20;

uint64_t little(const unsigned char* p, int bytes) {
  uint64_t v = 0;
  for (int i = 0; i < bytes; ++i) v |= uint64_t{p[i]} << (8 * i);
  return v;
}
uint16_t u16(const unsigned char* p) { return static_cast<uint16_t>(little(p, 2)); }
uint32_t u32(const unsigned char* p) { return static_cast<uint32_t>(little(p, 4)); }
uint64_t u64(const unsigned char* p) { return little(p, 8); }

[[noreturn]] void malformed(const std::string& message, const std::string& where) { throw Error(ErrorKind::Malformed, message, where); }

struct Directory {
  uint64_t offset, size, count;
};

/// Where the zip64 record stands, if its locator is just before the end record.
bool find_zip64(const InputFile& file, uint64_t end_offset, Directory& d) {
  if (end_offset < kLocator64Size) return false;
  unsigned char locator[kLocator64Size], record[kEnd64Size];
  file.read_at(end_offset - kLocator64Size, locator, sizeof locator);
  if (u32(locator) != kLocator64Signature) return false;
  file.read_at(u64(locator + 8), record, sizeof record);
  if (u32(record) != kEnd64Signature) malformed("isn't a whole zip archive: its zip64 record is missing", file.path());
  d = {.offset = u64(record + 48), .size = u64(record + 40), .count = u64(record + 32)};
  return true;
}

Directory find_directory(const InputFile& file) {
  if (file.size() < kEndSize) malformed("isn't a zip archive", file.path());
  const size_t tail_size = static_cast<size_t>(std::min<uint64_t>(file.size(), kEndSize + 0xFFFF));
  const uint64_t tail_offset = file.size() - tail_size;
  std::vector<unsigned char> tail(tail_size);
  file.read_at(tail_offset, tail.data(), tail_size);
  for (size_t i = tail_size - kEndSize + 1; i-- > 0;) {
    const unsigned char* p = tail.data() + i;
    if (u32(p) != kEndSignature || u16(p + 20) != tail_size - i - kEndSize) continue;
    Directory d{.offset = u32(p + 16), .size = u32(p + 12), .count = u16(p + 10)};
    const bool needs64 = d.offset == 0xFFFFFFFF || d.size == 0xFFFFFFFF || d.count == 0xFFFF;
    if (needs64) find_zip64(file, tail_offset + i, d);
    if (d.offset > tail_offset + i || d.size > tail_offset + i - d.offset)
      malformed("isn't a whole zip archive: its directory lies outside it", file.path());
    if (d.size > kMaxDirectory) throw Error(ErrorKind::Limit, "its zip directory is larger than 256 MiB", file.path());
    return d;
  }
  unsigned char begin[4];
  file.read_at(0, begin, sizeof begin);
  malformed(u32(begin) == kLocalSignature ? "is a truncated zip archive: its directory is missing" : "isn't a zip archive", file.path());
}

/// Fills what stands as all ones in the 32-bit fields from the zip64 extra field (APPNOTE 4.5.3).
void apply_zip64(ZipMember& m, const unsigned char* extra, size_t size, const std::string& where) {
  while (size >= 4) {
    const uint16_t id = u16(extra), length = u16(extra + 2);
    if (length > size - 4u) malformed("has a broken extra field in its zip directory", where);
    if (id == 1) {
      const unsigned char* p = extra + 4;
      size_t left = length;
      for (uint64_t* field : {&m.size, &m.compressed, &m.header_offset}) {
        if (*field != 0xFFFFFFFF) continue;
        if (left < 8) malformed("has a broken zip64 field in its zip directory", where);
        *field = u64(p);
        p += 8;
        left -= 8;
      }
      return;
    }
    extra += 4 + length;
    size -= 4u + length;
  }
}

/// A member, or a part of one, as it lies in the file; `pull` gives the next bytes.
class MemberSource : public ByteSource {
 public:
  MemberSource(std::shared_ptr<const InputFile> file, ZipMember member, uint64_t offset)
      : file_(std::move(file)), member_(std::move(member)), offset_(offset) {}

  uint64_t size() const override { return member_.size; }
  void read(void* out, size_t bytes) override {
    if (bytes > member_.size - position_) malformed("ends before its data does", where());
    pull(static_cast<unsigned char*>(out), bytes);
    crc_ = static_cast<uint32_t>(crc32_z(crc_, static_cast<const Bytef*>(out), bytes));
    position_ += bytes;
  }
  void finish() override {
    if (position_ != member_.size) malformed("has more bytes than its array", where());
    check_end();
    if (crc_ != member_.crc) malformed("is corrupt: its CRC-32 is wrong", where());
  }
  void rewind() override { position_ = consumed_ = crc_ = 0; }

 protected:
  virtual void pull(unsigned char* out, size_t bytes) = 0;
  virtual void check_end() {}
  std::string where() const { return file_->path() + ", member '" + member_.name + "'"; }
  uint64_t left() const { return member_.compressed - consumed_; }
  /// The next bytes of the file that belong to the member; at most left() of them.
  void raw(unsigned char* out, size_t bytes) {
    file_->read_at(offset_ + consumed_, out, bytes);
    consumed_ += bytes;
  }

 private:
  std::shared_ptr<const InputFile> file_;
  ZipMember member_;
  uint64_t offset_, position_ = 0, consumed_ = 0;
  uint32_t crc_ = 0;
};

class StoredSource final : public MemberSource {
  using MemberSource::MemberSource;
  void pull(unsigned char* out, size_t bytes) override { raw(out, bytes); }
};

class InflateSource final : public MemberSource {
 public:
  InflateSource(std::shared_ptr<const InputFile> file, ZipMember member, uint64_t offset)
      : MemberSource(std::move(file), std::move(member), offset), buffer_(kBuffer) {
    if (inflateInit2(&stream_, -MAX_WBITS) != Z_OK) throw Error(ErrorKind::Limit, "out of memory to inflate", where());
  }
  ~InflateSource() override { inflateEnd(&stream_); }

  void rewind() override {
    MemberSource::rewind();
    inflateReset(&stream_);
    stream_.avail_in = 0;
    ended_ = false;
  }

 private:
  static constexpr size_t kBuffer = 128 << 10;

  void pull(unsigned char* out, size_t bytes) override {
    while (bytes > 0) {
      const size_t got = inflate_some(out, std::min(bytes, size_t{1} << 30));
      if (got == 0 && ended_) malformed("ends before its data does", where());
      out += got;
      bytes -= got;
    }
  }

  /// The stream must say that it ends here, and give nothing more.
  void check_end() override {
    unsigned char extra;
    while (!ended_)
      if (inflate_some(&extra, 1) > 0) malformed("inflates to more bytes than its directory says", where());
  }

  size_t inflate_some(unsigned char* out, size_t bytes) {
    if (ended_) return 0;
    if (stream_.avail_in == 0 && left() > 0) {
      const size_t n = static_cast<size_t>(std::min<uint64_t>(left(), buffer_.size()));
      raw(buffer_.data(), n);
      stream_.next_in = buffer_.data();
      stream_.avail_in = static_cast<uInt>(n);
    }
    stream_.next_out = out;
    stream_.avail_out = static_cast<uInt>(bytes);
    const int status = inflate(&stream_, Z_NO_FLUSH);
    const size_t got = bytes - stream_.avail_out;
    if (status == Z_STREAM_END) ended_ = true;
    else if (status == Z_MEM_ERROR) throw Error(ErrorKind::Limit, "out of memory to inflate", where());
    else if (status != Z_OK && !(status == Z_BUF_ERROR && left() > 0))
      malformed(std::string("can't be inflated: ") + (stream_.msg ? stream_.msg : "it is truncated"), where());
    return got;
  }

  std::vector<unsigned char> buffer_;
  z_stream stream_{};
  bool ended_ = false;
};

}  // namespace

ZipReader::ZipReader(const std::string& path) : file_(std::make_shared<InputFile>(path)) {
  const Directory d = find_directory(*file_);
  std::vector<unsigned char> bytes(static_cast<size_t>(d.size));
  file_->read_at(d.offset, bytes.data(), bytes.size());
  std::set<std::string> seen;
  const unsigned char* p = bytes.data();
  size_t left = bytes.size();
  for (uint64_t i = 0; i < d.count; ++i) {
    if (left < kCentralSize || u32(p) != kCentralSignature) malformed("has a broken zip directory", path);
    ZipMember m{.flags = u16(p + 8),
                .method = u16(p + 10),
                .crc = u32(p + 16),
                .compressed = u32(p + 20),
                .size = u32(p + 24),
                .header_offset = u32(p + 42)};
    const size_t name = u16(p + 28), extra = u16(p + 30), comment = u16(p + 32);
    if (name + extra + comment > left - kCentralSize) malformed("has a broken zip directory", path);
    m.name.assign(reinterpret_cast<const char*>(p + kCentralSize), name);
    apply_zip64(m, p + kCentralSize + name, extra, path);
    if (!seen.insert(m.name).second) malformed("has two members named '" + m.name + "'", path);
    members_.push_back(std::move(m));
    p += kCentralSize + name + extra + comment;
    left -= kCentralSize + name + extra + comment;
  }
}

std::unique_ptr<ByteSource> ZipReader::open(const ZipMember& member) const {
  const std::string where = file_->path() + ", member '" + member.name + "'";
  if (member.flags & 1) throw Error(ErrorKind::Unsupported, "is encrypted", where);
  unsigned char local[kLocalSize];
  if (member.header_offset > file_->size() || file_->size() - member.header_offset < kLocalSize) malformed("lies outside the file", where);
  file_->read_at(member.header_offset, local, sizeof local);
  if (u32(local) != kLocalSignature) malformed("has no header where the zip directory says", where);
  const uint64_t offset = member.header_offset + kLocalSize + u16(local + 26) + u16(local + 28);
  if (offset > file_->size() || member.compressed > file_->size() - offset) malformed("is truncated", where);
  if (member.method == 0) {
    if (member.compressed != member.size) malformed("is stored with two sizes", where);
    return std::make_unique<StoredSource>(file_, member, offset);
  }
  if (member.method != Z_DEFLATED)
    throw Error(ErrorKind::Unsupported, "is compressed with method " + std::to_string(member.method) + "; only deflate is read", where);
  // Deflate packs at most 258 bytes into 2 bits: a larger claim would only make a reader ask for memory.
  if (member.size / 1032 > member.compressed) malformed("claims more bytes than deflate could hold", where);
  return std::make_unique<InflateSource>(file_, member, offset);
}

}  // namespace infopt

#include "lib/data/npz_writer.h"

#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/data/npy.h"
#include "lib/data/spool.h"

namespace infopt {
namespace {

static_assert(std::endian::native == std::endian::little, "arrays are written in the machine's byte order, which the header calls little");

constexpr uint32_t kLocalSignature = 0x04034b50, kCentralSignature = 0x02014b50, kEndSignature = 0x06054b50;
constexpr uint32_t kEnd64Signature = 0x06064b50, kLocator64Signature = 0x07064b50;
constexpr uint64_t kMax32 = 0xFFFFFFFF;
constexpr uint64_t kDate = 0x21;  // 1980-01-01, the earliest that the format knows
constexpr uint64_t kUtf8 = 1 << 11, kMadeOnUnix = 3 << 8;
constexpr uint64_t kVersion = 20, kVersion64 = 45;

void put(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
}

/// The tensor in a type that NumPy has.
Tensor for_numpy(const Tensor& t) {
  switch (t.dtype()) {
    case DType::U4:
    case DType::U2: return cast(t, DType::U8);
    case DType::I4:
    case DType::I2: return cast(t, DType::I8);
    case DType::BF16:
    case DType::F8E4M3FN:
    case DType::F8E4M3FNUZ:
    case DType::F8E5M2:
    case DType::F8E5M2FNUZ:
    case DType::F8E8M0:
    case DType::F4E2M1: return cast(t, DType::F32);
    default: return t;
  }
}

/// UTF-8 to code points; a byte that isn't part of a valid sequence becomes U+FFFD.
std::u32string code_points(const std::string& s) {
  std::u32string out;
  for (size_t i = 0; i < s.size();) {
    const auto byte = [&](size_t k) { return static_cast<unsigned char>(s[k]); };
    const unsigned char lead = byte(i++);
    const size_t more = lead < 0x80                   ? 0
                        : lead >= 0xF0 && lead < 0xF8 ? 3
                        : lead >= 0xE0 && lead < 0xF0 ? 2
                        : lead >= 0xC2 && lead < 0xE0 ? 1
                                                      : 9;
    char32_t c = more == 0 ? lead : more == 9 ? 0xFFFD : lead & (0x3F >> more);
    size_t taken = 0;
    for (; more < 9 && taken < more && i + taken < s.size() && (byte(i + taken) & 0xC0) == 0x80; ++taken)
      c = c << 6 | (byte(i + taken) & 0x3F);
    constexpr char32_t kLeast[4] = {0, 0x80, 0x800, 0x10000};
    if (more < 9 && (taken < more || c < kLeast[more] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))) c = 0xFFFD;
    i += c == 0xFFFD ? 0 : taken;
    out += c;
  }
  return out;
}

/// Raw deflate whose pieces are complete bytes, so that one may stand before the other.
class Deflater {
 public:
  Deflater() {
    if (deflateInit2(&stream_, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
      throw Error(ErrorKind::Limit, "out of memory to deflate");
  }
  ~Deflater() { deflateEnd(&stream_); }
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;

  template <class Sink>
  void write(const char* p, size_t bytes, int flush, Sink sink) {
    char out[1 << 16];
    do {
      const size_t n = std::min(bytes, size_t{1} << 30);
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(p));
      stream_.avail_in = static_cast<uInt>(n);
      p += n;
      bytes -= n;
      do {
        stream_.next_out = reinterpret_cast<Bytef*>(out);
        stream_.avail_out = sizeof out;
        deflate(&stream_, bytes == 0 ? flush : Z_NO_FLUSH);
        sink(out, sizeof out - stream_.avail_out);
      } while (stream_.avail_out == 0);
    } while (bytes > 0);
  }

 private:
  z_stream stream_{};
};

uint32_t crc_of(uint32_t crc, const void* p, size_t bytes) {
  return bytes ? static_cast<uint32_t>(crc32_z(crc, static_cast<const Bytef*>(p), bytes)) : crc;
}

}  // namespace

struct NpzWriter::Array {
  Array(std::string array_name, const Tensor& like, const std::string& folder, bool compress)
      : name(std::move(array_name)), dtype(like.dtype()), shape(like.shape()), data(folder) {
    if (!shape.empty()) shape[0] = 0;
    if (compress) deflater = std::make_unique<Deflater>();
  }

  void write(const void* p, size_t bytes) {
    crc = crc_of(crc, p, bytes);
    size += bytes;
    if (!deflater) data.write(p, bytes);
    else if (bytes > 0) deflater->write(static_cast<const char*>(p), bytes, Z_NO_FLUSH, [&](const char* q, size_t n) { data.write(q, n); });
  }
  void take(const Tensor& t) {
    if (t.dtype() == DType::String) strings.insert(strings.end(), t.strings().begin(), t.strings().end());
    else write(t.raw(), t.bytes());
    if (!shape.empty()) shape[0] += t.dim(0);
  }
  /// Strings are as wide as the longest, so they are written when all are known. Returns the width.
  size_t write_strings() {
    std::vector<std::u32string> points;
    size_t width = 1;
    for (const std::string& s : strings) {
      points.push_back(code_points(s));
      width = std::max(width, points.back().size());
    }
    for (std::u32string& s : points) {
      s.resize(width);
      write(s.data(), width * 4);
    }
    return width;
  }

  std::string name;
  DType dtype;
  Shape shape;
  Spool data;
  std::unique_ptr<Deflater> deflater;
  std::vector<std::string> strings;
  uint32_t crc = 0;
  uint64_t size = 0;  ///< before compression
};

struct NpzWriter::Directory {
  std::string records;
  uint64_t offset = 0, count = 0;
};

NpzWriter::NpzWriter(const std::string& path, bool deflate) : file_(path), deflate_(deflate) {
  folder_ = std::filesystem::path(path).parent_path().string();
  if (folder_.empty()) folder_ = ".";
}

NpzWriter::~NpzWriter() = default;

NpzWriter::Array& NpzWriter::create(const std::string& name, const Tensor& like) {
  if (name.size() > 65000) throw Error(ErrorKind::Unsupported, "is too long a name for a .npz file", name.substr(0, 60) + "…");
  arrays_.push_back(std::make_unique<Array>(name, like, folder_, deflate_));
  return *arrays_.back();
}

void NpzWriter::add(const std::string& name, const Tensor& array) {
  for (const auto& a : arrays_)
    if (a->name == name) throw Error(ErrorKind::Defect, "was written twice", name);
  const Tensor t = for_numpy(array);
  create(name, t).take(t);
}

void NpzWriter::append(const std::string& name, const Tensor& rows) {
  const std::string where = file_.path() + ", array '" + name + "'";
  if (rows.rank() == 0) throw Error(ErrorKind::Malformed, "is a scalar and can't be appended to", where);
  const Tensor t = for_numpy(rows);
  const auto found = std::find_if(arrays_.begin(), arrays_.end(), [&](const auto& a) { return a->name == name; });
  Array& array = found == arrays_.end() ? create(name, t) : **found;
  if (t.dtype() != array.dtype || t.shape().size() != array.shape.size() ||
      !std::equal(t.shape().begin() + 1, t.shape().end(), array.shape.begin() + 1)) {
    Shape before = array.shape;
    if (!before.empty()) before[0] = t.dim(0);
    throw Error(ErrorKind::Malformed,
                "would be one array, but its parts differ: " + std::string(name_of(array.dtype)) + to_string(before) + " and " +
                    std::string(name_of(t.dtype())) + to_string(t.shape()),
                where);
  }
  array.take(t);
}

void NpzWriter::write_member(Array& array, Directory& directory) {
  const size_t width = array.dtype == DType::String ? array.write_strings() : 0;
  const std::string header = npy_header(array.dtype, array.shape, width);
  std::string packed = header;
  if (array.deflater) {
    // A full flush ends the header's blocks at a byte and forgets them: the data's own stream follows.
    packed.clear();
    Deflater().write(header.data(), header.size(), Z_FULL_FLUSH, [&](const char* p, size_t n) { packed.append(p, n); });
    array.deflater->write("", 0, Z_FINISH, [&](const char* p, size_t n) { array.data.write(p, n); });
  }
  const uint32_t crc =
      static_cast<uint32_t>(crc32_combine64(crc_of(0, header.data(), header.size()), array.crc, static_cast<z_off64_t>(array.size)));
  const uint64_t size = header.size() + array.size, compressed = packed.size() + array.data.size(), offset = directory.offset;
  const bool big = size >= kMax32 || compressed >= kMax32, far = offset >= kMax32;
  const std::string name = array.name + ".npy";

  const auto common = [&](std::string& out, size_t extra) {  // the fields that both kinds of header have, in this order
    put(out, big || far ? kVersion64 : kVersion, 2);
    put(out, kUtf8, 2);
    put(out, array.deflater ? 8 : 0, 2);
    put(out, 0, 2);
    put(out, kDate, 2);
    put(out, crc, 4);
    put(out, big ? kMax32 : compressed, 4);
    put(out, big ? kMax32 : size, 4);
    put(out, name.size(), 2);
    put(out, extra, 2);
  };
  const auto zip64 = [&](std::string& out, bool with_offset) {
    if (!big && !with_offset) return;
    put(out, 1, 2);
    put(out, (big ? 16 : 0) + (with_offset ? 8 : 0), 2);
    if (big) put(out, size, 8), put(out, compressed, 8);
    if (with_offset) put(out, offset, 8);
  };
  std::string local_extra, central_extra, local;
  zip64(local_extra, false);
  zip64(central_extra, far);
  put(local, kLocalSignature, 4);
  common(local, local_extra.size());
  file_.write(local + name + local_extra);
  file_.write(packed);
  array.data.read([&](std::string_view piece) { file_.write(piece); });
  directory.offset += local.size() + name.size() + local_extra.size() + compressed;

  std::string& central = directory.records;
  put(central, kCentralSignature, 4);
  put(central, kMadeOnUnix | kVersion64, 2);
  common(central, central_extra.size());
  put(central, 0, 2);               // comment
  put(central, 0, 2);               // disk
  put(central, 0, 2);               // internal attributes
  put(central, 0100644u << 16, 4);  // a regular file, rw-r--r--
  put(central, far ? kMax32 : offset, 4);
  central += name + central_extra;
  ++directory.count;
}

void NpzWriter::commit() {
  Directory d;
  for (const auto& array : arrays_) write_member(*array, d);
  std::string end;
  const bool big = d.offset >= kMax32 || d.records.size() >= kMax32 || d.count >= 0xFFFF;
  if (big) {
    put(end, kEnd64Signature, 4);
    put(end, 44, 8);  // bytes that follow
    put(end, kMadeOnUnix | kVersion64, 2);
    put(end, kVersion64, 2);
    put(end, 0, 8);  // disks
    put(end, d.count, 8);
    put(end, d.count, 8);
    put(end, d.records.size(), 8);
    put(end, d.offset, 8);
    put(end, kLocator64Signature, 4);
    put(end, 0, 4);
    put(end, d.offset + d.records.size(), 8);
    put(end, 1, 4);
  }
  put(end, kEndSignature, 4);
  put(end, 0, 4);
  put(end, std::min<uint64_t>(d.count, 0xFFFF), 2);
  put(end, std::min<uint64_t>(d.count, 0xFFFF), 2);
  put(end, std::min<uint64_t>(d.records.size(), kMax32), 4);
  put(end, big ? kMax32 : d.offset, 4);
  put(end, 0, 2);
  file_.write(d.records);
  file_.write(end);
  file_.commit();
}

}  // namespace infopt

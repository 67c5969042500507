#include "lib/data/npy.h"

#include <cstring>

#include "lib/base/error.h"

namespace infopt {
namespace {

constexpr size_t kMaxFortran = size_t{256} << 20;

void swap_bytes(std::byte* p, size_t count, size_t item) {
  for (size_t i = 0; i < count; ++i, p += item)
    for (size_t a = 0, b = item - 1; a < b; ++a, --b) std::swap(p[a], p[b]);
}

/// Any byte but 0 is true: a bool of another value would be undefined to read.
void normalize_bools(std::byte* p, size_t count) {
  for (size_t i = 0; i < count; ++i) p[i] = p[i] != std::byte{0} ? std::byte{1} : std::byte{0};
}

void append_utf8(std::string& out, uint32_t c, const std::string& where) {
  if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) throw Error(ErrorKind::Malformed, "holds a string that isn't Unicode", where);
  const auto push = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) return push(c);
  if (c < 0x800) return push(0xC0 | c >> 6), push(0x80 | (c & 0x3F));
  if (c < 0x10000) return push(0xE0 | c >> 12), push(0x80 | (c >> 6 & 0x3F)), push(0x80 | (c & 0x3F));
  push(0xF0 | c >> 18), push(0x80 | (c >> 12 & 0x3F)), push(0x80 | (c >> 6 & 0x3F)), push(0x80 | (c & 0x3F));
}

std::string decode_string(const std::byte* p, const NpyHeader& h, const std::string& where) {
  std::string text;
  if (!h.unicode) {
    text.assign(reinterpret_cast<const char*>(p), h.item);
    text.resize(text.find_last_not_of('\0') + 1);
    return text;
  }
  size_t chars = h.item / 4;
  const auto at = [&](size_t i) {
    uint32_t c;
    std::memcpy(&c, p + 4 * i, 4);
    return h.swapped ? __builtin_bswap32(c) : c;
  };
  while (chars > 0 && at(chars - 1) == 0) --chars;
  for (size_t i = 0; i < chars; ++i) append_utf8(text, at(i), where);
  return text;
}

}  // namespace

ArrayReader::ArrayReader(std::unique_ptr<ByteSource> source, std::string where) : source_(std::move(source)), where_(std::move(where)) {
  header_ = read_npy_header(*source_, where_);
}

Tensor ArrayReader::read(int64_t count) {
  if (count > rows() - next_) throw Error(ErrorKind::Defect, "more rows were read than there are", where_);
  Shape shape = header_.shape;
  if (!shape.empty()) shape[0] = count;
  Tensor t = header_.fortran ? read_fortran(count) : read_elements(std::move(shape));
  next_ += count;
  if (next_ == rows()) source_->finish();
  return t;
}

void ArrayReader::rewind() {
  next_ = 0;
  if (whole_.defined()) return;  // read, and checked
  source_->rewind();
  header_ = read_npy_header(*source_, where_);
}

Tensor ArrayReader::read_elements(Shape shape) {
  const size_t count = static_cast<size_t>(element_count(shape));
  if (header_.dtype == DType::String) return decode_strings(std::move(shape), count * header_.item);
  Tensor t(header_.dtype, std::move(shape));
  source_->read(t.mutable_raw(), t.bytes());
  if (header_.swapped) swap_bytes(t.mutable_raw(), count, header_.item);
  if (header_.dtype == DType::Bool) normalize_bools(t.mutable_raw(), count);
  return t;
}

Tensor ArrayReader::decode_strings(Shape shape, size_t bytes) {
  Tensor raw(DType::U8, {static_cast<int64_t>(bytes)});
  source_->read(raw.mutable_raw(), bytes);
  Tensor t(DType::String, std::move(shape));
  for (size_t i = 0; i < t.mutable_strings().size(); ++i)
    t.mutable_strings()[i] = decode_string(raw.raw() + i * header_.item, header_, where_);
  return t;
}

Tensor ArrayReader::read_fortran(int64_t count) {
  const Shape& full = header_.shape;
  if (header_.dtype == DType::String)
    throw Error(ErrorKind::Unsupported, "holds strings in Fortran order: save numpy.ascontiguousarray(a)", where_);
  if (bytes_of(header_.dtype, element_count(full)) > kMaxFortran)
    throw Error(ErrorKind::Unsupported, "is in Fortran order and larger than 256 MiB: save numpy.ascontiguousarray(a)", where_);
  if (!whole_.defined()) whole_ = read_elements(full);
  Shape shape = full;
  shape[0] = count;
  Tensor t(header_.dtype, shape);
  Shape index(shape.size());
  std::byte* out = t.mutable_raw();
  for (int64_t i = 0; i < t.size(); ++i, out += header_.item) {
    int64_t from = 0;
    for (size_t axis = shape.size(); axis-- > 0;) from = from * full[axis] + index[axis] + (axis == 0 ? next_ : 0);
    std::memcpy(out, whole_.raw() + static_cast<size_t>(from) * header_.item, header_.item);
    for (size_t axis = shape.size(); axis-- > 0 && ++index[axis] == shape[axis];) index[axis] = 0;
  }
  return t;
}

}  // namespace infopt

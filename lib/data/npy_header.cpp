#include <bit>
#include <charconv>
#include <map>
#include <optional>

#include "lib/base/error.h"
#include "lib/data/npy.h"

namespace infopt {
namespace {

constexpr size_t kMaxHeader = 64 << 10;

/// The header's text: a Python dictionary of literals. Only what NumPy writes there is understood.
class Literal {
 public:
  Literal(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  NpyHeader header() {
    NpyHeader h;
    bool seen_descr = false, seen_order = false, seen_shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr" && !seen_descr) {
        seen_descr = true;
        descr(h);
      } else if (key == "fortran_order" && !seen_order) {
        seen_order = true;
        h.fortran = boolean();
      } else if (key == "shape" && !seen_shape) {
        seen_shape = true;
        h.shape = shape();
      } else {
        broken();
      }
      if (accept('}')) break;
      expect(',');
    }
    if (!seen_descr || !seen_order || !seen_shape || !at_end()) broken();
    return h;
  }

 private:
  [[noreturn]] void broken() const { throw Error(ErrorKind::Malformed, "has a broken .npy header", where_); }
  [[noreturn]] void unsupported(const std::string& what) const {
    throw Error(ErrorKind::Unsupported, "has elements of NumPy's type " + what + ", which no tensor has", where_);
  }

  void skip_space() {
    while (position_ < text_.size() && (text_[position_] == ' ' || text_[position_] == '\n' || text_[position_] == '\t')) ++position_;
  }
  bool at_end() {
    skip_space();
    return position_ == text_.size();
  }
  bool accept(char c) {
    skip_space();
    if (position_ >= text_.size() || text_[position_] != c) return false;
    ++position_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) broken();
  }
  bool accept_word(std::string_view word) {
    skip_space();
    if (text_.substr(position_, word.size()) != word) return false;
    position_ += word.size();
    return true;
  }

  std::string string() {
    const char quote = accept('"') ? '"' : '\'';
    if (quote == '\'') expect('\'');
    const size_t end = text_.find(quote, position_);
    if (end == std::string_view::npos) broken();
    std::string value(text_.substr(position_, end - position_));
    position_ = end + 1;
    return value;
  }
  bool boolean() {
    if (accept_word("True")) return true;
    if (!accept_word("False")) broken();
    return false;
  }
  int64_t integer() {
    skip_space();
    int64_t value = 0;
    const char* begin = text_.data() + position_;
    const auto [end, code] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (code == std::errc::result_out_of_range) throw Error(ErrorKind::Malformed, "has a dimension that overflows 64 bits", where_);
    if (code != std::errc{}) broken();
    position_ += static_cast<size_t>(end - begin);
    accept('L');  // Python 2 wrote long integers so
    return value;
  }
  Shape shape() {
    Shape s;
    expect('(');
    while (!accept(')')) {
      s.push_back(integer());
      if (accept(')')) break;
      expect(',');
    }
    return s;
  }

  void descr(NpyHeader& h) {
    if (accept('[')) unsupported("record");
    const std::string code = string();
    if (code.size() < 2) broken();
    const char order = code[0], kind = code[1];
    if (order != '<' && order != '>' && order != '|' && order != '=') broken();
    if (kind == 'O')
      throw Error(ErrorKind::Malformed, "holds pickled Python objects, which are never unpickled: save plain arrays", where_);
    size_t width = 0;
    const char* begin = code.data() + 2;
    const auto [end, status] = std::from_chars(begin, code.data() + code.size(), width);
    if (end != code.data() + code.size() || status != std::errc{}) unsupported("'" + code + "'");
    h.dtype = dtype_of_code(kind, width);
    if (h.dtype == DType::Undefined || width > (1u << 20)) unsupported("'" + code + "'");
    h.unicode = kind == 'U';
    h.item = h.unicode ? width * 4 : width;
    const bool little = std::endian::native == std::endian::little;
    h.swapped = (order == '<' && !little) || (order == '>' && little);
  }

  static DType dtype_of_code(char kind, size_t width) {
    static const std::map<std::pair<char, size_t>, DType> kTypes{{{'f', 2}, DType::F16},  {{'f', 4}, DType::F32}, {{'f', 8}, DType::F64},
                                                                 {{'b', 1}, DType::Bool}, {{'i', 1}, DType::I8},  {{'i', 2}, DType::I16},
                                                                 {{'i', 4}, DType::I32},  {{'i', 8}, DType::I64}, {{'u', 1}, DType::U8},
                                                                 {{'u', 2}, DType::U16},  {{'u', 4}, DType::U32}, {{'u', 8}, DType::U64}};
    if (kind == 'U' || kind == 'S') return DType::String;
    const auto it = kTypes.find({kind, width});
    return it == kTypes.end() ? DType::Undefined : it->second;
  }

  std::string_view text_;
  const std::string& where_;
  size_t position_ = 0;
};

/// Fortran and C order are one where at most one dimension isn't 1.
bool order_matters(const Shape& shape) {
  int long_axes = 0;
  for (int64_t d : shape) long_axes += d != 1;
  return long_axes > 1;
}

}  // namespace

NpyHeader read_npy_header(ByteSource& source, const std::string& where) {
  unsigned char begin[12];
  if (source.size() < 10)
    throw Error(ErrorKind::Malformed, "isn't a .npy array: it has " + std::to_string(source.size()) + " bytes", where);
  source.read(begin, 10);
  if (std::string_view(reinterpret_cast<const char*>(begin), 6) != "\x93NUMPY") {
    if (begin[0] == 0x80) throw Error(ErrorKind::Malformed, "is a Python pickle, which is never unpickled: save plain arrays", where);
    throw Error(ErrorKind::Malformed, "isn't a .npy array", where);
  }
  const int major = begin[6];
  if (major < 1 || major > 3) throw Error(ErrorKind::Unsupported, "has .npy format version " + std::to_string(major), where);
  size_t length = begin[8] | size_t{begin[9]} << 8;
  uint64_t used = 10;
  if (major >= 2) {
    if (source.size() < 12) throw Error(ErrorKind::Malformed, "has a truncated .npy header", where);
    source.read(begin + 10, 2);
    length |= size_t{begin[10]} << 16 | size_t{begin[11]} << 24;
    used = 12;
  }
  if (length > kMaxHeader)
    throw Error(ErrorKind::Malformed, "has a .npy header of " + std::to_string(length) + " bytes; at most 65536 are read", where);
  if (length > source.size() - used) throw Error(ErrorKind::Malformed, "has a truncated .npy header", where);
  std::string text(length, '\0');
  source.read(text.data(), length);
  NpyHeader h = Literal(text, where).header();
  try {
    const int64_t count = element_count(h.shape);
    if (h.item > 0 && count > INT64_MAX / static_cast<int64_t>(h.item))
      throw Error(ErrorKind::Malformed, "the shape " + to_string(h.shape) + " overflows 64 bits");
    const uint64_t needed = static_cast<uint64_t>(count) * h.item, has = source.size() - used - length;
    if (needed != has)
      throw Error(ErrorKind::Malformed, "its shape " + to_string(h.shape) + " needs " + std::to_string(needed) +
                                            " bytes of data, and it has " + std::to_string(has));
  } catch (const Error& e) {
    throw e.within(where);
  }
  h.fortran = h.fortran && order_matters(h.shape);
  return h;
}

std::string npy_header(DType dtype, const Shape& shape, size_t chars) {
  static const std::map<DType, std::string> kCodes{{DType::F16, "<f2"}, {DType::F32, "<f4"},  {DType::F64, "<f8"}, {DType::Bool, "|b1"},
                                                   {DType::I8, "|i1"},  {DType::I16, "<i2"},  {DType::I32, "<i4"}, {DType::I64, "<i8"},
                                                   {DType::U8, "|u1"},  {DType::U16, "<u2"},  {DType::U32, "<u4"}, {DType::U64, "<u8"},
                                                   {DType::C64, "<c8"}, {DType::C128, "<c16"}};
  const auto code = kCodes.find(dtype);
  if (code == kCodes.end() && dtype != DType::String)
    throw Error(ErrorKind::Unsupported, std::string(name_of(dtype)) + " isn't one of NumPy's types");
  std::string text =
      "{'descr': '" + (dtype == DType::String ? "<U" + std::to_string(chars) : code->second) + "', 'fortran_order': False, 'shape': (";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  text += shape.size() == 1 ? ",), }" : "), }";
  constexpr size_t kPrefix = 10, kAlign = 64;
  text.append((kAlign - (kPrefix + text.size() + 1) % kAlign) % kAlign, ' ');
  text += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(text.size() & 0xFF);
  header += static_cast<char>(text.size() >> 8);
  return header + text;
}

}  // namespace infopt

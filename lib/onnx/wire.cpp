#include "lib/onnx/wire.h"

#include <optional>

#include "lib/base/error.h"

namespace infopt::wire {
namespace {

constexpr uint32_t kSegment = 3, kFloatData = 4, kRawData = 9, kDoubleData = 10;  // fields of TensorProto
constexpr uint32_t kDataType = 2;
constexpr uint64_t kFloat32 = 1, kFloat64 = 11;

[[noreturn]] void malformed(const char* what) { throw Error(ErrorKind::Malformed, what); }

Message child_of(Message kind, uint32_t number) {
  switch (kind) {
    case Message::Model: return number == 7 ? Message::Graph : Message::Other;
    case Message::Graph: return number == 1 ? Message::Node : number == 5 ? Message::Tensor : Message::Other;
    case Message::Node: return number == 5 ? Message::Attribute : Message::Other;
    case Message::Attribute:
      if (number == 5 || number == 10) return Message::Tensor;
      return number == 6 || number == 11 ? Message::Graph : Message::Other;
    default: return Message::Other;
  }
}

/// Where a tensor's elements lie as they do in memory: in raw_data, or in one packed chunk of floats or doubles.
std::string_view dense_data(std::string_view tensor) {
  Reader reader(tensor);
  Field f;
  uint64_t dtype = 0;
  std::optional<std::string_view> raw, floats, doubles;
  bool one_chunk = true;
  while (reader.next(f)) {
    if (f.number == kSegment) throw Error(ErrorKind::Unsupported, "a tensor is stored in segments");
    if (f.number == kDataType) dtype = f.value;
    if (f.number == kRawData && f.type == 2) raw = f.payload;
    if (f.number == kFloatData || f.number == kDoubleData) {
      auto& chunk = f.number == kFloatData ? floats : doubles;
      one_chunk = one_chunk && f.type == 2 && !chunk;
      chunk = f.payload;
    }
  }
  if (raw) return *raw;
  if (one_chunk && floats && dtype == kFloat32 && floats->size() % 4 == 0) return *floats;
  if (one_chunk && doubles && dtype == kFloat64 && doubles->size() % 8 == 0) return *doubles;
  return {};
}

std::string strip_tensor(std::string_view tensor, std::string_view base, size_t keep) {
  const std::string_view data = dense_data(tensor);
  if (data.size() <= keep) return std::string(tensor);
  Reader reader(tensor);
  Field f;
  std::string out;
  while (reader.next(f)) {
    if (f.number == kRawData || f.payload.data() == data.data()) continue;
    out += f.whole;
  }
  std::string segment;
  const uint64_t begin = static_cast<uint64_t>(data.data() - base.data());
  segment += '\x08';
  put_varint(segment, begin);
  segment += '\x10';
  put_varint(segment, begin + data.size());
  put_bytes(out, kSegment, segment);
  return out;
}

std::string strip(Message kind, std::string_view message, std::string_view base, size_t keep, int depth) {
  if (kind == Message::Tensor) return strip_tensor(message, base, keep);
  if (depth > kMaxDepth) throw Error(ErrorKind::Limit, "bodies are nested more than " + std::to_string(kMaxDepth) + " deep");
  Reader reader(message);
  Field f;
  std::string out;
  while (reader.next(f)) {
    const Message child = f.type == 2 ? child_of(kind, f.number) : Message::Other;
    if (child == Message::Other) out += f.whole;
    else put_bytes(out, f.number, strip(child, f.payload, base, keep, depth + (child == Message::Graph)));
  }
  return out;
}

void append(Rope& rope, std::string_view bytes) {
  if (rope.pieces.empty() || !std::holds_alternative<std::string>(rope.pieces.back())) rope.pieces.emplace_back(std::string());
  std::get<std::string>(rope.pieces.back()) += bytes;
  rope.bytes += bytes.size();
}

void append(Rope& rope, Rope&& tail) {
  for (auto& piece : tail.pieces) {
    if (auto* text = std::get_if<std::string>(&piece)) {
      if (rope.pieces.empty() || !std::holds_alternative<std::string>(rope.pieces.back())) rope.pieces.emplace_back(std::string());
      std::get<std::string>(rope.pieces.back()) += *text;
    } else {
      rope.pieces.push_back(std::move(piece));
    }
  }
  rope.bytes += tail.bytes;
}

void append_header(Rope& rope, uint32_t number, uint64_t length) {
  std::string header;
  put_varint(header, number << 3 | 2);
  put_varint(header, length);
  append(rope, header);
}

Rope expand_tensor(std::string_view tensor, const std::function<uint64_t(uint64_t)>& size_of) {
  Rope rope;
  Reader reader(tensor);
  Field f;
  bool has_blob = false;
  uint64_t blob = 0;
  auto put_blob = [&] {
    const uint64_t bytes = size_of(blob);
    append_header(rope, kRawData, bytes);
    rope.pieces.emplace_back(blob);
    rope.bytes += bytes;
    has_blob = false;
  };
  while (reader.next(f)) {
    if (f.number == kSegment) {
      Reader inner(f.payload);
      Field begin;
      while (inner.next(begin))
        if (begin.number == 1) has_blob = true, blob = begin.value;
      continue;
    }
    if (has_blob && f.number > kRawData) put_blob();
    append(rope, f.whole);
  }
  if (has_blob) put_blob();
  return rope;
}

}  // namespace

uint64_t Reader::varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (rest_.empty()) malformed("the file ends in the middle of a number: it is truncated, or not an ONNX model");
    const uint64_t byte = static_cast<unsigned char>(rest_.front());
    rest_.remove_prefix(1);
    value |= (byte & 0x7f) << shift;
    if (!(byte & 0x80)) return value;
  }
  malformed("a number has more than 64 bits: not an ONNX model");
}

std::string_view Reader::take(uint64_t count) {
  if (count > rest_.size()) malformed("a part is longer than the file: it is truncated, or not an ONNX model");
  const std::string_view part = rest_.substr(0, static_cast<size_t>(count));
  rest_.remove_prefix(static_cast<size_t>(count));
  return part;
}

bool Reader::next(Field& field) {
  if (rest_.empty()) return false;
  const char* start = rest_.data();
  const uint64_t tag = varint();
  field = {};
  if (tag >> 3 == 0 || tag >> 32 != 0) malformed("a field has no valid number: not an ONNX model");
  field.number = static_cast<uint32_t>(tag >> 3);
  field.type = static_cast<int>(tag & 7);
  switch (field.type) {
    case 0: field.value = varint(); break;
    case 1: take(8); break;
    case 2: field.payload = take(varint()); break;
    case 5: take(4); break;
    default: malformed("a field has an unknown wire type: not an ONNX model");
  }
  field.whole = {start, static_cast<size_t>(rest_.data() - start)};
  return true;
}

void put_varint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out += static_cast<char>(value | 0x80);
    value >>= 7;
  }
  out += static_cast<char>(value);
}

void put_bytes(std::string& out, uint32_t number, std::string_view payload) {
  put_varint(out, number << 3 | 2);
  put_varint(out, payload.size());
  out += payload;
}

std::string strip(Message kind, std::string_view message, size_t keep) { return strip(kind, message, message, keep, 0); }

Rope expand(Message kind, std::string_view message, const std::function<uint64_t(uint64_t)>& size_of) {
  if (kind == Message::Tensor) return expand_tensor(message, size_of);
  Rope rope;
  Reader reader(message);
  Field f;
  while (reader.next(f)) {
    const Message child = f.type == 2 ? child_of(kind, f.number) : Message::Other;
    if (child == Message::Other) {
      append(rope, f.whole);
    } else {
      Rope inner = expand(child, f.payload, size_of);
      append_header(rope, f.number, inner.bytes);
      append(rope, std::move(inner));
    }
  }
  return rope;
}

}  // namespace infopt::wire

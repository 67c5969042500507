// Protocol Buffers' wire format, walked without copying: large tensor data is taken out of a serialized model before it is
// parsed, and put back while it is written. https://protobuf.dev/programming-guides/encoding/
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace infopt::wire {

enum class Message { Model, Graph, Node, Attribute, Tensor, Other };

struct Field {
  uint32_t number = 0;
  int type = 0;              ///< 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes
  std::string_view whole;    ///< with its tag
  std::string_view payload;  ///< of a length-delimited field
  uint64_t value = 0;        ///< of a varint
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  /// False at the end. Throws Error(Malformed) where the bytes aren't a message.
  bool next(Field& field);

 private:
  uint64_t varint();
  std::string_view take(uint64_t count);
  std::string_view rest_;
};

void put_varint(std::string& out, uint64_t value);
void put_bytes(std::string& out, uint32_t number, std::string_view payload);

/// The message without the raw_data (and packed float_data or double_data) of more than `keep` bytes in its tensors: there
/// stands `segment {begin end}`, the bytes' place in `message`. Segments in the message itself are refused, so the mark is unmistakable.
/// Throws Error(Malformed), Error(Unsupported) for segments, Error(Limit) for bodies nested deeper than kMaxDepth.
std::string strip(Message kind, std::string_view message, size_t keep);
inline constexpr int kMaxDepth = 24;

/// Pieces that make up a message: bytes, or the number of a blob that comes from elsewhere.
struct Rope {
  std::vector<std::variant<std::string, uint64_t>> pieces;
  uint64_t bytes = 0;
};
/// The reverse: in each tensor whose `segment {begin}` is set, raw_data of blob `begin`, of `size_of(begin)` bytes, replaces it.
Rope expand(Message kind, std::string_view message, const std::function<uint64_t(uint64_t)>& size_of);

}  // namespace infopt::wire

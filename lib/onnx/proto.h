// ONNX's protobuf messages and infopt's values, one from the other. Only for files of lib/onnx.
#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/ir/graph.h"
#include "lib/onnx/source.h"
#include "onnx/onnx_pb.h"

namespace infopt {

using Metadata = std::vector<std::pair<std::string, std::string>>;

/// Data up to this many bytes stays in the parsed message; larger data stays in the file.
inline constexpr size_t kInlineBytes = 256;

/// The element type of that number. Throws Error(Unsupported) for one that ONNX has and infopt doesn't, Error(Malformed) for none.
DType dtype_from_onnx(int32_t number);

/// The tensor, its elements viewed in `source`. Throws Error(Malformed) where the data doesn't fit shape and
/// type.
Tensor decode_tensor(const onnx::TensorProto& proto, TensorSource& source);
/// The elements in raw_data (string_data for strings), copied.
void encode_tensor(const Tensor& tensor, onnx::TensorProto* proto);
/// Shape and type only.
void encode_header(const Tensor& tensor, onnx::TensorProto* proto);

Type decode_type(const onnx::TypeProto& proto);
/// Nothing is set where nothing is known.
void encode_type(const Type& type, onnx::TypeProto* proto);

template <class Props>
Metadata decode_metadata(const Props& props) {
  Metadata out;
  for (const auto& p : props) out.emplace_back(p.key(), p.value());
  return out;
}
template <class Props>
void encode_metadata(const Metadata& metadata, Props* props) {
  for (const auto& [key, value] : metadata) {
    auto* p = props->Add();
    p->set_key(key);
    p->set_value(value);
  }
}

/// Calls `work`; what ONNX's own code throws becomes Error(kind) with `what` before its message, on one line.
void guarded(ErrorKind kind, const std::string& what, const std::function<void()>& work);

/// "ai.onnx" is another name of the default domain.
inline std::string canonical_domain(const std::string& domain) { return domain == "ai.onnx" ? std::string() : domain; }

}  // namespace infopt

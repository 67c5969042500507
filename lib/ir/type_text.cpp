#include "lib/ir/type_text.h"

namespace infopt {

std::string to_string(const Type& t) {
  if (!t.opaque.empty()) return "not a tensor";
  std::string text(name_of(t.dtype));
  if (!t.has_shape) return text;
  text += "[";
  for (size_t i = 0; i < t.shape.size(); ++i) text += (i ? "," : "") + (t.shape[i].size >= 0 ? std::to_string(t.shape[i].size) : t.shape[i].symbol.empty() ? "?" : t.shape[i].symbol);
  return text + "]";
}

}  // namespace infopt

// StringConcat, StringSplit, StringNormalizer, RegexFullMatch. https://onnx.ai/onnx/operators/
#include <clocale>
#include <cwctype>
#include <locale.h>
#include <set>

#include "lib/base/regex.h"
#include "lib/base/strided.h"
#include "lib/base/utf8.h"
#include "lib/ops/broadcast.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

Tensor broadcast_to(const Tensor& x, const Shape& shape) {
  Shape strides = row_major_strides(x.shape());
  for (size_t i = 0; i < strides.size(); ++i)
    if (x.shape()[i] == 1) strides[i] = 0;
  strides.insert(strides.begin(), shape.size() - strides.size(), 0);
  return move_elements({x}, [&](const std::vector<Tensor>& in) { return gather_strided(in[0], shape, 0, strides); });
}

std::unique_ptr<Kernel> string_concat(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    const Tensor &a = c.in(0), &b = c.in(1);
    if (a.dtype() != DType::String || b.dtype() != DType::String) malformed("StringConcat of other than strings");
    const Shape shape = broadcast_shape(a.shape(), b.shape());
    Tensor y = broadcast_to(a, shape).clone();
    const Tensor tail = broadcast_to(b, shape);
    for (size_t i = 0; i < y.strings().size(); ++i) y.mutable_strings()[i] += tail.strings()[i];
    c.set(0, std::move(y));
  });
}

/// At most `most` cuts, any number where it is negative. Without a delimiter, at runs of white space, none of it leading.
std::vector<std::string> split(const std::string& text, const std::string& delimiter, int64_t most) {
  std::vector<std::string> parts;
  const auto may_cut = [&] { return most < 0 || static_cast<int64_t>(parts.size()) < most; };
  size_t begin = 0;
  if (!delimiter.empty()) {
    for (size_t cut; may_cut() && (cut = text.find(delimiter, begin)) != std::string::npos; begin = cut + delimiter.size())
      parts.push_back(text.substr(begin, cut - begin));
    parts.push_back(text.substr(begin));
    return parts;
  }
  constexpr const char* kSpace = " \t\n\v\f\r";
  while ((begin = text.find_first_not_of(kSpace, begin)) != std::string::npos) {
    const size_t end = may_cut() ? text.find_first_of(kSpace, begin) : std::string::npos;
    parts.push_back(text.substr(begin, end == std::string::npos ? end : end - begin));
    if (end == std::string::npos) break;
    begin = end;
  }
  return parts;
}

std::unique_ptr<Kernel> string_split(const KernelSpec& spec) {
  const std::string delimiter = spec.node.s("delimiter", "");
  const int64_t most = spec.node.find("maxsplit") ? spec.node.i("maxsplit", -1) : -1;
  return make_kernel([delimiter, most](KernelContext& c) {
    const Tensor& x = c.in(0);
    if (x.dtype() != DType::String) malformed("StringSplit of other than strings");
    std::vector<std::vector<std::string>> parts;
    size_t widest = 0;
    for (const std::string& text : x.strings()) {
      parts.push_back(split(text, delimiter, most));
      widest = std::max(widest, parts.back().size());
    }
    Shape shape = x.shape();
    shape.push_back(static_cast<int64_t>(widest));
    Tensor y(DType::String, shape), counts(DType::I64, x.shape());
    for (size_t i = 0; i < parts.size(); ++i) {
      counts.mutable_data<int64_t>()[i] = static_cast<int64_t>(parts[i].size());
      std::move(parts[i].begin(), parts[i].end(), y.mutable_strings().begin() + static_cast<ptrdiff_t>(i * widest));
    }
    c.set(0, std::move(y));
    if (c.wanted(1)) c.set(1, std::move(counts));
  });
}

enum class Case { Keep, Lower, Upper };

Case case_of(const Node& node) {
  const std::string name = node.s("case_change_action", "NONE");
  if (name == "NONE") return Case::Keep;
  if (name == "LOWER") return Case::Lower;
  if (name == "UPPER") return Case::Upper;
  malformed("StringNormalizer with the case_change_action '" + name + "'");
}

/// By Unicode's simple mappings, as the C library's UTF-8 locale has them; ASCII alone where it has no such locale.
std::string in_case(const std::string& text, Case wanted) {
  if (wanted == Case::Keep) return text;
  static const locale_t unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  std::string out;
  for (char32_t code : utf8::decode(text)) {
    const bool ascii = code < 128;
    if (ascii || unicode) {
      const auto w = static_cast<wint_t>(code);
      if (ascii && wanted == Case::Lower) code = code >= 'A' && code <= 'Z' ? code + 32 : code;
      else if (ascii) code = code >= 'a' && code <= 'z' ? code - 32 : code;
      else code = static_cast<char32_t>(wanted == Case::Lower ? towlower_l(w, unicode) : towupper_l(w, unicode));
    }
    utf8::append(out, code);
  }
  return out;
}

std::unique_ptr<Kernel> string_normalizer(const KernelSpec& spec) {
  const Case wanted = case_of(spec.node);
  const bool sensitive = spec.node.i("is_case_sensitive", 0) != 0;
  std::set<std::string> stopwords;
  if (const auto* words = spec.node.get<std::vector<std::string>>("stopwords"))
    for (const std::string& w : *words) stopwords.insert(sensitive ? w : in_case(w, Case::Lower));
  return make_kernel([=](KernelContext& c) {
    const Tensor& x = c.in(0);
    if (x.dtype() != DType::String || x.rank() < 1 || x.rank() > 2 || (x.rank() == 2 && x.dim(0) != 1))
      malformed("StringNormalizer takes strings of shape [C] or [1,C], not " + std::string(name_of(x.dtype())) + to_string(x.shape()));
    std::vector<std::string> kept;
    for (const std::string& text : x.strings())
      if (!stopwords.contains(sensitive ? text : in_case(text, Case::Lower))) kept.push_back(in_case(text, wanted));
    if (kept.empty()) kept.emplace_back();
    Shape shape = x.shape();
    shape.back() = static_cast<int64_t>(kept.size());
    Tensor y(DType::String, shape);
    y.mutable_strings() = std::move(kept);
    c.set(0, std::move(y));
  });
}

std::unique_ptr<Kernel> regex_full_match(const KernelSpec& spec) {
  return make_kernel([regex = Regex(spec.node.s("pattern", ""))](KernelContext& c) {
    const Tensor& x = c.in(0);
    if (x.dtype() != DType::String) malformed("RegexFullMatch of other than strings");
    Tensor y(DType::Bool, x.shape());
    for (size_t i = 0; i < x.strings().size(); ++i) y.mutable_data<bool>()[i] = regex.full_match(x.strings()[i]);
    c.set(0, std::move(y));
  });
}

}  // namespace

std::vector<OpDef> op_strings() {
  return {{.name = "StringConcat", .since = 20, .cpu = &string_concat},
          {.name = "StringSplit", .since = 20, .cpu = &string_split},
          {.name = "RegexFullMatch", .since = 20, .cpu = &regex_full_match},
          {.name = "StringNormalizer", .since = 10, .cpu = &string_normalizer}};
}

}  // namespace infopt

// What happens to a score between the two products, for both attention kernels.
#pragma once
#include "lib/runtime/cuda/attention.h"
#include "lib/runtime/cuda/portable.h"

namespace infopt::cuda {

struct KeyRange {
  int64_t begin, end;
};

/// One head's matrices, and what bounds its keys.
struct HeadPlace {
  int64_t q, k, v, mask, keep, out;  ///< of the first elements
  int64_t position, known;
  int64_t k_scale, v_scale;  ///< of the first elements, where they are codes
};

constexpr int64_t kFar = int64_t{1} << 40;  // beyond any position

INFOPT_DEVICE HeadPlace place_of(const AttentionTask& t, int64_t head) {
  HeadPlace h = {0, 0, 0, 0, 0, 0, t.position, t.known_keys, 0, 0};
  uint32_t rest = static_cast<uint32_t>(head);
  int64_t place = 0, at = 0;
  for (int d = kLeadAxes - 1; d >= 0; --d) {
    const uint32_t q = t.lead[d].divide(rest);
    place = static_cast<int64_t>(rest - q * t.lead[d].d);
    rest = q;
    h.q += place * t.q.lead[d];
    h.k += place * t.k.lead[d];
    h.v += place * t.v.lead[d];
    h.mask += place * t.mask.lead[d];
    h.keep += place * t.keep.lead[d];
    h.out += place * t.out.lead[d];
    h.k_scale += place * t.k_codes.at.lead[d];
    h.v_scale += place * t.v_codes.at.lead[d];
    at += place * t.lengths.lead[d];
  }
  if (t.lengths.data) {
    const int64_t given = static_cast<const int64_t*>(t.lengths.data)[at], length = given < -kFar ? -kFar : given > kFar ? kFar : given;
    if (t.position_from_length) h.position = length - t.queries_behind;
    if (length < h.known) h.known = length;
  }
  return h;
}

/// What a code means in attention of T, as DequantizeLinear would have stored it.
template <class T> INFOPT_DEVICE T meaning(DType type, uint8_t code, float scale, float zero) {
  float v;
  switch (type) {
    case DType::U8: v = static_cast<float>(code); break;
    case DType::I8: v = static_cast<float>(static_cast<int8_t>(code)); break;
    case DType::F8E4M3FN: v = load_float(float8_e4m3{code}); break;
    default: v = load_float(float8_e5m2{code}); break;
  }
  T to;
  store_float(to, __fmul_rn(v - zero, scale));
  return to;
}

/// The keys that a query may see.
INFOPT_DEVICE KeyRange keys_of(const AttentionTask& t, const HeadPlace& h, int64_t query) {
  KeyRange r{0, t.keys};
  if (!t.bounded) return r;
  const int64_t at = h.position + (t.one_position ? 0 : query);
  if (t.left >= 0 && at - t.left > 0) r.begin = at - t.left;
  if (t.right >= 0 && at < t.keys - t.right) r.end = at + t.right + 1;
  if (h.known < r.end) r.end = h.known;
  return r;
}

/// The keys that some query of [first, last] may see.
INFOPT_DEVICE KeyRange keys_of_all(const AttentionTask& t, const HeadPlace& h, int64_t first, int64_t last) {
  const KeyRange a = keys_of(t, h, first), b = keys_of(t, h, last);
  return {a.begin < b.begin ? a.begin : b.begin, a.end > b.end ? a.end : b.end};
}

INFOPT_DEVICE float mask_at(const AttentionTask& t, int64_t at) {
  if (t.mask_type == DType::F32) return static_cast<const float*>(t.mask.data)[at];
  return t.mask_type == DType::F16 ? load_float(static_cast<const half*>(t.mask.data)[at]) : load_float(static_cast<const bfloat16*>(t.mask.data)[at]);
}

/// The score of a query and a key from their product: scaled, capped, masked; −inf outside of the bounds.
INFOPT_DEVICE float finished_score(const AttentionTask& t, const HeadPlace& h, int64_t query, int64_t key, const KeyRange& range, float product) {
  if (key < range.begin || key >= range.end) return -INFINITY;
  float s = product * t.scale;
  if (t.softcap != 0) s = t.softcap * tanhf(product * (t.scale / t.softcap));
  const float mask = t.mask.data ? mask_at(t, h.mask + query * t.mask.row + key * t.mask.column) : 0.0f;
  if (!t.keep.data) return s + mask;
  const bool keeps = static_cast<const bool*>(t.keep.data)[h.keep + query * t.keep.row + key * t.keep.column] == t.keep_if;
  if (t.keep_last) return keeps ? s + mask : t.instead;
  return (keeps ? s : t.instead) + mask;
}

}  // namespace infopt::cuda

#include "lib/runtime/fusions/attention_operands.h"

#include <algorithm>
#include <string>

#include "lib/base/error.h"

namespace infopt {
namespace {
[[noreturn]] void malformed(const std::string& message) { throw Error(ErrorKind::Malformed, message); }
}  // namespace

AttentionOptions attention_options(const Node& node, int64_t opset, DType type) {
  const auto refuse = [](const char* reason) { throw Error(ErrorKind::Unsupported, reason); };
  if (node.outputs.size() > 3 && node.outputs[3] != kNone) refuse("the scores are an output");
  if (const int64_t precision = node.i("softmax_precision", 0); precision != 0 && precision != static_cast<int64_t>(DType::F32)) refuse("Softmax is asked for in another precision than float32");
  if (type == DType::F64) refuse("it is one of doubles");
  AttentionOptions o;
  o.causal = node.i("is_causal", 0) == 1;
  o.pads_mask = opset >= 24;
  o.q_heads = node.i("q_num_heads", 0), o.kv_heads = node.i("kv_num_heads", 0);
  o.left = std::min(node.i("left_window_size", -1), AttentionOptions::kFar), o.right = std::min(node.i("right_window_size", -1), AttentionOptions::kFar);
  o.softcap = node.f("softcap", 0);
  if (const float* scale = node.get<float>("scale")) o.scale = *scale;
  if (o.left < -1 || o.right < -1 || (o.scale && !(*o.scale >= 0))) refuse("its attributes have no meaning");
  return o;
}

AttentionOperand::AttentionOperand(const Shape& shape, int64_t head_count, const char* name) {
  if (shape.size() == 4) {
    batch = shape[0], heads = shape[1], rows = shape[2], depth = shape[3];
    row_stride = depth, head_stride = rows * depth;
  } else if (shape.size() == 3) {
    if (head_count < 1 || shape[2] % head_count != 0) malformed(std::string("Attention's ") + name + " of shape " + to_string(shape) + " has " + std::to_string(head_count) + " heads");
    batch = shape[0], rows = shape[1], heads = head_count, depth = shape[2] / head_count;
    head_stride = depth, row_stride = heads * depth;
  } else {
    malformed(std::string("Attention's ") + name + " has shape " + to_string(shape));
  }
  batch_stride = rows * heads * depth;
}

void check_attention(const AttentionOperand& q, const AttentionOperand& k, const AttentionOperand& v, const Shape& q_shape, const Shape& k_shape, const Shape& v_shape) {
  if (k.batch != q.batch || v.batch != q.batch || k.heads != v.heads || k.rows != v.rows || k.depth != q.depth || k.heads == 0 || q.heads % k.heads != 0)
    malformed("Attention of Q " + to_string(q_shape) + ", K " + to_string(k_shape) + " and V " + to_string(v_shape));
}

void check_past(const Tensor& past, const AttentionOperand& now, DType type) {
  if (past.rank() != 4 || past.shape() != now.shape_with(past.dim(2)) || past.dtype() != type)
    malformed("Attention's past has shape " + to_string(past.shape()) + " for " + to_string(now.shape_with(now.rows)));
}

}  // namespace infopt

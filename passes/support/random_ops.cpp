#include "passes/support/random_ops.h"

#include <algorithm>
#include <array>

#include "lib/ops/op.h"

namespace infopt {

bool is_random(const Node& node, int64_t opset) {
  static constexpr std::array kRandom{"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"};
  if (std::any_of(kRandom.begin(), kRandom.end(), [&](const char* op) { return node.is(op); })) return true;
  if (node.is("Dropout") && node.input(2) != kNone) return true;
  const OpDef* op = find_op(node.domain, node.op, opset);
  return op && op->nondeterministic;
}

}  // namespace infopt

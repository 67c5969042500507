// The rules, in the order in which they are tried: what covers most stands first.
#pragma once
#include "lib/runtime/fusion.h"

namespace infopt {

std::optional<FusedStep> fuse_attention(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_attention_operator(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_integer_conv(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_integer_product(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_dynamic_product(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_integer_table(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_integer_binary(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_integer_pool(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_integer_move(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_float_conv(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_float_product(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_row_norm(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_activation(PlanView& view, const Node& node);

inline constexpr FusionRule kFusionRules[] = {fuse_attention, fuse_attention_operator, fuse_integer_conv,  fuse_integer_product, fuse_dynamic_product, fuse_integer_table,
                                              fuse_integer_binary, fuse_integer_pool,    fuse_integer_move,    fuse_float_conv, fuse_float_product, fuse_row_norm, fuse_activation};

}  // namespace infopt

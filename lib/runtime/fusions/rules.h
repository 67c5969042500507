// The rules, in the order in which they are tried: what covers most stands first.
#pragma once
#include "lib/runtime/fusion.h"

namespace infopt {

std::optional<FusedStep> fuse_attention(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_attention_operator(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_integer_conv(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_integer_product(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_dynamic_product(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_dynamic_conv(PlanView& view, const Node& node);
/// Two activations from DynamicQuantizeLinear.
std::optional<FusedStep> fuse_dynamic_matmul(PlanView& view, const Node& node);
/// MatMulInteger and ConvInteger as they stand.
std::optional<FusedStep> fuse_integer_sums(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_integer_table(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_integer_binary(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_integer_pool(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_integer_move(PlanView& view, const Node& node);
/// QLinearConv and its like, by the rules above.
std::optional<FusedStep> fuse_quantized_operator(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_float_conv(PlanView& view, const Node& node);
/// Products with weights that stay in 4 or 8 bits; on a device.
std::optional<FusedStep> fuse_low_bit_product(PlanView& view, const Node& node);
/// Products of float8 codes; on a device.
std::optional<FusedStep> fuse_float8_product(PlanView& view, const Node& node);
/// Whether the rule takes the node, a product or the Add of its bias.
bool is_float8_product(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_float_product(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_row_norm(PlanView& view, const Node& node);
/// Softmax to codes; on a device.
std::optional<FusedStep> fuse_coded_softmax(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_rotary(PlanView& view, const Node& node);
std::optional<FusedStep> fuse_activation(PlanView& view, const Node& node);

struct Rule {
  FusionRule fuse;
  bool any_device;  ///< it makes its kernel through view.device() where there is one
};
inline constexpr Rule kFusionRules[] = {
    {fuse_attention, true},
    {fuse_attention_operator, true},
    {fuse_integer_conv, true},
    {fuse_integer_product, true},
    {fuse_dynamic_product, true},
    {fuse_dynamic_conv, true},
    {fuse_dynamic_matmul, true},
    {fuse_integer_sums, true},
    {fuse_integer_table, true},
    {fuse_integer_binary, true},
    {fuse_integer_pool, true},
    {fuse_integer_move, true},
    {fuse_quantized_operator, true},
    {fuse_float_conv, true},
    {fuse_low_bit_product, true},
    {fuse_float8_product, true},
    {fuse_float_product, true},
    {fuse_row_norm, true},
    {fuse_coded_softmax, true},
    {fuse_rotary, false},
    {fuse_activation, false},
};

}  // namespace infopt

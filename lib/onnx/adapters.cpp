#include "lib/onnx/adapters.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "lib/base/error.h"

namespace infopt {
namespace {

[[noreturn]] void impossible(const std::string& why) { throw Error(ErrorKind::Unsupported, "can't be carried to a newer opset: " + why); }

DType dtype_of_value(const Graph& graph, ValueId id) {
  const Value& v = graph.value(id);
  const DType dtype = v.constant.defined() ? v.constant.dtype() : v.type.dtype;
  if (dtype == DType::Undefined) impossible("the element type of its input isn't known");
  return dtype;
}

/// An attribute of integers becomes an input.
void ints_to_input(GraphEdit& edit, NodeId id, const char* attribute, size_t index) {
  const auto* values = edit.graph().node(id).get<std::vector<int64_t>>(attribute);
  if (values && !values->empty()) edit.set_input(id, index, edit.add_constant(Tensor::vector(*values)));
  edit.remove_attribute(id, attribute);
}

/// An attribute of one number becomes an input of the element type that input 0 has.
void float_to_input(GraphEdit& edit, NodeId id, const char* attribute, size_t index, float left_out) {
  const auto* value = edit.graph().node(id).get<float>(attribute);
  if (value && *value != left_out) {
    const DType dtype = dtype_of_value(edit.graph(), edit.graph().node(id).input(0));
    edit.set_input(id, index, edit.add_constant(cast(Tensor::scalar(*value), dtype)));
  }
  edit.remove_attribute(id, attribute);
}

void drop_outputs(GraphEdit& edit, NodeId id, size_t keep, const char* what) {
  for (size_t i = edit.graph().node(id).outputs.size(); i-- > keep;) {
    const ValueId out = edit.graph().node(id).outputs[i];
    if (out == kNone) continue;
    if (!edit.graph().value(out).uses.empty()) impossible(what);
    edit.drop_output(id, i);
  }
}

void axes_to_input(GraphEdit& edit, NodeId id) { ints_to_input(edit, id, "axes", 1); }

void batch_normalization_9(GraphEdit& edit, NodeId id) {
  if (edit.graph().node(id).i("spatial", 1) != 1) impossible("it normalizes each element by itself (spatial=0)");
  edit.remove_attribute(id, "spatial");
}

void batch_normalization_14(GraphEdit& edit, NodeId id) { drop_outputs(edit, id, 1, "its training outputs are used"); }

void upsample_9(GraphEdit& edit, NodeId id) {
  const std::vector<float> scales = edit.graph().node(id).floats("scales");
  if (!scales.empty()) edit.set_input(id, 1, edit.add_constant(Tensor::vector(scales)));
  edit.remove_attribute(id, "scales");
}

void upsample_10(GraphEdit& edit, NodeId id) { edit.set_op(id, "Resize"); }

void dropout_10(GraphEdit& edit, NodeId id) { drop_outputs(edit, id, 1, "its mask is used as numbers"); }

void dropout_12(GraphEdit& edit, NodeId id) {
  const float ratio = edit.graph().node(id).f("ratio", 0.5f);
  if (ratio != 0.5f) edit.set_input(id, 1, edit.add_constant(Tensor::scalar(ratio)));
  edit.remove_attribute(id, "ratio");
}

void slice_10(GraphEdit& edit, NodeId id) {
  ints_to_input(edit, id, "starts", 1);
  ints_to_input(edit, id, "ends", 2);
  ints_to_input(edit, id, "axes", 3);
}

void top_k_10(GraphEdit& edit, NodeId id) {
  edit.set_input(id, 1, edit.add_constant(Tensor::of<int64_t>({1}, {edit.graph().node(id).i("k", 1)})));
  edit.remove_attribute(id, "k");
}

void clip_11(GraphEdit& edit, NodeId id) {
  float_to_input(edit, id, "min", 1, std::numeric_limits<float>::lowest());
  float_to_input(edit, id, "max", 2, std::numeric_limits<float>::max());
}

void pad_11(GraphEdit& edit, NodeId id) {
  ints_to_input(edit, id, "pads", 1);
  float_to_input(edit, id, "value", 2, 0.0f);
}

/// Before version 11 coordinates were asymmetric; nearest took the floor where it enlarged and the ceiling where it shrank.
void resize_11(GraphEdit& edit, NodeId id) {
  const Node& node = edit.graph().node(id);
  const ValueId scales = node.input(1);
  if (scales == kNone) impossible("it has no scales");
  const bool nearest = node.s("mode", "nearest") == "nearest";
  bool enlarges = false, shrinks = false;
  if (const Tensor* constant = edit.graph().constant(scales); constant && constant->dtype() == DType::F32)
    for (float s : constant->span<float>()) {
      enlarges = enlarges || (s > 1 && s != std::floor(s));
      shrinks = shrinks || (s < 1 && 1 / s != std::floor(1 / s));
    }
  if (nearest && enlarges && shrinks) impossible("it enlarges some axes and shrinks others by factors that round differently");
  edit.set_inputs(id, {node.input(0), edit.add_constant(Tensor(DType::F32, {0})), scales});
  edit.set_attribute(id, "coordinate_transformation_mode", std::string("asymmetric"));
  if (nearest) edit.set_attribute(id, "nearest_mode", std::string(shrinks ? "ceil" : "floor"));
}

/// Empty stand-ins for inputs that version 13 lets be left out.
void resize_13(GraphEdit& edit, NodeId id) {
  if (edit.graph().node(id).s("coordinate_transformation_mode", "") == "tf_half_pixel_for_nn")
    impossible("coordinate_transformation_mode tf_half_pixel_for_nn is gone");
  for (size_t i = 1; i < 3; ++i) {
    const ValueId v = edit.graph().node(id).input(i);
    const Tensor* constant = edit.graph().constant(v);
    if (constant && constant->size() == 0) edit.set_input(id, i, kNone);
  }
}

void scatter_11(GraphEdit& edit, NodeId id) { edit.set_op(id, "ScatterElements"); }

/// Before version 13 Softmax and its like took all axes from `axis` on as one.
void softmax_13(GraphEdit& edit, NodeId id) {
  const Node& node = edit.graph().node(id);
  const int64_t axis = node.i("axis", 1);
  const ValueId in = node.input(0), out = node.outputs.at(0);
  const Type& type = edit.graph().value(in).type;
  const auto rank = static_cast<int64_t>(type.shape.size());
  bool single = axis == -1 || (type.has_shape && axis == rank - 1);
  if (type.has_shape && !single) {
    const int64_t first = axis < 0 ? axis + rank : axis;
    single = first >= 0 && first < rank &&
             std::all_of(type.shape.begin() + first + 1, type.shape.end(), [](const Dim& d) { return d.size == 1; });
  }
  if (single) {
    edit.set_attribute(id, "axis", axis);
    return;
  }
  const ValueId flat = edit.add({.op = "Flatten", .attributes = {{"axis", axis, {}}}}, {in}, id);
  const ValueId shape = edit.add({.op = "Shape"}, {in}, id);
  edit.set_input(id, 0, flat);
  edit.set_attribute(id, "axis", int64_t{-1});
  const ValueId made = edit.add_value();
  edit.replace_output(id, 0, made);
  edit.add_node({.op = "Reshape"}, {made, shape}, {out});
}

void split_13(GraphEdit& edit, NodeId id) { ints_to_input(edit, id, "split", 1); }

void split_18(GraphEdit& edit, NodeId id) {
  const Node& node = edit.graph().node(id);
  if (node.input(1) == kNone) edit.set_attribute(id, "num_outputs", static_cast<int64_t>(node.outputs.size()));
}

void roi_align_16(GraphEdit& edit, NodeId id) {
  edit.set_attribute(id, "coordinate_transformation_mode", std::string("output_half_pixel"));
}

void dft_20(GraphEdit& edit, NodeId id) {
  edit.set_input(id, 2, edit.add_constant(Tensor::scalar(edit.graph().node(id).i("axis", 1))));
  edit.remove_attribute(id, "axis");
}

void grid_sample_20(GraphEdit& edit, NodeId id) {
  const std::string mode = edit.graph().node(id).s("mode", "bilinear");
  edit.set_attribute(id, "mode", std::string(mode == "bilinear" ? "linear" : mode == "bicubic" ? "cubic" : mode));
}

/// Scale and bias by group become scale and bias by channel.
void group_normalization_21(GraphEdit& edit, NodeId id) {
  const Type& type = edit.graph().value(edit.graph().node(id).input(0)).type;
  const int64_t groups = edit.graph().node(id).i("num_groups", 0), channels = type.shape.size() > 1 ? type.shape[1].size : -1;
  if (groups < 1 || channels < 1 || channels % groups != 0) impossible("the number of its channels isn't known");
  for (size_t i = 1; i < 3; ++i) {
    const ValueId column =
        edit.add({.op = "Reshape"}, {edit.graph().node(id).input(i), edit.add_constant(Tensor::of<int64_t>({2}, {groups, 1}))}, id);
    const ValueId rows = edit.add({.op = "Expand"}, {column, edit.add_constant(Tensor::of<int64_t>({2}, {groups, channels / groups}))}, id);
    edit.set_input(id, i, edit.add({.op = "Reshape"}, {rows, edit.add_constant(Tensor::of<int64_t>({1}, {-1}))}, id));
  }
}

void scan_9(GraphEdit&, NodeId) { impossible("Scan of opset 8 runs over a batch"); }

using Adapter = void (*)(GraphEdit&, NodeId);
const std::map<std::pair<std::string, int64_t>, Adapter>& adapters() {
  static const std::map<std::pair<std::string, int64_t>, Adapter> table{
      {{"BatchNormalization", 9}, batch_normalization_9},
      {{"BatchNormalization", 14}, batch_normalization_14},
      {{"Clip", 11}, clip_11},
      {{"DFT", 20}, dft_20},
      {{"Dropout", 10}, dropout_10},
      {{"Dropout", 12}, dropout_12},
      {{"GridSample", 20}, grid_sample_20},
      {{"GroupNormalization", 21}, group_normalization_21},
      {{"Hardmax", 13}, softmax_13},
      {{"LogSoftmax", 13}, softmax_13},
      {{"Pad", 11}, pad_11},
      {{"ReduceL1", 18}, axes_to_input},
      {{"ReduceL2", 18}, axes_to_input},
      {{"ReduceLogSum", 18}, axes_to_input},
      {{"ReduceLogSumExp", 18}, axes_to_input},
      {{"ReduceMax", 18}, axes_to_input},
      {{"ReduceMean", 18}, axes_to_input},
      {{"ReduceMin", 18}, axes_to_input},
      {{"ReduceProd", 18}, axes_to_input},
      {{"ReduceSum", 13}, axes_to_input},
      {{"ReduceSumSquare", 18}, axes_to_input},
      {{"Resize", 11}, resize_11},
      {{"Resize", 13}, resize_13},
      {{"RoiAlign", 16}, roi_align_16},
      {{"Scan", 9}, scan_9},
      {{"Scatter", 11}, scatter_11},
      {{"Slice", 10}, slice_10},
      {{"Softmax", 13}, softmax_13},
      {{"Split", 13}, split_13},
      {{"Split", 18}, split_18},
      {{"Squeeze", 13}, axes_to_input},
      {{"TopK", 10}, top_k_10},
      {{"Unsqueeze", 13}, axes_to_input},
      {{"Upsample", 9}, upsample_9},
      {{"Upsample", 10}, upsample_10},
  };
  return table;
}

}  // namespace

void adapt_node(GraphEdit& edit, NodeId node, int64_t version) {
  const auto it = adapters().find({edit.graph().node(node).op, version});
  if (it != adapters().end()) it->second(edit, node);
}

}  // namespace infopt

#include "lib/onnx/functions.h"

#include <algorithm>
#include <map>
#include <string>

#include "lib/base/error.h"
#include "lib/onnx/proto.h"
#include "onnx/inliner/inliner.h"

namespace infopt {
namespace {

constexpr int64_t kMaxNodes = 1000000;
constexpr int kMaxCalls = 100;

class Functions {
 public:
  explicit Functions(const onnx::ModelProto& model) {
    for (const auto& f : model.functions()) functions_[key(f.domain(), f.name(), f.overload())].function = &f;
  }

  /// Calls that leave out an attribute get the function's default, which ONNX's inliner doesn't know.
  void set_defaults(google::protobuf::RepeatedPtrField<onnx::NodeProto>* nodes) const {
    for (onnx::NodeProto& n : *nodes) {
      for (auto& a : *n.mutable_attribute()) {
        if (a.has_g()) set_defaults(a.mutable_g()->mutable_node());
        for (auto& g : *a.mutable_graphs()) set_defaults(g.mutable_node());
      }
      const auto it = functions_.find(key(n.domain(), n.op_type(), n.overload()));
      if (it == functions_.end()) continue;
      for (const auto& d : it->second.function->attribute_proto())
        if (std::none_of(n.attribute().begin(), n.attribute().end(), [&](const auto& a) { return a.name() == d.name(); }))
          *n.add_attribute() = d;
    }
  }

  /// The nodes that remain once every call is inlined.
  template <class Nodes>
  int64_t of(const Nodes& nodes) {
    int64_t total = 0;
    for (const onnx::NodeProto& n : nodes) {
      total += of_call(n);
      for (const auto& a : n.attribute()) {
        total += of(a.g().node());
        for (const auto& g : a.graphs()) total += of(g.node());
      }
      if (total > kMaxNodes) throw Error(ErrorKind::Limit, "with its functions inlined the model has more than a million nodes");
    }
    return total;
  }

 private:
  struct Entry {
    const onnx::FunctionProto* function = nullptr;
    int64_t nodes = 0;
    bool open = false, known = false;
  };

  static std::string key(const std::string& domain, const std::string& name, const std::string& overload) {
    return canonical_domain(domain) + '\0' + name + '\0' + overload;
  }

  int64_t of_call(const onnx::NodeProto& n) {
    const auto it = functions_.find(key(n.domain(), n.op_type(), n.overload()));
    if (it == functions_.end()) return 1;
    Entry& entry = it->second;
    if (entry.open) throw Error(ErrorKind::Malformed, "the function '" + n.op_type() + "' calls itself");
    if (!entry.known) {
      if (++depth_ > kMaxCalls)
        throw Error(ErrorKind::Limit, "functions call one another more than " + std::to_string(kMaxCalls) + " deep");
      entry.open = true;
      entry.nodes = of(entry.function->node());
      entry.open = false;
      --depth_;
      entry.known = true;
    }
    return entry.nodes;
  }

  std::map<std::string, Entry> functions_;
  int depth_ = 0;
};

}  // namespace

void inline_functions(onnx::ModelProto& model) {
  if (model.functions_size() == 0) return;
  Functions functions(model);
  functions.of(model.graph().node());
  functions.set_defaults(model.mutable_graph()->mutable_node());
  for (auto& f : *model.mutable_functions()) functions.set_defaults(f.mutable_node());
  guarded(ErrorKind::Unsupported, "the model's functions can't be inlined", [&] { onnx::inliner::InlineLocalFunctions(model, true); });
}

}  // namespace infopt

#include "lib/ir/graph.h"

#include <algorithm>

namespace infopt {

Type Type::tensor(DType dtype, const Shape& shape) {
  Type t{dtype, true, {}, {}};
  for (int64_t d : shape) t.shape.push_back({d, {}});
  return t;
}

std::optional<Shape> Type::fixed_shape() const {
  if (!has_shape) return std::nullopt;
  Shape out;
  for (const Dim& d : shape) {
    if (d.size < 0) return std::nullopt;
    out.push_back(d.size);
  }
  return out;
}

const Attribute* Node::find(std::string_view attribute) const {
  for (const Attribute& a : attributes)
    if (a.name == attribute) return &a;
  return nullptr;
}

int64_t Node::i(std::string_view attribute, int64_t otherwise) const {
  const auto* v = get<int64_t>(attribute);
  return v ? *v : otherwise;
}

float Node::f(std::string_view attribute, float otherwise) const {
  const auto* v = get<float>(attribute);
  return v ? *v : otherwise;
}

std::string Node::s(std::string_view attribute, std::string otherwise) const {
  const auto* v = get<std::string>(attribute);
  return v ? *v : otherwise;
}

std::vector<int64_t> Node::ints(std::string_view attribute, std::vector<int64_t> otherwise) const {
  const auto* v = get<std::vector<int64_t>>(attribute);
  return v ? *v : otherwise;
}

std::vector<float> Node::floats(std::string_view attribute) const {
  const auto* v = get<std::vector<float>>(attribute);
  return v ? *v : std::vector<float>{};
}

std::vector<std::shared_ptr<Graph>> Node::bodies() const {
  std::vector<std::shared_ptr<Graph>> out;
  for (const Attribute& a : attributes) {
    if (const auto* one = std::get_if<std::shared_ptr<Graph>>(&a.data)) out.push_back(*one);
    if (const auto* many = std::get_if<std::vector<std::shared_ptr<Graph>>>(&a.data)) out.insert(out.end(), many->begin(), many->end());
  }
  return out;
}

const Node* Graph::producer(ValueId id) const {
  if (id == kNone || value(id).producer == kNone) return nullptr;
  return &node(value(id).producer);
}

const Tensor* Graph::constant(ValueId id) const {
  if (id == kNone) return nullptr;
  const Value& v = value(id);
  if (v.is_constant()) return &v.constant;
  const Node* p = producer(id);
  return p && p->is("Constant") ? p->get<Tensor>("value") : nullptr;
}

const Node* Graph::sole_consumer(ValueId id) const {
  const Value& v = value(id);
  if (v.uses.size() != 1 || v.uses[0].index < 0) return nullptr;
  return &node(v.uses[0].node);
}

bool Graph::is_output(ValueId id) const {
  const auto& uses = value(id).uses;
  return std::any_of(uses.begin(), uses.end(), [](const Use& u) { return u.index == kGraphOutput; });
}

ValueId Graph::find_value(std::string_view wanted) const {
  for (const Value& v : values_)
    if (v.id != kNone && v.name == wanted) return v.id;
  return kNone;
}

std::string Graph::label(NodeId id) const {
  const Node& n = node(id);
  if (!n.name.empty()) return n.name;
  for (ValueId o : n.outputs)
    if (o != kNone) return n.op + " → " + value(o).name;
  return n.op;
}

int64_t Graph::opset(const std::string& domain) const {
  const auto it = opsets.find(domain);
  return it == opsets.end() ? 0 : it->second;
}

std::shared_ptr<Graph> Graph::clone() const {
  auto copy = std::make_shared<Graph>(*this);
  for (Node& n : copy->nodes_)
    for (Attribute& a : n.attributes) {
      if (auto* one = std::get_if<std::shared_ptr<Graph>>(&a.data)) *one = (*one)->clone();
      if (auto* many = std::get_if<std::vector<std::shared_ptr<Graph>>>(&a.data))
        for (auto& g : *many) g = g->clone();
    }
  return copy;
}

}  // namespace infopt

// What an Einsum's equation says: a label for each axis of each operand and of the result.
#pragma once
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/ir/graph.h"
#include "lib/ops/kernel_util.h"

namespace infopt::einsum {

/// Labels are characters; the axes behind an ellipsis get codes from 256 on, counted from the last axis.
using Labels = std::vector<int>;

struct Equation {
  std::vector<std::string> inputs;
  std::string output;
  bool explicit_output = false;
};

inline Equation parse(const std::string& text) {
  Equation e;
  std::string dense;
  for (const char ch : text)
    if (ch != ' ') dense += ch;
  const size_t arrow = dense.find("->");
  e.explicit_output = arrow != std::string::npos;
  if (e.explicit_output) e.output = dense.substr(arrow + 2);
  const std::string left = dense.substr(0, arrow);
  size_t from = 0;
  for (size_t comma = left.find(','); comma != std::string::npos; comma = left.find(',', from)) {
    e.inputs.push_back(left.substr(from, comma - from));
    from = comma + 1;
  }
  e.inputs.push_back(left.substr(from));
  return e;
}

using Sizes = std::map<int, int64_t>;

/// The labels of a term for `ellipsis` axes behind its dots.
inline Labels labels_of(const std::string& term, int64_t ellipsis) {
  Labels labels;
  for (size_t i = 0; i < term.size(); ++i) {
    if (term.compare(i, 3, "...") == 0) {
      for (int64_t k = ellipsis; k-- > 0;) labels.push_back(256 + static_cast<int>(k));
      i += 2;
    } else if ((term[i] >= 'a' && term[i] <= 'z') || (term[i] >= 'A' && term[i] <= 'Z')) {
      labels.push_back(term[i]);
    } else {
      malformed("Einsum's term '" + term + "' isn't made of letters");
    }
  }
  return labels;
}

inline bool has(const Labels& labels, int label) { return std::find(labels.begin(), labels.end(), label) != labels.end(); }

/// The labels of an operand of this shape; sizes gets theirs, where 1 widens, and `widest` the most axes behind an ellipsis.
inline Labels operand_labels(const Shape& shape, const std::string& term, Sizes& sizes, int64_t& widest) {
  const auto rank = static_cast<int64_t>(shape.size());
  const bool dots = term.find("...") != std::string::npos;
  const auto letters = static_cast<int64_t>(term.size()) - (dots ? 3 : 0);
  const int64_t ellipsis = dots ? rank - letters : 0;
  widest = std::max(widest, ellipsis);
  if (ellipsis < 0) malformed("Einsum's term '" + term + "' for a tensor of shape " + to_string(shape));
  const Labels labels = labels_of(term, ellipsis);
  if (static_cast<int64_t>(labels.size()) != rank) malformed("Einsum's term '" + term + "' for a tensor of shape " + to_string(shape));
  for (size_t i = 0; i < labels.size(); ++i) {
    int64_t& size = sizes.emplace(labels[i], shape[i]).first->second;
    if (size == 1) size = shape[i];
    if (shape[i] != 1 && shape[i] != size) malformed("Einsum's label stands for dimensions of " + std::to_string(size) + " and " + std::to_string(shape[i]));
  }
  return labels;
}

/// The result's labels where `widest` axes are behind the ellipses; all of them are in `sizes`.
inline Labels output_labels(const Equation& equation, int64_t widest, const Sizes& sizes) {
  Labels labels;
  if (equation.explicit_output) {
    labels = labels_of(equation.output, widest);
  } else {
    labels = labels_of("...", widest);
    std::map<int, int> uses;
    for (const std::string& term : equation.inputs)
      for (const int label : labels_of(term, 0)) ++uses[label];
    for (const auto& [label, count] : uses)
      if (count == 1) labels.push_back(label);
  }
  for (const int label : labels)
    if (!sizes.count(label) || std::count(labels.begin(), labels.end(), label) > 1) malformed("Einsum's output has a label that is repeated or in no input");
  return labels;
}

/// Throws Error(Malformed) where the equation isn't one for so many inputs.
inline Equation equation_of(const Node& node) {
  Equation e = parse(node.s("equation", ""));
  if (e.inputs.size() != node.inputs.size()) malformed("Einsum's equation has " + std::to_string(e.inputs.size()) + " terms for " + std::to_string(node.inputs.size()) + " inputs");
  return e;
}

}  // namespace infopt::einsum

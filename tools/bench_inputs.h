// What `infopt bench` feeds: rows of a file, or made-up tensors of the declared shapes.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/data/dataset.h"
#include "lib/ir/graph.h"

namespace infopt {

using Inputs = std::map<std::string, Tensor>;

struct BenchInputSpec {
  std::string file;                 ///< empty: made-up inputs
  std::vector<std::string> shapes;  ///< "name=B,3,48,192"; B is the batch
  std::vector<std::string> dims;    ///< "symbol=size"
};

class BenchInputs {
 public:
  /// `model` must outlive this. Throws Error(Usage) for a name or a size that doesn't fit the model, and where a shape isn't known.
  BenchInputs(const Model& model, BenchInputSpec spec);

  /// The batch of a model that takes no other; 0 where it is free.
  int64_t fixed_batch() const { return fixed_; }
  /// Inputs of so many items: the file's first rows (the last one is repeated where there are fewer), or floats in [-1, 1), bytes of
  /// any value, other integers 1, bools true; the same in every call. Throws Error(Usage) where the model's batch is another.
  Inputs make(int64_t batch) const;
  /// For every count of 1 to batch, at [count - 1]; they share their memory where their types allow it.
  std::vector<Inputs> make_up_to(int64_t batch) const;

 private:
  struct Made {
    std::string name;
    DType dtype = DType::Undefined;
    Shape shape;  ///< -1: the batch
  };
  void parse_shapes();
  void parse_dims();
  Made plan_input(const Value& value) const;
  Inputs read(int64_t batch) const;

  const Model& model_;
  BenchInputSpec spec_;
  DataOptions data_;
  int64_t fixed_ = 0;
  std::map<std::string, Shape> shapes_;
  std::map<std::string, int64_t> dims_;
  std::vector<Made> made_;
};

}  // namespace infopt

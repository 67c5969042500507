// Writes .npz files that numpy.load reads.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "lib/base/atomic_file.h"
#include "lib/base/tensor.h"

namespace infopt {

/// Arrays grow along their first axis as rows are appended, several side by side; what is beyond 1 MiB of an array waits in an unnamed
/// temporary file in the output's folder. The file appears whole with commit(). The same calls give the same bytes: no times are stored.
/// Types that NumPy hasn't are widened: bfloat16 and 8- and 4-bit floats to float32, 4- and 2-bit integers to int8 or uint8.
class NpzWriter {
 public:
  /// Throws Error(Io) where `path` can't be written.
  explicit NpzWriter(const std::string& path, bool deflate = false);
  ~NpzWriter();

  /// A whole array. Throws Error(Defect) where the name is taken.
  void add(const std::string& name, const Tensor& array);
  /// Rows of the array called `name`, which the first call creates; arrays are written in the order of their creation. Throws
  /// Error(Malformed), naming it, where type or shape but for the first axis differ from before, or where it has no axis to append along.
  void append(const std::string& name, const Tensor& rows);
  void commit();

 private:
  struct Array;
  struct Directory;
  Array& create(const std::string& name, const Tensor& like);
  void write_member(Array& array, Directory& directory);

  AtomicFile file_;
  std::string folder_;
  bool deflate_;
  std::vector<std::unique_ptr<Array>> arrays_;
};

}  // namespace infopt

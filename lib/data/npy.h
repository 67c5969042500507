// NumPy's .npy format, versions 1.0, 2.0 and 3.0 (NEP 1 and numpy.lib.format).
#pragma once
#include <memory>
#include <string>

#include "lib/base/tensor.h"
#include "lib/data/byte_source.h"

namespace infopt {

struct NpyHeader {
  DType dtype = DType::Undefined;  ///< String for '<U' and '|S'
  size_t item = 0;                 ///< bytes of an element in the file
  bool swapped = false;            ///< the file's byte order isn't this machine's
  bool unicode = false;            ///< strings of 4-byte code points rather than of bytes
  bool fortran = false;            ///< first axis fastest; false where the order makes no difference
  Shape shape;
};

/// Reads the header, up to the first byte of data. Throws Error(Malformed) for what isn't .npy and for pickled objects, which are
/// never unpickled; Error(Unsupported) for element types that no tensor has.
NpyHeader read_npy_header(ByteSource& source, const std::string& where);

/// The header of an array in C order: version 1.0, padded so that the data begins at a multiple of 64. `chars` is the width of strings.
/// Throws Error(Unsupported) for types that NumPy doesn't have.
std::string npy_header(DType dtype, const Shape& shape, size_t chars = 0);

/// One array, read row by row (a row is an element of the first axis), so that memory is that of the rows asked for. An array in
/// Fortran order is held whole, and refused above 256 MiB: its rows are scattered over the file.
class ArrayReader {
 public:
  /// Throws as read_npy_header does, and Error(Malformed) where the data is shorter or longer than the shape says.
  ArrayReader(std::unique_ptr<ByteSource> source, std::string where);

  const NpyHeader& header() const { return header_; }
  const std::string& where() const { return where_; }
  /// Length of the first axis; 1 for a scalar.
  int64_t rows() const { return header_.shape.empty() ? 1 : header_.shape[0]; }
  /// The next `count` rows, of which there must be as many. After the last one the source's checksum is checked.
  Tensor read(int64_t count);
  void rewind();

 private:
  Tensor read_elements(Shape shape);
  Tensor read_fortran(int64_t count);
  Tensor decode_strings(Shape shape, size_t bytes);

  std::unique_ptr<ByteSource> source_;
  std::string where_;
  NpyHeader header_;
  int64_t next_ = 0;
  Tensor whole_;  ///< Fortran order: the elements as they lie in the file
};

}  // namespace infopt

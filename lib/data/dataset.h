// Calibration and evaluation data, read sample by sample: memory doesn't grow with their number.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/data/image.h"

namespace infopt {

struct DataOptions {
  /// Names of the model's inputs, in its order. Arrays are matched to them by name (arr_0, arr_1… by position where no name fits), the
  /// only array of a .npy file is the first one, as images are unless `image` says otherwise. Empty: every array is an input under its own
  /// name, images and arrays of a folder of .npy files are "x".
  std::vector<std::string> input_names;
  /// Those of them that must be in the data.
  std::vector<std::string> required;
  /// Their declared shapes, -1 where a size isn't fixed; inputs of unknown rank have none. They tell arrays that aren't rows of a batch:
  /// with one axis more than the input, each row is the whole input (as np.stack makes them); of the input's own shape, where
  /// that begins with a fixed size other than rows_per_sample, they are the same for every sample.
  std::map<std::string, Shape> shapes;
  /// Further arrays that are the same for every sample and aren't cut along their first axis. Scalars never are.
  std::vector<std::string> shared;
  /// The array of labels, unless the model has an input of that name. Empty: "label", or else "labels".
  std::string label;
  int64_t rows_per_sample = 1;  ///< the model's fixed batch
  int64_t limit = 0;            ///< at most so many samples; 0: all
  ImageOptions image;
};

struct Sample {
  int64_t index = 0;                     ///< from 0, in the order of the data
  std::map<std::string, Tensor> inputs;  ///< each [rows_per_sample, …], but for shared ones
  Tensor label;                          ///< the rows of the labels; undefined where there are none
  int64_t valid_rows = 1;                ///< rows that are data; those after them, up to rows_per_sample, repeat the last one
  std::string where;                     ///< "calib.npz, sample 3"; in a folder the path of its file
};

class DataSet {
 public:
  virtual ~DataSet() = default;
  virtual int64_t size() const = 0;                            ///< samples, at least 1, `limit` applied
  virtual const std::vector<std::string>& names() const = 0;   ///< inputs that every sample has
  virtual const std::vector<std::string>& unused() const = 0;  ///< arrays in the data that no input takes
  virtual bool has_label() const = 0;
  /// The next sample; false after the last one. One thread at a time. The sample's tensors are its own and stay valid.
  /// Throws Error(Malformed) naming file, array or sample where the data is broken.
  virtual bool next(Sample& sample) = 0;
  virtual void reset() = 0;  ///< the next sample is the first one again
  /// 32 hexadecimal digits of the data's files (bytes, and names inside a folder) and of the options that choose from them: equal keys,
  /// equal samples. Independent of the data's own path. Reads the files once.
  virtual std::string content_key() const = 0;
};

/// Detected from what is at `path`:
/// - `.npz`: one array an input; a sample is a slice [i:i+1] of the first axis, or rows_per_sample such rows;
/// - `.npy`: the same for one input;
/// - a folder of `.npz` or of `.npy`: one after the other in the order of their names. If every `.npy` is named after an input or the
///   label, they are the arrays of one set instead;
/// - a folder with `test_data_set_*` folders, or one of these: every set's `input_K.pb` is the K-th input, whole, uncut;
/// - a folder of `.jpg`, `.jpeg` and `.png` files, a `.csv` file of "file,label" lines, or a folder with `labels.csv`: see image_dataset.h.
/// Throws Error(Io) where nothing is there, Error(Malformed) where it isn't any of these, has no sample, or arrays whose first axes differ.
std::unique_ptr<DataSet> open_dataset(const std::string& path, const DataOptions& options);

/// Throws Error(Malformed) naming sample, input and position of the first NaN or Inf.
void check_finite(const Sample& sample);

}  // namespace infopt

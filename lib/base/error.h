// The one exception that ends a run, and the exit code that each kind of it becomes.
#pragma once
#include <stdexcept>
#include <string>

namespace infopt {

enum class ErrorKind {
  Defect,       ///< exit 1: infopt itself is wrong
  Usage,        ///< exit 2: command line or recipe
  Malformed,    ///< exit 3: the model or the data, NaN and Inf in them included
  Unsupported,  ///< exit 4: valid, but infopt can't do it, or the device isn't there
  Escape,       ///< exit 5: a path that leaves the model's folder
  Limit,        ///< exit 6: over a resource limit
  Io,           ///< exit 7: a file is missing, can't be read or can't be written
  Gate,         ///< exit 8: a gate isn't met, or an output differs from the expected
  Interrupted,  ///< exit 130
  Terminated,   ///< exit 143
};

int exit_code(ErrorKind kind);

/// `where` is the file, node, tensor, or the recipe's line and column; empty where there is none.
/// what() is one line: "where: message".
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, std::string message, std::string where = {});
  ErrorKind kind() const { return kind_; }
  const std::string& message() const { return message_; }
  const std::string& where() const { return where_; }
  /// The same error, with `outer` put before what `where` says already.
  Error within(const std::string& outer) const;

 private:
  ErrorKind kind_;
  std::string message_, where_;
};

}  // namespace infopt

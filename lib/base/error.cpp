#include "lib/base/error.h"

namespace infopt {
namespace {

std::string join(const std::string& where, const std::string& message) { return where.empty() ? message : where + ": " + message; }

}  // namespace

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::Defect: return 1;
    case ErrorKind::Usage: return 2;
    case ErrorKind::Malformed: return 3;
    case ErrorKind::Unsupported: return 4;
    case ErrorKind::Escape: return 5;
    case ErrorKind::Limit: return 6;
    case ErrorKind::Io: return 7;
    case ErrorKind::Gate: return 8;
    case ErrorKind::Interrupted: return 130;
    case ErrorKind::Terminated: return 143;
  }
  return 1;
}

Error::Error(ErrorKind kind, std::string message, std::string where)
    : std::runtime_error(join(where, message)), kind_(kind), message_(std::move(message)), where_(std::move(where)) {}

Error Error::within(const std::string& outer) const { return {kind_, message_, join(outer, where_).substr(0, where_.empty() ? outer.size() : std::string::npos)}; }

}  // namespace infopt

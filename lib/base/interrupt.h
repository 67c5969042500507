// SIGINT and SIGTERM: temporary files are removed and the process ends with 130 or 143.
#pragma once
#include <string>

namespace infopt {

void install_signal_handlers();
/// A file to unlink should a signal end the process, or a folder that is empty then; in the order in which they were named. At most 16 at a time;
/// more are left to their owner.
void remove_on_signal(const std::string& path);
void forget_on_signal(const std::string& path);

}  // namespace infopt

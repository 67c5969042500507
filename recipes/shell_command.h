// Programs of the user's, run by the shell, that answer with a number.
#pragma once
#include <string>

namespace infopt {

/// 'text' for the shell, whatever it holds.
std::string shell_word(const std::string& text);
/// `text` with every `what` replaced by `by`.
std::string replaced(std::string text, const std::string& what, const std::string& by);
/// The last line that the command prints, as a number; `whose` is what errors call the command: "the metric's".
/// Throws Error(Usage) where it fails or prints something else.
double run_number_command(const std::string& command, const std::string& whose);

}  // namespace infopt

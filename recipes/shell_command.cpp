#include "recipes/shell_command.h"

#include <sys/wait.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "lib/base/error.h"

namespace infopt {

std::string shell_word(const std::string& text) {
  std::string out = "'";
  for (char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size()) text.replace(at, what.size(), by);
  return text;
}

double run_number_command(const std::string& command, const std::string& whose) {
  FILE* pipe = ::popen(command.c_str(), "r");
  if (!pipe) throw Error(ErrorKind::Io, whose + " command can't be started", command);
  std::string text;
  char buffer[4096];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) text.append(buffer, n);
  const int status = ::pclose(pipe);
  if (status != 0) throw Error(ErrorKind::Usage, whose + " command ended with " + std::to_string(WIFEXITED(status) ? WEXITSTATUS(status) : status), command);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  const std::string last = text.substr(text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1);
  char* end = nullptr;
  const double value = std::strtod(last.c_str(), &end);
  if (last.empty() || *end != '\0' || !std::isfinite(value)) throw Error(ErrorKind::Usage, whose + " command printed '" + last + "', a number was expected", command);
  return value;
}

}  // namespace infopt

// infopt: the command line. Errors are one line on stderr and an exit code (lib/base/error.h).
#include <malloc.h>

#include <cstdio>
#include <new>

#include "lib/base/error.h"
#include "lib/base/interrupt.h"
#include "recipes/version.h"
#include "tools/command.h"

namespace infopt {
namespace {

int fail(const Error& e) {
  std::fprintf(stderr, "infopt: %s%s\n", e.kind() == ErrorKind::Defect ? "a defect of infopt: " : "", e.what());
  return exit_code(e.kind());
}

int run(int argc, char** argv) {
  CLI::App app("infopt compresses and quantizes ONNX models");
  app.set_version_flag("--version", kVersion);
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  Context context;
  context.command_line.assign(argv, argv + argc);
  add_quantize(app, context);
  add_optimize(app, context);
  add_calibrate(app, context);
  add_run(app, context);
  add_validate(app, context);
  add_bench(app, context);
  add_inspect(app, context);
  add_recipe(app, context);
  add_passes(app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : exit_code(ErrorKind::Usage);
  }
  return context.exit_code;
}

}  // namespace
}  // namespace infopt

int main(int argc, char** argv) {
  infopt::install_signal_handlers();
  mallopt(M_ARENA_MAX, 2);
  try {
    return infopt::run(argc, argv);
  } catch (const infopt::Error& e) {
    return infopt::fail(e);
  } catch (const std::bad_alloc&) {
    return infopt::fail({infopt::ErrorKind::Limit, "out of memory"});
  } catch (const std::exception& e) {
    return infopt::fail({infopt::ErrorKind::Defect, e.what()});
  }
}

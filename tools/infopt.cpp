// infopt: the command line. Errors are one line on stderr and an exit code (lib/base/error.h).
#include <malloc.h>

#include <cstdio>
#include <new>

#include "lib/base/error.h"
#include "lib/base/interrupt.h"
#include "lib/base/nearest.h"
#include "recipes/version.h"
#include "tools/command.h"
#include "lib/runtime/cuda/backend.h"

namespace infopt {
namespace {

int fail(const Error& e) {
  std::fprintf(stderr, "infopt: %s%s\n", e.kind() == ErrorKind::Defect ? "a defect of infopt: " : "", e.what());
  return exit_code(e.kind());
}

/// CLI11's message, but for a word that stands where a command should: the nearest command is named.
std::string usage_message(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  const CLI::App* at = &app;
  for (int i = 1; i < argc && argv[i][0] != '-' && at->get_require_subcommand_min() > 0; ++i) {
    std::vector<std::string> names;
    const CLI::App* next = nullptr;
    for (const CLI::App* sub : at->get_subcommands([](const CLI::App*) { return true; })) {
      names.push_back(sub->get_name());
      if (names.back() == argv[i]) next = sub;
    }
    if (!next) return std::string("there is no command '") + argv[i] + "'" + did_you_mean(argv[i], names);
    at = next;
  }
  return error.what();
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
  add_sensitivity(app, context);
  add_prune(app, context);
  add_tune(app, context);
  add_run(app, context);
  add_validate(app, context);
  add_bench(app, context);
  add_inspect(app, context);
  add_recipe(app, context);
  add_passes(app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    std::fprintf(stderr, "infopt: %s; --help lists what there is\n", usage_message(app, e, argc, argv).c_str());
    return exit_code(ErrorKind::Usage);
  }
  return context.exit_code;
}

}  // namespace
}  // namespace infopt

int main(int argc, char** argv) {
  infopt::install_signal_handlers();
  mallopt(M_ARENA_MAX, 2);
  infopt::install_cuda();
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

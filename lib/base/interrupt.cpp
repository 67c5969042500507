#include "lib/base/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

namespace infopt {
namespace {

constexpr int kSlots = 16;
constexpr size_t kPathBytes = 4096;
// Only what is async-signal-safe is touched by the handler: fixed arrays and lock-free flags.
char g_paths[kSlots][kPathBytes];
std::atomic<int> g_state[kSlots];  // 0 free, 1 being written, 2 in use

void on_signal(int signal) {
  for (int i = 0; i < kSlots; ++i)
    if (g_state[i].load() == 2) ::unlink(g_paths[i]);
  for (int i = 0; i < kSlots; ++i)
    if (g_state[i].load() == 2) ::rmdir(g_paths[i]);
  ::_exit(signal == SIGINT ? 130 : 143);
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

void remove_on_signal(const std::string& path) {
  if (path.size() >= kPathBytes) return;
  for (int i = 0; i < kSlots; ++i) {
    int expected = 0;
    if (!g_state[i].compare_exchange_strong(expected, 1)) continue;
    std::memcpy(g_paths[i], path.c_str(), path.size() + 1);
    g_state[i].store(2);
    return;
  }
}

void forget_on_signal(const std::string& path) {
  for (int i = 0; i < kSlots; ++i)
    if (g_state[i].load() == 2 && path == g_paths[i]) g_state[i].store(0);
}

}  // namespace infopt

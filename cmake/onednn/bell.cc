#include "bell.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace layoutsel {

namespace {

uint32_t* WordOf(std::atomic<uint32_t>* value) {
  static_assert(sizeof(*value) == sizeof(uint32_t));
  return reinterpret_cast<uint32_t*>(value);
}

}  // namespace

void Bell::Ring() {
  // The first of several rings wakes the thread.
  if (!is_asleep_ || !is_asleep_.exchange(false)) return;
  ++rings_;
  syscall(SYS_futex, WordOf(&rings_), FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

bool Bell::Sleep(uint32_t seen, Clock::time_point end) {
  if (end == Clock::time_point::max()) {
    syscall(SYS_futex, WordOf(&rings_), FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
    return true;
  }
  auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(end - Clock::now()).count();
  if (left <= 0) return false;
  constexpr int64_t kSecond = 1'000'000'000;
  timespec time{static_cast<time_t>(left / kSecond), static_cast<int64_t>(left % kSecond)};
  syscall(SYS_futex, WordOf(&rings_), FUTEX_WAIT_PRIVATE, seen, &time, nullptr, 0);
  return true;
}

}  // namespace layoutsel

// Wakes one thread that waits for another one's atomics.
#ifndef LAYOUTSEL_ONEDNN_BELL_H_
#define LAYOUTSEL_ONEDNN_BELL_H_

#include <atomic>
#include <chrono>
#include <cstdint>

namespace layoutsel {

using Clock = std::chrono::steady_clock;

// Size of two cache lines, as processors fetch pairs of them.
constexpr int kApart = 128;

// One thread waits. Those that ring change, in sequentially consistent order, what it waits for,
// and then ring. A bell that nobody sleeps at costs one comparison.
class alignas(kApart) Bell {
 public:
  // Waits until `is_due()`, at most until `end`: spins for a time, sleeps until the next ring, and
  // spins again. Returns false at `end`.
  template <typename IsDue>
  bool Wait(IsDue is_due, std::chrono::microseconds spin, Clock::time_point end) {
    while (!Spin(is_due, spin)) {
      uint32_t seen = rings_;
      is_asleep_ = true;
      bool goes_on = is_due() || Sleep(seen, end);
      is_asleep_ = false;
      if (!goes_on) return is_due();
    }
    return true;
  }

  // Wakes the thread, if it sleeps.
  void Ring();

 private:
  template <typename IsDue>
  static bool Spin(IsDue is_due, std::chrono::microseconds spin) {
    if (is_due()) return true;
    if (spin.count() == 0) return false;
    constexpr int kLooks = 64;  // between two looks at the clock
    Clock::time_point end = Clock::now() + spin;
    do {
      for (int i = 0; i < kLooks; ++i) {
        if (is_due()) return true;
        Pause();
      }
    } while (Clock::now() < end);
    return false;
  }

  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  // Returns false at `end`.
  bool Sleep(uint32_t seen, Clock::time_point end);

  std::atomic<uint32_t> rings_{0};
  std::atomic<bool> is_asleep_{false};
};

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_BELL_H_

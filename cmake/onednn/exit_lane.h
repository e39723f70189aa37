// Stages of a multi-exit network that one thread runs, and that others can stop.
#ifndef LAYOUTSEL_ONEDNN_EXIT_LANE_H_
#define LAYOUTSEL_ONEDNN_EXIT_LANE_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/function.h>

#include <atomic>
#include <cstdint>
#include <limits>
#include <vector>

#include "bell.h"
#include "cancellation.h"
#include "chain.h"
#include "exit_tests.h"

namespace layoutsel {

// The stages of a request that may still be of use: those up to a number in the model's order.
using LastUseful = std::atomic<int64_t>;

class ExitLane {
 public:
  // See ExitLanes. The slots `kept` are read after a run, in addition to results of exits.
  ExitLane(const ffi::Array<ffi::Any>& parts, const std::vector<int64_t>& kept);

  // Records a run of all stages. Returns false if it cannot be repeated.
  bool Record(ffi::PackedArgs inputs);

  // Begins a request.
  void Start();
  void SetInputs(ffi::PackedArgs inputs) { chain_.Start(inputs); }

  // Begins a stage; returns false if it is of no use any more.
  bool Begin(size_t stage, const LastUseful& last);

  // Runs recorded calls; returns false if it was stopped before one of them.
  bool Run(int64_t begin, int64_t end);

  // Stops the stage that runs, if it is later than `number`; from any thread, which has set
  // LastUseful to it before.
  void StopAfter(int64_t number);

  // Ends the request.
  void Release() { chain_.Release(); }

  size_t size() const { return tests_.size(); }
  int64_t number(size_t stage) const { return numbers_[stage]; }
  int64_t needs(size_t stage) const { return needs_[stage]; }
  const std::vector<ExitTest>& tests(size_t stage) const { return tests_[stage]; }
  const Chain& chain() const { return chain_; }
  int64_t begun() const { return stop_.begun; }

 private:
  static constexpr int64_t kNone = -1;

  std::vector<std::vector<ExitTest>> tests_;
  std::vector<int64_t> numbers_, needs_;
  Chain chain_;
  // The running thread reads it before every sub-graph: no other data shares its cache lines.
  alignas(kApart) Cancellation stop_{0, 0, -1};
  alignas(kApart) std::atomic<int64_t> stage_{kNone};  // number of the one that runs
};

// Within its life, a thread's runs can be stopped.
class Watching {
 public:
  explicit Watching(Cancellation* stop) { Watch(reinterpret_cast<int64_t>(stop)); }
  ~Watching() { Watch(0); }
  Watching(const Watching&) = delete;
  Watching& operator=(const Watching&) = delete;
};

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_EXIT_LANE_H_

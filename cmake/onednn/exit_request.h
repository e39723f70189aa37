// State of a request to a multi-exit network that the threads of its two lanes share.
#ifndef LAYOUTSEL_ONEDNN_EXIT_REQUEST_H_
#define LAYOUTSEL_ONEDNN_EXIT_REQUEST_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "bell.h"
#include "exit_lane.h"
#include "exit_tests.h"
#include "exit_verdict.h"

namespace layoutsel {

// Why a request returned. Must match layoutsel/exits/lane_chain.py.
enum class RequestEnd : int64_t {
  kNotTaken,  // inputs of other shapes, types or strides
  kAnswered,
  kDeclined,  // the calls of these lanes do not repeat
  kClosed,
  kOverdue,  // the thread of the branches took too long
  kFailed,   // an error on that thread
  kBusy,     // the thread of the branches has not ended the last request
};

// One request at a time. Functions may be called from any thread unless they say otherwise.
class ExitRequest {
 public:
  // Exits that run, in order, and the last stage that each of them needs.
  ExitRequest(ExitLane* trunk, ExitLane* branches, std::vector<int64_t> exits,
              std::vector<int64_t> ends, ExitOutcome* outcome);

  // Begins a request, while no lane runs; see ExitVerdict. Returns false once closed.
  bool Start(const double* thresholds, bool is_ordered);

  // Takes the results of the exits that are complete after a stage of a lane.
  void Arrive(const ExitLane& lane, size_t stage);

  // Ends the request, unless it has ended.
  void End(RequestEnd end);

  // Ends this request and all later ones.
  void Close();

  // Waits for the end on the thread of the trunk; ends the request itself at `limit`.
  RequestEnd Await(std::chrono::microseconds spin, Clock::time_point limit);

  // Gives the thread of the branches a task, and ends it there; is_idle(): it has none.
  void AskBranches() { ++asked_; }
  void EndBranches() {
    done_ = asked_.load();
    to_trunk_.Ring();
  }
  bool is_idle() const { return done_ == asked_; }

  // Lets the thread of the trunk, or of the branches, wait for a change.
  Bell& to_trunk() { return to_trunk_; }
  Bell& to_branches() { return to_branches_; }

  const LastUseful& last() const { return last_; }
  bool is_closed() const { return is_closed_; }
  Clock::time_point answered() const { return answered_; }

 private:
  static constexpr int64_t kNoStage = -1;

  struct Result {
    int64_t exit;
    int64_t label;
    double score;
  };

  // These are called with the lock.
  void Take(const Result& result);
  void Answer();
  void StopAfter(int64_t number);
  void Finish(RequestEnd end);

  ExitLane* trunk_;
  ExitLane* branches_;
  std::vector<int64_t> exits_, ends_;
  ExitOutcome* outcome_;

  std::mutex lock_;
  ExitVerdict verdict_;
  std::vector<Result> results_;  // so far
  RequestEnd end_ = RequestEnd::kClosed;
  Clock::time_point answered_;

  Bell to_trunk_, to_branches_;
  alignas(kApart) std::atomic<int64_t> asked_{0};  // tasks of the branches' thread
  alignas(kApart) std::atomic<int64_t> done_{0};   // of these
  alignas(kApart) LastUseful last_{kNoStage};
  alignas(kApart) std::atomic<bool> is_over_{true};
  std::atomic<bool> is_closed_{false};
};

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_EXIT_REQUEST_H_

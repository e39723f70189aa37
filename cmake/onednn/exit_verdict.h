// Which exit answers a request, whatever order the results of its exits arrive in.
#ifndef LAYOUTSEL_ONEDNN_EXIT_VERDICT_H_
#define LAYOUTSEL_ONEDNN_EXIT_VERDICT_H_

#include <cstdint>
#include <vector>

namespace layoutsel {

// The rules of layoutsel/exits/verdict.py, without patience and deadlines.
class ExitVerdict {
 public:
  static constexpr int64_t kNone = -1;

  // Numbers of the exits that run, ascending; the final one, always sure, is the last.
  explicit ExitVerdict(std::vector<int64_t> exits);

  // Begins a request. `thresholds` has a number for each exit, and has to outlive the request. The
  // first sure exit answers; with `is_ordered`, the earliest one, as if all exits ran in turn.
  void Start(const double* thresholds, bool is_ordered);

  // Takes the score of an exit. Not a number counts as unsure.
  void Arrive(int64_t exit, double score);

  // Exit that answers, or kNone. It never changes.
  int64_t answer() const { return answer_; }

  // Deepest exit that may still answer.
  int64_t bound() const { return bound_; }

  // Whether the final exit has arrived.
  bool is_complete() const { return has_arrived_.back() != 0; }

  bool has_nan() const { return has_nan_; }

 private:
  bool WaitsForEarlier() const;

  std::vector<int64_t> exits_;
  std::vector<char> has_arrived_;  // by exit that runs
  const double* thresholds_ = nullptr;
  bool is_ordered_ = false;
  bool has_nan_ = false;
  bool is_sure_ = false;  // any exit so far
  int64_t bound_ = kNone;
  int64_t answer_ = kNone;
};

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_EXIT_VERDICT_H_

#include "exit_verdict.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace layoutsel {

ExitVerdict::ExitVerdict(std::vector<int64_t> exits)
    : exits_(std::move(exits)), has_arrived_(exits_.size(), 0) {}

void ExitVerdict::Start(const double* thresholds, bool is_ordered) {
  std::fill(has_arrived_.begin(), has_arrived_.end(), 0);
  thresholds_ = thresholds;
  is_ordered_ = is_ordered;
  has_nan_ = is_sure_ = false;
  bound_ = exits_.back();
  answer_ = kNone;
}

void ExitVerdict::Arrive(int64_t exit, double score) {
  has_arrived_[std::find(exits_.begin(), exits_.end(), exit) - exits_.begin()] = 1;
  has_nan_ = has_nan_ || std::isnan(score);
  if (answer_ != kNone) return;
  if (exit == exits_.back() || score >= thresholds_[exit]) {
    is_sure_ = true;
    bound_ = std::min(bound_, exit);
  }
  if (is_sure_ && !(is_ordered_ && WaitsForEarlier())) answer_ = bound_;
}

bool ExitVerdict::WaitsForEarlier() const {
  for (size_t i = 0; exits_[i] < bound_; ++i) {
    if (!has_arrived_[i]) return true;
  }
  return false;
}

}  // namespace layoutsel

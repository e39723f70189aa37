#include "exit_request.h"

#include <algorithm>
#include <utility>

namespace layoutsel {

ExitRequest::ExitRequest(ExitLane* trunk, ExitLane* branches, std::vector<int64_t> exits,
                         std::vector<int64_t> ends, ExitOutcome* outcome)
    : trunk_(trunk),
      branches_(branches),
      exits_(std::move(exits)),
      ends_(std::move(ends)),
      outcome_(outcome),
      verdict_(exits_) {
  results_.reserve(exits_.size());
}

bool ExitRequest::Start(const double* thresholds, bool is_ordered) {
  std::lock_guard<std::mutex> lock(lock_);
  if (is_closed_) return false;
  verdict_.Start(thresholds, is_ordered);
  results_.clear();
  trunk_->Start();
  branches_->Start();
  last_ = *std::max_element(ends_.begin(), ends_.end());
  is_over_ = false;
  return true;
}

void ExitRequest::Arrive(const ExitLane& lane, size_t stage) {
  for (const ExitTest& test : lane.tests(stage)) {
    Result result{test.exit, test.LabelIn(lane.chain()), test.ScoreIn(lane.chain())};
    test.CopyValues(lane.chain());  // each exit has a place of its own
    {
      std::lock_guard<std::mutex> lock(lock_);
      if (is_over_) return;
      Take(result);
    }
    if (is_over_) to_trunk_.Ring();
  }
}

void ExitRequest::End(RequestEnd end) {
  {
    std::lock_guard<std::mutex> lock(lock_);
    if (is_over_) return;
    Finish(end);
  }
  to_trunk_.Ring();
}

void ExitRequest::Close() {
  {
    std::lock_guard<std::mutex> lock(lock_);
    is_closed_ = true;
    if (!is_over_) Finish(RequestEnd::kClosed);
  }
  to_trunk_.Ring();
  to_branches_.Ring();
}

RequestEnd ExitRequest::Await(std::chrono::microseconds spin, Clock::time_point limit) {
  if (!to_trunk_.Wait([this] { return is_over_.load(); }, spin, limit)) End(RequestEnd::kOverdue);
  return end_;
}

void ExitRequest::Take(const Result& result) {
  results_.push_back(result);
  verdict_.Arrive(result.exit, result.score);
  if (verdict_.answer() != ExitVerdict::kNone) {
    Answer();
    return;
  }
  int64_t last = kNoStage;
  for (size_t i = 0; i < exits_.size() && exits_[i] <= verdict_.bound(); ++i) {
    last = std::max(last, ends_[i]);
  }
  StopAfter(last);
}

void ExitRequest::Answer() {
  auto found = std::find_if(results_.begin(), results_.end(),
                            [this](const Result& one) { return one.exit == verdict_.answer(); });
  outcome_->exit = found->exit;
  outcome_->label = found->label;
  outcome_->score = found->score;
  outcome_->has_nan = verdict_.has_nan();
  outcome_->is_early = !verdict_.is_complete();
  answered_ = Clock::now();
  Finish(RequestEnd::kAnswered);
}

// Stops all stages after one in the model's order: running, waiting and future ones.
void ExitRequest::StopAfter(int64_t number) {
  if (number >= last_) return;
  last_ = number;
  trunk_->StopAfter(number);
  branches_->StopAfter(number);
  if (!is_idle()) to_branches_.Ring();
}

void ExitRequest::Finish(RequestEnd end) {
  end_ = end;
  StopAfter(kNoStage);
  is_over_ = true;
}

}  // namespace layoutsel

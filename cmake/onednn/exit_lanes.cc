#include "exit_lanes.h"

#include <tvm/ffi/error.h>
#include <tvm/ffi/string.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "bell.h"
#include "cores.h"
#include "exit_lane.h"
#include "exit_request.h"
#include "inputs.h"
#include "lane_inputs.h"
#include "threads.h"

namespace layoutsel {

namespace {

// A thread spins no longer for another one between two requests.
constexpr std::chrono::microseconds kSpin{200};

// The thread of the branches spins longer during a request: to wake a core takes the trunk's time,
// some 60 us of it on virtual machines, and the core has no other work.
constexpr std::chrono::microseconds kSpinInRequest{5000};

// A thread of the branches that keeps its core ends a request within two sub-graphs and this time.
constexpr double kSwitchS = 1e-4;

// Time before a hand-over at which the branches' thread is woken: waking it takes less.
constexpr double kLeadUs = 100;

std::vector<int64_t> NumbersOf(const ffi::Shape& shape) { return {shape.begin(), shape.end()}; }

double MicrosecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

int64_t NanosecondsBetween(Clock::time_point start, Clock::time_point end) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(end - start).count();
}

Clock::time_point After(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(
                            std::chrono::duration<double>(std::min(seconds, 1e9)));
}

// A request begins when the thread of the branches has ended the last one: the lanes keep their
// tensors from one request to the next.
class Lanes {
 public:
  Lanes(const ffi::Array<ffi::Any>& trunk, const ffi::Array<ffi::Any>& branches,
        const ffi::Shape& exits, const ffi::Shape& ends, const ffi::Shape& sources,
        const ffi::Array<ffi::Tensor>& inputs, const ffi::Shape& cores, double limit_s,
        bool has_other_way, int64_t outcome)
      : given_(sources, inputs),
        trunk_(trunk, given_.Taps()),
        branches_(branches, {}),
        request_(&trunk_, &branches_, NumbersOf(exits), NumbersOf(ends),
                 reinterpret_cast<ExitOutcome*>(outcome)),
        inputs_(inputs),
        cores_(NumbersOf(cores)),
        limit_s_(limit_s),
        has_other_way_(has_other_way),
        stage_us_(trunk_.size(), 0.0) {}

  RequestEnd Answer(ffi::PackedArgs args);
  void Serve();
  void Close() { request_.Close(); }
  std::vector<int64_t> Counts() const;

  bool AwaitIdle(double seconds) {
    auto is_idle = [this] { return request_.is_idle(); };
    return request_.to_trunk().Wait(is_idle, kSpin, After(seconds));
  }

  // While idle.
  const std::string& error() const { return error_; }

 private:
  enum class Task { kRecord, kAnswer };

  // On the thread of the trunk.
  RequestEnd AwaitLastRequest();
  RequestEnd Prepare();
  RequestEnd Decline();
  void RunTrunk();
  bool RunTrunkStage(size_t stage);
  bool IsAwaited(size_t stage) const;

  // On the thread of the branches.
  void Do();
  void RecordBranches();
  void RunBranches();

  LaneInputs given_;  // to the branches
  ExitLane trunk_, branches_;
  ExitRequest request_;
  Inputs inputs_;
  std::vector<int64_t> cores_;
  double limit_s_;
  bool has_other_way_;

  // Of the thread of the trunk.
  bool is_late_ = false;         // that of the branches had not ended its request in time
  Clock::time_point overdue_{};  // the time when it is

  // Changed by one of the threads while the other one is not within a task.
  bool is_ready_ = false, is_declined_ = false, branches_repeat_ = false;
  Task task_ = Task::kRecord;
  std::string error_;
  int64_t trunk_calls_ = 0, branch_calls_ = 0;  // of a whole run
  double branches_us_ = 0;                      // time of that run
  Clock::time_point trunk_stopped_, branches_stopped_;

  std::vector<double> stage_us_;  // smoothed times of the trunk's stages

  alignas(kApart) std::atomic<int64_t> progress_{0};  // stages of the trunk that are complete
};

RequestEnd Lanes::Answer(ffi::PackedArgs args) {
  if (is_declined_) return RequestEnd::kDeclined;
  RequestEnd last = AwaitLastRequest();
  if (last != RequestEnd::kAnswered) return last;
  if (!inputs_.Take(args, 2)) return RequestEnd::kNotTaken;
  RequestedThreads threads(1);
  ScopedCores cores(cores_);
  given_.Copy(inputs_.taken());
  if (!is_ready_) {
    RequestEnd end = Prepare();
    if (!is_ready_) return end;
  }
  auto thresholds = reinterpret_cast<const double*>(args[0].cast<int64_t>());
  if (!request_.Start(thresholds, args[1].cast<bool>())) return RequestEnd::kClosed;
  progress_ = 0;
  task_ = Task::kAnswer;
  overdue_ = After(limit_s_);
  request_.AskBranches();
  try {
    RunTrunk();
  } catch (...) {
    request_.End(RequestEnd::kFailed);
    trunk_.Release();
    throw;
  }
  trunk_stopped_ = Clock::now();
  RequestEnd end = request_.Await(kSpin, After(limit_s_));
  trunk_.Release();
  return end;
}

// Waits until the thread of the branches has ended the last request. If requests have another way,
// the first one waits as long as a thread takes that keeps its core, and later ones do not wait.
RequestEnd Lanes::AwaitLastRequest() {
  double wait_s = limit_s_;
  if (has_other_way_ && is_ready_) {
    double subgraph_us = branches_us_ / static_cast<double>(std::max<int64_t>(branch_calls_, 1));
    wait_s = is_late_ ? 0 : kSwitchS + 2e-6 * subgraph_us;
  }
  auto is_due = [this] { return request_.is_idle() || request_.is_closed(); };
  is_late_ = !is_due() && (wait_s == 0 || !request_.to_trunk().Wait(is_due, kSpin, After(wait_s)));
  if (request_.is_closed()) return RequestEnd::kClosed;
  if (!is_late_) return RequestEnd::kAnswered;
  return has_other_way_ && Clock::now() < overdue_ ? RequestEnd::kBusy : RequestEnd::kOverdue;
}

// Records both lanes, one after the other: the first run of a stage makes its primitives.
RequestEnd Lanes::Prepare() {
  if (!trunk_.Record(inputs_.taken())) return Decline();
  trunk_.Start();
  trunk_.SetInputs(inputs_.taken());
  trunk_.Run(0, trunk_.chain().CallsOf(trunk_.size() - 1).second);
  trunk_calls_ = trunk_.begun();
  if (!given_.TakeTaps(trunk_.chain())) return Decline();
  trunk_.Release();
  task_ = Task::kRecord;
  request_.AskBranches();
  request_.to_branches().Ring();
  if (!AwaitIdle(limit_s_)) return RequestEnd::kOverdue;
  if (!error_.empty()) return RequestEnd::kFailed;
  if (!branches_repeat_) return Decline();
  is_ready_ = true;
  return RequestEnd::kAnswered;
}

RequestEnd Lanes::Decline() {
  trunk_.Release();
  is_declined_ = true;
  return RequestEnd::kDeclined;
}

void Lanes::RunTrunk() {
  // A thread that waits for a tensor of the trunk is woken shortly before it is complete.
  if (branches_.needs(0) == 0) request_.to_branches().Ring();
  trunk_.SetInputs(inputs_.taken());
  for (size_t stage = 0; stage < trunk_.size(); ++stage) {
    if (!trunk_.Begin(stage, request_.last()) || !RunTrunkStage(stage)) return;
    progress_ = static_cast<int64_t>(stage) + 1;
    if (IsAwaited(stage)) request_.to_branches().Ring();
    request_.Arrive(trunk_, stage);
  }
}

bool Lanes::RunTrunkStage(size_t stage) {
  auto [begin, end] = trunk_.chain().CallsOf(stage);
  if (!IsAwaited(stage)) return trunk_.Run(begin, end);
  double& us = stage_us_[stage];
  double share = us > kLeadUs ? kLeadUs / us : 1.0;
  int64_t ahead = end - static_cast<int64_t>(share * static_cast<double>(end - begin));
  Clock::time_point start = Clock::now();
  if (!trunk_.Run(begin, ahead)) return false;
  request_.to_branches().Ring();
  if (!trunk_.Run(ahead, end)) return false;
  constexpr double kWeight = 1.0 / 8;  // of the last time
  us += kWeight * (MicrosecondsSince(start) - us);
  return true;
}

bool Lanes::IsAwaited(size_t stage) const {
  for (size_t i = 0; i < branches_.size(); ++i) {
    if (branches_.needs(i) == static_cast<int64_t>(stage) + 1) return true;
  }
  return false;
}

void Lanes::Serve() {
  auto is_due = [this] { return request_.is_closed() || !request_.is_idle(); };
  while (true) {
    request_.to_branches().Wait(is_due, kSpin, Clock::time_point::max());
    if (request_.is_idle()) return;
    try {
      Do();
    } catch (const ffi::Error& error) {
      error_ = error.kind() + ": " + error.message();
    } catch (const std::exception& error) {
      error_ = error.what();
    }
    branches_.Release();
    branches_stopped_ = Clock::now();
    if (!error_.empty()) request_.End(RequestEnd::kFailed);
    request_.EndBranches();
  }
}

void Lanes::Do() {
  if (task_ == Task::kRecord) {
    RecordBranches();
  } else {
    RunBranches();
  }
}

void Lanes::RecordBranches() {
  branches_repeat_ = branches_.Record(given_.given());
  if (!branches_repeat_) return;
  branches_.Start();
  branches_.SetInputs(given_.given());
  Clock::time_point start = Clock::now();
  branches_.Run(0, branches_.chain().CallsOf(branches_.size() - 1).second);
  branches_us_ = MicrosecondsSince(start);
  branch_calls_ = branches_.begun();
}

void Lanes::RunBranches() {
  branches_.SetInputs(given_.given());
  for (size_t stage = 0; stage < branches_.size(); ++stage) {
    auto is_due = [&] {
      return progress_ >= branches_.needs(stage) || branches_.number(stage) > request_.last();
    };
    request_.to_branches().Wait(is_due, kSpinInRequest, Clock::time_point::max());
    if (!branches_.Begin(stage, request_.last())) return;
    auto [begin, end] = branches_.chain().CallsOf(stage);
    if (!branches_.Run(begin, end)) return;
    request_.Arrive(branches_, stage);
  }
}

std::vector<int64_t> Lanes::Counts() const {
  return {trunk_.begun(),
          trunk_calls_,
          branches_.begun(),
          branch_calls_,
          NanosecondsBetween(request_.answered(), trunk_stopped_),
          NanosecondsBetween(request_.answered(), branches_stopped_)};
}

}  // namespace

ffi::Array<ffi::Function> ExitLanes(ffi::Array<ffi::Any> trunk, ffi::Array<ffi::Any> branches,
                                    ffi::Shape exits, ffi::Shape ends, ffi::Shape sources,
                                    ffi::Array<ffi::Tensor> inputs, ffi::Shape cores,
                                    double limit_s, bool has_other_way, int64_t outcome) {
  auto lanes = std::make_shared<Lanes>(trunk, branches, exits, ends, sources, inputs, cores,
                                       limit_s, has_other_way, outcome);
  return {
      ffi::Function::FromPacked([lanes](ffi::PackedArgs args, ffi::Any* result) {
        *result = static_cast<int64_t>(lanes->Answer(args));
      }),
      ffi::Function::FromTyped([lanes] { lanes->Serve(); }),
      ffi::Function::FromTyped([lanes] { lanes->Close(); }),
      ffi::Function::FromTyped([lanes](double seconds) { return lanes->AwaitIdle(seconds); }),
      ffi::Function::FromTyped([lanes] { return ffi::String(lanes->error()); }),
      ffi::Function::FromTyped([lanes] { return ffi::Shape(lanes->Counts()); }),
  };
}

}  // namespace layoutsel

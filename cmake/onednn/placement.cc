#include "placement.h"

#include <omp.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <set>
#include <utility>

namespace layoutsel {

namespace {

// Threads of a team besides the one that calls. Threads of OpenMP's pool may end at any time, for
// example if another library asks for fewer.
struct Team {
  std::mutex mutex;
  std::set<pid_t> others;
  // Core that the others are kept off; -1: none yet.
  int left_out = -1;
};

// Membership of a thread of the pool, which ends with the thread.
class Membership {
 public:
  void Join(std::shared_ptr<Team> team) {
    if (team == team_) return;
    Leave();
    team_ = std::move(team);
    std::lock_guard<std::mutex> lock(team_->mutex);
    thread_ = static_cast<pid_t>(syscall(SYS_gettid));
    team_->others.insert(thread_);
  }
  ~Membership() { Leave(); }

 private:
  void Leave() {
    if (team_ == nullptr) return;
    std::lock_guard<std::mutex> lock(team_->mutex);
    team_->others.erase(thread_);
  }

  std::shared_ptr<Team> team_;
  pid_t thread_ = 0;
};

thread_local Membership membership;
thread_local std::shared_ptr<Team> own_team;

// Whether all other threads of a team have joined it, and none has ended since.
bool IsComplete(Team& team, int threads) {
  std::lock_guard<std::mutex> lock(team.mutex);
  return team.others.size() + 1 >= static_cast<std::size_t>(threads);
}

// Lets the other threads of a team join it.
void Gather(const std::shared_ptr<Team>& team, int threads) {
  team->left_out = -1;
#pragma omp parallel num_threads(threads)
  {
    if (omp_get_thread_num() != 0) membership.Join(team);
  }
}

}  // namespace

void KeepTeamApart(int threads) {
  if (threads < 2 || omp_get_proc_bind() != omp_proc_bind_false) return;
  if (own_team == nullptr) own_team = std::make_shared<Team>();
  Team& team = *own_team;
  if (!IsComplete(team, threads)) Gather(own_team, threads);
  int core = sched_getcpu();
  if (core < 0 || core == team.left_out) return;
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0 || CPU_COUNT(&cores) < threads) return;
  team.left_out = core;
  CPU_CLR(core, &cores);
  std::lock_guard<std::mutex> lock(team.mutex);
  for (pid_t one : team.others) sched_setaffinity(one, sizeof(cores), &cores);
}

}  // namespace layoutsel

// Cores of a team's threads: none of them waits for the core that the calling thread is on.
#ifndef LAYOUTSEL_ONEDNN_PLACEMENT_H_
#define LAYOUTSEL_ONEDNN_PLACEMENT_H_

namespace layoutsel {

// Keeps the other threads of the calling thread's OpenMP team off the core that it runs on, if it
// may run on at least as many cores as the team has threads. Linux may wake a thread that has
// rested for some milliseconds on the core of the one that wakes it. There it waits until the load
// is balanced, up to 30 ms, while the caller waits for it. The caller's own affinity stays as it
// is.
void KeepTeamApart(int threads);

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_PLACEMENT_H_

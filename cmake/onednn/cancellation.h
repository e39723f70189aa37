// Stops a run between two sub-graphs, where its caller asks for that.
#ifndef LAYOUTSEL_ONEDNN_CANCELLATION_H_
#define LAYOUTSEL_ONEDNN_CANCELLATION_H_

#include <tvm/ffi/function.h>

#include <cstdint>

namespace layoutsel {

namespace ffi = tvm::ffi;

// What a run and those who may cancel it share. Must match layoutsel/device/cancellation.py.
struct Cancellation {
  int64_t is_cancelled;
  int64_t begun;  // sub-graphs, transforms among them
  int64_t most;   // of these; negative: any number
};

// Watches the runs of the calling thread: the Cancellation at `address`, or none where that is 0.
void Watch(int64_t address);

// Counts a sub-graph that is about to begin. Throws the error "Cancelled" in its place where the
// calling thread's run is cancelled. Costs one comparison where nobody watches.
void BeginSubgraph();

// Tells whether a function, by its name, is one of the virtual machine's own.
bool IsBuiltin(ffi::AnyView name);

// Lets at most `most` sub-graphs of the calling thread's runs be in flight on a device, given by
// DLPack's numbers; 0 for any number. A device that has all of a run in its queue cannot be
// stopped.
void BoundInFlight(int64_t type, int64_t index, int64_t most);

// Calls BeginSubgraph before every call that is not the virtual machine's own, and waits for the
// device of the calling thread first, where it has too many in flight.
ffi::Function Instrument();

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_CANCELLATION_H_

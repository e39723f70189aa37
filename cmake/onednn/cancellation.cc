#include "cancellation.h"

#include <tvm/ffi/device.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/string.h>

#include <string>
#include <string_view>

namespace layoutsel {

namespace {

thread_local Cancellation* watched = nullptr;

// Sub-graphs of the calling thread that a device may have in its queue.
struct InFlight {
  DLDevice device{kDLCPU, 0};
  int64_t most = 0;
  int64_t begun = 0;  // since the device was last known to be idle
};
thread_local InFlight in_flight;

void AwaitDevice() {
  if (in_flight.most <= 0) return;
  if (in_flight.begun >= in_flight.most) {
    static const ffi::Function synchronise =
        ffi::Function::GetGlobalRequired("runtime.Device_StreamSync");
    synchronise(in_flight.device, int64_t{0});
    in_flight.begun = 0;
  }
  ++in_flight.begun;
}

// Prefix of the virtual machine's own functions.
constexpr std::string_view kBuiltin = "vm.builtin.";

}  // namespace

bool IsBuiltin(ffi::AnyView name) {
  // The machine passes a plain pointer, which need not be copied; Python passes a string.
  if (auto text = name.try_cast<const char*>()) {
    return std::string_view(*text).substr(0, kBuiltin.size()) == kBuiltin;
  }
  return name.cast<std::string>().rfind(kBuiltin, 0) == 0;
}

void Watch(int64_t address) { watched = reinterpret_cast<Cancellation*>(address); }

void BeginSubgraph() {
  if (watched == nullptr) return;
  int64_t before = __atomic_fetch_add(&watched->begun, 1, __ATOMIC_RELAXED);
  if (watched->most >= 0 && before >= watched->most) {
    __atomic_store_n(&watched->is_cancelled, 1, __ATOMIC_RELAXED);
  }
  if (__atomic_load_n(&watched->is_cancelled, __ATOMIC_RELAXED) == 0) return;
  __atomic_fetch_sub(&watched->begun, 1, __ATOMIC_RELAXED);
  TVM_FFI_THROW(Cancelled) << "the run was cancelled after " << before << " sub-graphs";
}

void BoundInFlight(int64_t type, int64_t index, int64_t most) {
  in_flight = {{static_cast<DLDeviceType>(type), static_cast<int32_t>(index)}, most, 0};
}

ffi::Function Instrument() {
  return ffi::Function::FromPacked([](ffi::PackedArgs args, ffi::Any*) {
    if (watched == nullptr || !args[2].cast<bool>() || IsBuiltin(args[1])) return;
    AwaitDevice();
    BeginSubgraph();
  });
}

}  // namespace layoutsel

#include "cancellation.h"

#include <tvm/ffi/error.h>
#include <tvm/ffi/string.h>

#include <string>
#include <string_view>

namespace layoutsel {

namespace {

thread_local Cancellation* watched = nullptr;

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

ffi::Function Instrument() {
  return ffi::Function::FromPacked([](ffi::PackedArgs args, ffi::Any*) {
    if (watched == nullptr || !args[2].cast<bool>()) return;
    if (!IsBuiltin(args[1])) BeginSubgraph();
  });
}

}  // namespace layoutsel

// What the plugin registers with TVM. Python calls it, once it has seen that no other OpenCL run
// time is there: a name that is registered twice while a library loads would end the process.
#include <tvm/ffi/reflection/registry.h>

#include <string>

#include "binary_cache.h"
#include "device.h"
#include "device_api.h"
#include "module.h"
#include "program.h"
#include "recorder.h"
#include "timer.h"

namespace layoutsel::opencl {

namespace ffi = tvm::ffi;

namespace {

ffi::Array<ffi::String> Labels() {
  ffi::Array<ffi::String> labels;
  for (const Device* device : Devices()) labels.push_back(device->label());
  return labels;
}

ffi::Map<ffi::String, int64_t> Builds() {
  return {{"source", Counts().from_source.load()}, {"binary", Counts().from_binary.load()}};
}

// Names, starts and ends of the kernels that were recorded.
ffi::Array<ffi::Array<ffi::Any>> Timeline() {
  ffi::Array<ffi::Array<ffi::Any>> result;
  for (const Ran& ran : Recorded()) {
    result.push_back({ffi::String(ran.kernel), ran.start_ns, ran.end_ns});
  }
  return result;
}

ffi::String Identity(int number) { return DeviceAt(number).identity(); }

void Register() {
  tvm::ffi::reflection::GlobalDef()
      .def_packed("device_api.opencl",
                  [](ffi::PackedArgs, ffi::Any* rv) { *rv = static_cast<void*>(Api()); })
      .def("runtime.timer.opencl", MakeTimer)
      .def("ffi.Module.create.opencl",
           [](ffi::Bytes code, ffi::String format, KernelInfos infos,
              ffi::Map<ffi::String, ffi::String>) { return CreateModule(code, format, infos); })
      .def("ffi.Module.load_from_bytes.opencl", LoadModule)
      .def("layoutsel.opencl.devices", Labels)
      .def("layoutsel.opencl.identity", Identity)
      .def("layoutsel.opencl.builds", Builds)
      .def("layoutsel.opencl.record", SetRecording)
      .def("layoutsel.opencl.recorded", Timeline)
      .def("layoutsel.opencl.set_cache",
           [](const ffi::String& folder) { SetCacheFolder(std::string(folder)); });
}

}  // namespace

// What went wrong; null where nothing did.
extern "C" __attribute__((visibility("default"))) const char* layoutsel_register_opencl() {
  static std::string problem;
  try {
    Register();
    return nullptr;
  } catch (const std::exception& error) {
    problem = error.what();
    return problem.c_str();
  }
}

}  // namespace layoutsel::opencl

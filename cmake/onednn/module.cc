// The runtime module "layoutsel_onednn", and what the plugin offers to Python.
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/reflection/registry.h>

#include <dnnl.hpp>
#include <memory>
#include <sstream>
#include <string>

#include "blueprint.h"
#include "cancellation.h"
#include "chain.h"
#include "exit_chain.h"
#include "exit_lanes.h"
#include "exit_segment.h"
#include "partition.h"
#include "recording.h"
#include "threads.h"

namespace layoutsel {

namespace {

constexpr const char* kKind = "layoutsel_onednn";

class OnednnModule : public ffi::ModuleObj {
 public:
  explicit OnednnModule(std::string text)
      : symbol_(ParseGraph(text).symbol),
        partitions_(std::make_shared<Partitions>(std::move(text))) {}

  const char* kind() const final { return kKind; }

  int GetPropertyMask() const final {
    return ffi::Module::kBinarySerializable | ffi::Module::kRunnable;
  }

  ffi::Bytes SaveToBytes() const final { return ffi::Bytes(partitions_->text()); }

  ffi::String InspectSource(const ffi::String&) const final { return partitions_->text(); }

  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    std::shared_ptr<Partitions> p = partitions_;
    std::string key = name;
    if (key == symbol_) {
      return ffi::Function::FromPacked([p](ffi::PackedArgs args, ffi::Any*) {
        ScopedThreads threads;
        p->Current()->Run(args);
      });
    }
    if (key == symbol_ + ".packed_form") {
      return ffi::Function::FromTyped([p](int64_t t) {
        ScopedThreads threads;
        return ffi::String(p->Current()->PackedForm(t));
      });
    }
    if (key == symbol_ + ".packed_bytes") {
      return ffi::Function::FromTyped([p](int64_t t) {
        ScopedThreads threads;
        return p->Current()->PackedBytes(t);
      });
    }
    if (key == symbol_ + ".pack") {
      return ffi::Function::FromTyped([p](int64_t t, DLTensor* from, DLTensor* to) {
        ScopedThreads threads;
        p->Current()->Pack(t, static_cast<char*>(from->data) + from->byte_offset,
                           static_cast<char*>(to->data) + to->byte_offset);
      });
    }
    if (key == symbol_ + ".steps") {
      return ffi::Function::FromTyped([p]() {
        ScopedThreads threads;
        return ffi::String(p->Current()->Steps());
      });
    }
    return std::nullopt;
  }

 private:
  std::string symbol_;
  std::shared_ptr<Partitions> partitions_;
};

ffi::Module CreateModule(const std::string& text) {
  return ffi::Module(ffi::make_object<OnednnModule>(text));
}

// Names of the implementations that oneDNN chooses for the nodes of a graph, without compiling.
ffi::Array<ffi::String> Implementations(const ffi::String& text) {
  ScopedThreads threads;
  Graph graph = ParseGraph(text);
  dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  ffi::Array<ffi::String> out;
  for (const Node& node : graph.nodes) out.push_back(Design(graph, node, engine).implementation);
  return out;
}

ffi::String Version() {
  const dnnl_version_t* version = dnnl_version();
  std::ostringstream out;
  out << version->major << '.' << version->minor << '.' << version->patch;
  return out.str();
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  RegisterParallelLaunch();
  refl::GlobalDef()
      .def("ffi.Module.load_from_bytes.layoutsel_onednn",
           [](const ffi::Bytes& bytes) { return CreateModule(std::string(bytes)); })
      .def("layoutsel.onednn.create",
           [](const ffi::String& text) { return CreateModule(std::string(text)); })
      .def("layoutsel.onednn.implementations", Implementations)
      .def("layoutsel.onednn.compilations", Compilations)
      .def("layoutsel.onednn.set_profiling", SetProfiling)
      .def("layoutsel.onednn.version", Version)
      .def("layoutsel.onednn.use_cache", UseCache)
      .def("layoutsel.onednn.drop_cache", DropCache)
      .def("layoutsel.watch", Watch)
      .def("layoutsel.bound_in_flight", BoundInFlight)
      .def("layoutsel.chain", RunChain)
      .def("layoutsel.repeated_runs", RepeatedRuns)
      .def("layoutsel.exit_chain", ExitChain)
      .def("layoutsel.exit_lanes", ExitLanes)
      .def("layoutsel.exit_segment", ExitSegment)
      .def("layoutsel.copy_rows", CopyRows)
      .def("layoutsel.cancelling_instrument", Instrument)
      .def("layoutsel.recording_instrument", Recording::Instrument)
      .def("layoutsel.set_num_threads", SetNumThreads)
      .def("layoutsel.get_num_threads", GetNumThreads);
}

}  // namespace layoutsel

#include "module.h"

#include <tvm/ffi/cast.h>

#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "buffer.h"
#include "launch.h"
#include "program.h"
#include "recorder.h"
#include "wire.h"

namespace layoutsel::opencl {

namespace ffi = tvm::ffi;
using tvm::runtime::FunctionInfo;
using tvm::runtime::FunctionInfoObj;

namespace {

constexpr const char* kKind = "opencl";
constexpr const char* kMark = "// Function: ";

// Work-items: groups and their size, in three dimensions.
struct Grid {
  std::array<size_t, 3> groups{1, 1, 1};
  std::array<size_t, 3> group{1, 1, 1};

  size_t group_size() const { return group[0] * group[1] * group[2]; }
};

std::string Text(const std::array<size_t, 3>& extents) {
  return std::to_string(extents[0]) + "×" + std::to_string(extents[1]) + "×" +
         std::to_string(extents[2]);
}

// The dimension that a launch parameter sets.
size_t* Extent(Grid* grid, const std::string& tag) {
  for (auto [prefix, extents] :
       {std::pair("blockIdx.", &grid->groups), std::pair("threadIdx.", &grid->group)}) {
    size_t length = std::strlen(prefix);
    if (tag.size() == length + 1 && tag.compare(0, length, prefix) == 0 && tag[length] >= 'x' &&
        tag[length] <= 'z') {
      return &(*extents)[tag[length] - 'x'];
    }
  }
  return nullptr;
}

// A kernel as its callers know it: what it takes, and where it has been built.
class Kernel {
 public:
  Kernel(FunctionInfo info, std::string source)
      : info_(std::move(info)), source_(std::move(source)) {
    Grid unused;
    for (const ffi::String& tag : info_->launch_param_tags) {
      if (Extent(&unused, tag) == nullptr) {
        TVM_FFI_THROW(ValueError) << "OpenCL kernel '" << info_->name
                                  << "' wants the launch parameter '" << tag
                                  << "', which OpenCL has not";
      }
    }
  }

  void Run(ffi::PackedArgs args) {
    size_t expected = info_->arg_types.size() + info_->launch_param_tags.size();
    if (static_cast<size_t>(args.size()) != expected) {
      TVM_FFI_THROW(TypeError) << "OpenCL kernel '" << info_->name << "' takes " << expected
                               << " arguments; got " << args.size();
    }
    int number = CurrentDevice();
    Device& device = DeviceAt(number);
    // Arguments belong to the kernel object until it is enqueued.
    std::lock_guard<std::mutex> lock(mutex_);
    if (auto found = built_.find(number); found != built_.end()) {
      RunOn(device, number, &found->second.kernel, args);
      return;
    }
    BuildLock build_lock = Lock(device, source_);
    Built& built = built_.emplace(number, Build(device, info_->name, source_)).first->second;
    RunOn(device, number, &built.kernel, args);
    if (built.is_from_source && build_lock.is_held()) {
      Finish(device, QueueOf(number));
      Keep(device, built.kernel, source_);
    }
  }

 private:
  void RunOn(Device& device, int number, cl::Kernel* kernel, ffi::PackedArgs args) const {
    SetArguments(device, kernel, args);
    Enqueue(device, *kernel, GridOf(args), QueueOf(number));
  }

  void SetArguments(const Device& device, cl::Kernel* kernel, ffi::PackedArgs args) const {
    for (size_t i = 0; i < info_->arg_types.size(); ++i) {
      try {
        if (!Set(kernel, static_cast<cl_uint>(i), info_->arg_types[i], args[i])) {
          TVM_FFI_THROW(TypeError) << "argument " << i << " of OpenCL kernel '" << info_->name
                                   << "' is a " << args[i].GetTypeKey() << "; expected "
                                   << ffi::DLDataTypeToString(info_->arg_types[i]);
        }
      } catch (const cl::Error& error) {
        device.Fail("argument " + std::to_string(i) + " of kernel '" + std::string(info_->name) +
                        "' cannot be set",
                    error);
      }
    }
  }

  // Whether the argument is of a type that OpenCL can be given.
  bool Set(cl::Kernel* kernel, cl_uint index, DLDataType type, ffi::AnyView value) const {
    if (type.code == kDLOpaqueHandle) {
      auto data = value.try_cast<void*>();
      if (!data) return false;
      auto* buffer = static_cast<Buffer*>(*data);
      cl_mem memory = buffer == nullptr ? nullptr : buffer->memory();
      kernel->setArg(index, sizeof(memory), &memory);
    } else if (type.code == kDLFloat && (type.bits == 32 || type.bits == 64)) {
      auto number = value.try_cast<double>();
      if (!number) return false;
      if (type.bits == 32) {
        kernel->setArg(index, static_cast<cl_float>(*number));
      } else {
        kernel->setArg(index, static_cast<cl_double>(*number));
      }
    } else if (type.code == kDLInt || type.code == kDLUInt || type.code == kDLBool) {
      auto number = value.try_cast<int64_t>();
      if (!number) return false;
      // Little-endian: the low bytes are the number.
      kernel->setArg(index, static_cast<size_t>(type.bits + 7) / 8, &*number);
    } else {
      return false;
    }
    return true;
  }

  Grid GridOf(ffi::PackedArgs args) const {
    Grid grid;
    int next = static_cast<int>(info_->arg_types.size());
    for (const ffi::String& tag : info_->launch_param_tags) {
      *Extent(&grid, tag) = static_cast<size_t>(args[next++].cast<int64_t>());
    }
    return grid;
  }

  void Enqueue(const Device& device, const cl::Kernel& kernel, const Grid& grid,
               cl::CommandQueue queue) const {
    if (grid.groups[0] * grid.groups[1] * grid.groups[2] == 0) return;  // an empty tensor
    const auto& [g, l] = std::pair(grid.groups, grid.group);
    try {
      bool is_recorded = IsRecording();
      cl::Event event;
      queue.enqueueNDRangeKernel(
          kernel, cl::NullRange, cl::NDRange(g[0] * l[0], g[1] * l[1], g[2] * l[2]),
          cl::NDRange(l[0], l[1], l[2]), nullptr, is_recorded ? &event : nullptr);
      if (is_recorded) Record(device, info_->name, event);
      queue.flush();  // some drivers would start at the next wait
    } catch (const cl::Error& error) {
      size_t most = MostInGroup(device, kernel);
      std::string limit = most > 0 && grid.group_size() > most
                              ? "; the device runs at most " + std::to_string(most) +
                                    " work-items of it in a group: schedule it with fewer threads"
                              : "";
      device.Fail("kernel '" + std::string(info_->name) + "' cannot run in " + Text(g) +
                      " groups of " + Text(l) + limit,
                  error);
    }
  }

  // Work-items of a group; 0 where the device, perhaps lost, does not say.
  static size_t MostInGroup(const Device& device, const cl::Kernel& kernel) {
    try {
      return kernel.getWorkGroupInfo<CL_KERNEL_WORK_GROUP_SIZE>(device.handle());
    } catch (const cl::Error&) {
      return 0;
    }
  }

  void Finish(const Device& device, cl::CommandQueue queue) const {
    try {
      queue.finish();
    } catch (const cl::Error& error) {
      device.Fail("kernel '" + std::string(info_->name) + "' failed", error);
    }
  }

  FunctionInfo info_;
  std::string source_;
  std::mutex mutex_;
  std::map<int, Built> built_;
};

// The part of `code` between a kernel's mark and the next one.
std::string SourceOf(const std::string& code, const std::string& name) {
  std::string mark = kMark + name + "\n";
  size_t start = code.find(mark);
  if (start == std::string::npos) return code;  // by other means than TVM's generator
  return code.substr(start, code.find(kMark, start + mark.size()) - start);
}

// TVM writes numbers with seven digits: of the least and the largest, others that lie within.
// A maximum that starts from such a number is wrong for masks of the least one.
std::string WithExactLimits(std::string code) {
  const std::string rounded = "3.402823e+38f", exact = "3.402823466e+38f";
  size_t at = 0;
  while ((at = code.find(rounded, at)) != std::string::npos) {
    code.replace(at, rounded.size(), exact);
    at += exact.size();
  }
  return code;
}

class OpenClModule : public ffi::ModuleObj {
 public:
  OpenClModule(ffi::Bytes code, ffi::String format, KernelInfos infos)
      : code_(WithExactLimits({code.data(), code.size()})),
        format_(std::move(format)),
        infos_(std::move(infos)) {
    for (const auto& [name, info] : infos_) {
      kernels_[name] = std::make_shared<Kernel>(info, SourceOf(code_, info->name));
    }
  }

  const char* kind() const final { return kKind; }

  int GetPropertyMask() const final {
    return ffi::Module::kBinarySerializable | ffi::Module::kRunnable;
  }

  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    auto found = kernels_.find(name);
    if (found == kernels_.end()) return std::nullopt;
    return ffi::Function::FromPacked(
        [kernel = found->second](ffi::PackedArgs args, ffi::Any*) { kernel->Run(args); });
  }

  ffi::Bytes SaveToBytes() const final { return WriteModule(format_, infos_, code_); }

  ffi::String InspectSource(const ffi::String&) const final { return code_; }

 private:
  std::string code_;
  ffi::String format_;
  KernelInfos infos_;
  std::map<std::string, std::shared_ptr<Kernel>> kernels_;
};

}  // namespace

ffi::Module CreateModule(ffi::Bytes code, ffi::String format, KernelInfos infos) {
  return ffi::Module(ffi::make_object<OpenClModule>(code, format, infos));
}

ffi::Module LoadModule(const ffi::Bytes& bytes) {
  Saved saved = ReadModule(bytes);
  return CreateModule(ffi::Bytes(saved.code), saved.format, saved.infos);
}

}  // namespace layoutsel::opencl

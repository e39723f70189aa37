#include "exit_segment.h"

#include <tvm/ffi/error.h>

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "chain.h"
#include "threads.h"

namespace layoutsel {

namespace {

struct Copy {
  int64_t slot;
  char* target;
  size_t bytes;
};

void Take(const Copy& copy, const DLTensor& tensor) {
  size_t bytes = ffi::GetDataSize(tensor);
  if (bytes != copy.bytes) {
    TVM_FFI_THROW(ValueError) << "a result of an exit has " << bytes << " bytes; expected "
                              << copy.bytes;
  }
  std::memcpy(copy.target, static_cast<const char*>(tensor.data) + tensor.byte_offset, bytes);
}

}  // namespace

ffi::Function ExitSegment(ffi::Array<ffi::Function> functions, ffi::Array<ffi::Function> recorded,
                          ffi::Array<ffi::Any> weights, ffi::Array<ffi::Shape> reads,
                          ffi::Array<ffi::Shape> writes, ffi::Array<ffi::Shape> frees,
                          int64_t slots, ffi::Shape kept, ffi::Shape copies, int64_t threads) {
  ChainParts parts{functions, recorded, weights, reads, writes, frees, slots};
  std::vector<int64_t> read(kept.begin(), kept.end());
  std::vector<Copy> made;
  for (size_t i = 0; i < copies.size(); i += 3) {
    read.push_back(copies[i]);
    made.push_back(
        {copies[i], reinterpret_cast<char*>(copies[i + 1]), static_cast<size_t>(copies[i + 2])});
  }
  auto chain = std::make_shared<Chain>(parts, std::move(read), true);
  return ffi::Function::FromPacked([=](ffi::PackedArgs inputs, ffi::Any* results) {
    RequestedThreads requested(static_cast<int>(threads));
    chain->Run(inputs, [](size_t) { return false; });
    try {
      for (const Copy& one : made) Take(one, *chain->Value(one.slot).cast<DLTensor*>());
    } catch (...) {
      chain->Release();
      throw;
    }
    std::vector<ffi::Any> found;
    for (int64_t slot : kept) found.push_back(chain->Value(slot));
    chain->Release();
    *results = ffi::Array<ffi::Any>(found.begin(), found.end());
  });
}

void CopyRows(ffi::Array<ffi::Tensor> sources, ffi::Array<ffi::Tensor> targets, ffi::Shape rows) {
  for (size_t i = 0; i < sources.size(); ++i) {
    ffi::Tensor source = sources[i], target = targets[i];
    size_t bytes = ffi::GetDataSize(source) / source.shape()[0];
    if (bytes * target.shape()[0] != ffi::GetDataSize(target)) {
      TVM_FFI_THROW(ValueError) << "rows of " << bytes << " bytes are copied to a tensor of "
                                << ffi::GetDataSize(target) << " bytes";
    }
    const char* from = static_cast<const char*>(source.data_ptr());
    char* to = static_cast<char*>(target.data_ptr());
    for (size_t row = 0; row < rows.size(); ++row) {
      std::memcpy(to + row * bytes, from + rows[row] * bytes, bytes);
    }
  }
}

}  // namespace layoutsel

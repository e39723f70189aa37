// Built programs, kept from one process to the next.
//
// Drivers abort on damaged binaries instead of refusing them, so a file holds, beside the binary,
// all that it depends on (compared, not only hashed) and a checksum over everything. Whatever does
// not fit counts as absent.
#ifndef LAYOUTSEL_OPENCL_BINARY_CACHE_H_
#define LAYOUTSEL_OPENCL_BINARY_CACHE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace layoutsel::opencl {

using Binary = std::vector<unsigned char>;

// Held by one process while it builds, first runs and keeps a kernel. PoCL 3.1 reads its own cache
// folder to hand out a binary, and crashes where another process writes there meanwhile.
class BuildLock {
 public:
  // Waits for the byte at `position` of a file, at most a minute. A file that cannot be made or
  // locked leaves the lock unheld.
  BuildLock(const std::string& path, uint64_t position);
  ~BuildLock();
  BuildLock(BuildLock&& other) noexcept;
  BuildLock(const BuildLock&) = delete;
  BuildLock& operator=(const BuildLock&) = delete;
  BuildLock& operator=(BuildLock&&) = delete;

  bool is_held() const { return file_ >= 0; }

 private:
  int file_ = -1;
};

class BinaryCache {
 public:
  // In a folder that is made when it is used; nothing is kept where it is empty.
  explicit BinaryCache(std::string folder) : folder_(std::move(folder)) {}

  // `key` is everything that the binary depends on.
  std::optional<Binary> Load(const std::string& key) const;
  // The lock of one key, for all processes with this folder.
  BuildLock Lock(const std::string& key) const;
  // Atomic: a reader sees no half of it. A folder that cannot be written is left alone.
  void Store(const std::string& key, const Binary& binary) const;

 private:
  std::string Path(const std::string& key) const;

  std::string folder_;
};

// The cache of this process.
std::shared_ptr<const BinaryCache> Cache();
void SetCacheFolder(const std::string& folder);

}  // namespace layoutsel::opencl

#endif  // LAYOUTSEL_OPENCL_BINARY_CACHE_H_

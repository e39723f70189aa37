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

class BinaryCache {
 public:
  // In a folder that is made when something is stored; nothing is kept where it is empty.
  explicit BinaryCache(std::string folder) : folder_(std::move(folder)) {}

  // `key` is everything that the binary depends on.
  std::optional<Binary> Load(const std::string& key) const;
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

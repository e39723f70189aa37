#include "binary_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <thread>
#include <utility>

namespace layoutsel::opencl {

namespace {

namespace fs = std::filesystem;

constexpr char kMagic[] = "layoutsel-opencl-1\n";
constexpr size_t kNumber = sizeof(uint64_t);
constexpr auto kLongestWait = std::chrono::minutes(1);
constexpr auto kPause = std::chrono::milliseconds(5);

// FNV-1a.
uint64_t Hash(const char* data, size_t size) {
  uint64_t hash = 14695981039346656037u;
  for (size_t i = 0; i < size; ++i) {
    hash = (hash ^ static_cast<unsigned char>(data[i])) * 1099511628211u;
  }
  return hash;
}

void Append(std::string* text, uint64_t number) {
  text->append(reinterpret_cast<const char*>(&number), kNumber);
}

// What stands before the binary in a file.
std::string Front(const std::string& key) {
  std::string text = kMagic;
  Append(&text, key.size());
  return text + key;
}

std::shared_ptr<const BinaryCache>& Slot() {
  static auto* slot = new std::shared_ptr<const BinaryCache>(new BinaryCache(""));
  return *slot;
}

}  // namespace

BuildLock::BuildLock(const std::string& path, uint64_t position) {
  int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return;
  struct flock range = {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_start = static_cast<off_t>(position >> 2);  // not negative, and its end is no overflow
  range.l_len = 1;
  auto end = std::chrono::steady_clock::now() + kLongestWait;
  // A lock of the open file, not of the process: threads exclude each other too.
  while (fcntl(file, F_OFD_SETLK, &range) != 0) {
    bool is_taken = errno == EAGAIN || errno == EACCES || errno == EINTR;
    if (!is_taken || std::chrono::steady_clock::now() > end) {
      close(file);
      return;
    }
    std::this_thread::sleep_for(kPause);
  }
  file_ = file;
}

BuildLock::BuildLock(BuildLock&& other) noexcept : file_(std::exchange(other.file_, -1)) {}

BuildLock::~BuildLock() {
  if (is_held()) close(file_);
}

BuildLock BinaryCache::Lock(const std::string& key) const {
  if (folder_.empty()) return BuildLock("", 0);
  std::error_code ignored;
  fs::create_directories(folder_, ignored);
  return BuildLock((fs::path(folder_) / "lock").string(), Hash(key.data(), key.size()));
}

std::string BinaryCache::Path(const std::string& key) const {
  std::ostringstream name;
  name << std::hex << Hash(key.data(), key.size()) << ".clbin";
  return (fs::path(folder_) / name.str()).string();
}

std::optional<Binary> BinaryCache::Load(const std::string& key) const {
  if (folder_.empty()) return std::nullopt;
  std::ifstream file(Path(key), std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  std::string front = Front(key);
  if (text.size() <= front.size() + kNumber || text.compare(0, front.size(), front) != 0) {
    return std::nullopt;
  }
  size_t end = text.size() - kNumber;
  uint64_t checksum;
  std::memcpy(&checksum, text.data() + end, kNumber);
  if (checksum != Hash(text.data(), end)) return std::nullopt;
  return Binary(text.begin() + front.size(), text.begin() + end);
}

void BinaryCache::Store(const std::string& key, const Binary& binary) const {
  if (folder_.empty()) return;
  std::string text = Front(key);
  text.append(binary.begin(), binary.end());
  Append(&text, Hash(text.data(), text.size()));
  static std::atomic<int> count{0};
  std::string path = Path(key);
  std::string temporary = path + "." + std::to_string(getpid()) + "." + std::to_string(count++);
  std::ofstream file(temporary, std::ios::binary);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  if (file.fail() || std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
  }
}

std::shared_ptr<const BinaryCache> Cache() { return std::atomic_load(&Slot()); }

void SetCacheFolder(const std::string& folder) {
  std::atomic_store(&Slot(), std::shared_ptr<const BinaryCache>(new BinaryCache(folder)));
}

}  // namespace layoutsel::opencl

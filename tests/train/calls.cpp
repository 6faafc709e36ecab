// calls.cpp - the C library's calls, replaced by such that record and pass on.
#include "train/calls.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <utility>

#include "io/file.h"

namespace mezzo::test {
namespace {

namespace fs = std::filesystem;
using Inode = std::pair<dev_t, ino_t>;

/// What is on the disk of a file or a directory: its bytes, or its entries.
std::string contents_of(const fs::path& path) {
  if (!fs::is_directory(path)) return io::read_file(path);
  std::vector<std::string> names;
  for (const auto& e : fs::directory_iterator(path)) names.push_back(e.path().filename());
  std::sort(names.begin(), names.end());
  std::string all;
  for (const auto& n : names) all += n + '\n';
  return all;
}

std::optional<Inode> inode_of(const fs::path& path) {
  struct stat s {};
  return ::stat(path.c_str(), &s) == 0 ? std::optional(Inode(s.st_dev, s.st_ino)) : std::nullopt;
}

bool passing(const fs::path& p) {
  const std::string name = p.filename().native();
  return name.starts_with(".tmp-") || name.starts_with(".removed-");
}

struct Recording {
  fs::path root;
  bool busy = false;  // its own looks at files are not recorded
  std::vector<std::string> calls, wrong;
  std::map<Inode, std::string> synced;
  std::map<fs::path, std::set<std::string>> pending;  // by directory: what it does not show for certain yet

  std::string shown(const fs::path& p) const {
    return std::regex_replace(p.lexically_relative(root).native(), std::regex("[.]tmp-[0-9]+-[0-9]+-"), ".tmp-");
  }
  bool covers(const fs::path& p) const { return p.native().starts_with(root.native()); }

  void require_synced(const fs::path& path, const fs::path& to) {
    const auto at = synced.find(inode_of(path).value());
    if (at == synced.end()) wrong.push_back(shown(to) + ": renamed before " + shown(path) + " was synced");
    else if (at->second != contents_of(path)) wrong.push_back(shown(to) + ": renamed although " + shown(path) + " changed since it was synced");
    if (fs::is_directory(path))
      for (const auto& e : fs::directory_iterator(path)) require_synced(e.path(), to);
  }
  void on_sync(int fd) {
    std::error_code none;
    const fs::path path = fs::read_symlink("/proc/self/fd/" + std::to_string(fd), none);
    if (none || !covers(path)) return;
    calls.push_back("fsync " + shown(path));
    synced[inode_of(path).value()] = contents_of(path);
    if (fs::is_directory(path)) pending.erase(path);
  }
  void before_rename(const fs::path& from, const fs::path& to) {
    if (!covers(to)) return;
    calls.push_back("rename " + shown(from) + " -> " + shown(to));
    for (const auto& [directory, names] : pending)
      for (const auto& n : names) wrong.push_back(shown(to) + ": renamed before " + n + " was durable");
    if (!passing(to)) require_synced(from, to);
  }
  void after(const char* call, const fs::path& made) {
    if (!covers(made) || passing(made)) return;
    pending[made.parent_path()].insert(shown(made) + " (" + call + ")");
  }
};

std::optional<Recording> recording;
std::optional<std::pair<double, int>> backwards;  // seconds, looks

template <class F> F next(const char* name) { return reinterpret_cast<F>(::dlsym(RTLD_NEXT, name)); }

/// f(recording), unless none is going on or the recorder itself is at work.
template <class F> void record(F&& f) {
  if (!recording || recording->busy) return;
  const int error = errno;
  recording->busy = true;
  f(*recording);
  recording->busy = false;
  errno = error;
}

}  // namespace

CallRecorder::CallRecorder(const fs::path& root) { recording.emplace().root = fs::canonical(root); }
CallRecorder::~CallRecorder() { recording.reset(); }
const std::vector<std::string>& CallRecorder::calls() const { return recording->calls; }
std::vector<std::string> CallRecorder::wrong() const {
  auto all = recording->wrong;
  for (const auto& [directory, names] : recording->pending)
    for (const auto& n : names) all.push_back(n + " is not durable at the end");
  return all;
}

BackwardClock::BackwardClock(double seconds) { backwards.emplace(seconds, 0); }
BackwardClock::~BackwardClock() { backwards.reset(); }
int BackwardClock::looks() const { return backwards->second; }

}  // namespace mezzo::test

using namespace mezzo::test;

extern "C" {

int mkdir(const char* path, mode_t mode) {
  static const auto real = next<int (*)(const char*, mode_t)>("mkdir");
  const int result = real(path, mode);
  if (result == 0) record([&](Recording& r) { r.calls.push_back("mkdir " + r.shown(path)), r.after("mkdir", path); });
  return result;
}

int rename(const char* from, const char* to) noexcept {
  static const auto real = next<int (*)(const char*, const char*)>("rename");
  record([&](Recording& r) { r.before_rename(from, to); });
  const int result = real(from, to);
  if (result == 0) record([&](Recording& r) { r.after("rename", to); });
  return result;
}

int renameat2(int from_fd, const char* from, int to_fd, const char* to, unsigned flags) noexcept {
  static const auto real = next<int (*)(int, const char*, int, const char*, unsigned)>("renameat2");
  record([&](Recording& r) { r.before_rename(from, to); });
  const int result = real(from_fd, from, to_fd, to, flags);
  if (result == 0) record([&](Recording& r) { r.after("rename", to); });
  return result;
}

int fsync(int fd) {
  static const auto real = next<int (*)(int)>("fsync");
  const int result = real(fd);
  if (result == 0) record([&](Recording& r) { r.on_sync(fd); });
  return result;
}

int fdatasync(int fd) {
  static const auto real = next<int (*)(int)>("fdatasync");
  const int result = real(fd);
  if (result == 0) record([&](Recording& r) { r.on_sync(fd); });
  return result;
}

int clock_gettime(clockid_t clock, struct timespec* t) noexcept {
  static const auto real = next<int (*)(clockid_t, struct timespec*)>("clock_gettime");
  const int result = real(clock, t);
  if (clock == CLOCK_REALTIME && backwards && result == 0) {
    ++backwards->second;
    t->tv_sec -= static_cast<time_t>(backwards->first * backwards->second);
  }
  return result;
}
}

// file.cpp - descriptors, reading, mapping, logs and locks.
#include "io/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <ctime>
#include <system_error>

#include <fmt/core.h>

#include "core/fail.h"
#include "core/log.h"
#include "io/signals.h"

namespace mezzo::io {
namespace {

std::string message_of(int error) { return std::generic_category().message(error); }

struct stat status_of(const Fd& fd, const std::filesystem::path& path, std::string_view operation) {
  struct stat s {};
  if (::fstat(fd.get(), &s) != 0) fail_file(operation, path, errno);
  return s;
}

}  // namespace

void fail_file(std::string_view operation, const std::filesystem::path& path, int error, std::uint64_t written) {
  const std::string& p = path.native();
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      fail(operation,
           fmt::format("{}: no space left on its file system after {} bytes of this file ({}); nothing already written was lost", p, written,
                       message_of(error)),
           "free some space or choose another directory, then run again");
    case EFBIG:
      fail(operation,
           fmt::format("{}: larger than files may be here, after {} bytes ({}); nothing already written was lost", p, written, message_of(error)),
           "`ulimit -f` shows the limit of this shell");
    default: fail(operation, fmt::format("{}: {}", p, message_of(error)));
  }
}

int Fd::close() noexcept {
  if (fd_ < 0) return 0;
  return ::close(std::exchange(fd_, -1)) == 0 || errno == EINTR ? 0 : errno;
}

Fd open_file(const std::filesystem::path& path, int flags, std::string_view operation) {
  int fd;
  do fd = ::open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY, 0666);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) fail_file(operation, path, errno);
  return Fd(fd);
}

FileSizeSignalOff::FileSizeSignalOff() noexcept {
  ::sigemptyset(&signal_);
  ::sigaddset(&signal_, SIGXFSZ);
  sigset_t pending;
  ::sigpending(&pending);
  was_pending_ = ::sigismember(&pending, SIGXFSZ) == 1;
  ::pthread_sigmask(SIG_BLOCK, &signal_, &before_);
}

FileSizeSignalOff::~FileSizeSignalOff() {
  if (raised_ && !was_pending_) {
    const timespec now{};
    while (::sigtimedwait(&signal_, nullptr, &now) < 0 && errno == EINTR) {}
  }
  ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

int write_all(int fd, std::span<const std::byte> bytes, std::uint64_t& written) noexcept {
  FileSizeSignalOff guard;
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return guard.seen(errno);
    }
    if (n == 0) return ENOSPC;  // no file system of ours does this; never loop on it
    written += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return 0;
}

void sync_directory(const std::filesystem::path& path) {
  const Fd fd = open_file(path.empty() ? "." : path, O_RDONLY | O_DIRECTORY, "sync");
  if (::fsync(fd.get()) != 0 && errno != EINVAL && errno != ENOTSUP) fail_file("sync", path, errno);  // EINVAL: it has nothing to sync
}

void make_directory(const std::filesystem::path& path, std::string_view operation) {
  if (::mkdir(path.c_str(), 0777) == 0) return sync_directory(path.parent_path());
  const int error = errno;
  std::error_code ignored;
  if (error != EEXIST) fail_file(operation, path, error);
  if (!std::filesystem::is_directory(path, ignored)) fail_file(operation, path, ENOTDIR);
}

void make_directories(const std::filesystem::path& path, std::string_view operation) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return;
  if (const auto parent = path.parent_path(); !parent.empty() && parent != path) make_directories(parent, operation);
  if (path.has_filename()) make_directory(path, operation);
}

std::string read_file(const std::filesystem::path& path, std::uint64_t limit) {
  const Fd fd = open_file(path, O_RDONLY, "read");
  const struct stat status = status_of(fd, path, "read");
  if (S_ISDIR(status.st_mode)) fail_file("read", path, EISDIR);
  const auto check = [&](std::uint64_t size) {
    if (size > limit) fail("read", fmt::format("{}: longer than {} bytes, the most that is expected here", path.native(), limit));
  };
  check(static_cast<std::uint64_t>(status.st_size));
  std::string out;
  out.resize(static_cast<std::size_t>(status.st_size) + 1);  // one more, so that the end is seen without growing
  std::size_t used = 0;
  while (true) {
    const ssize_t n = ::read(fd.get(), out.data() + used, out.size() - used);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_file("read", path, errno);
    if (n == 0) break;
    used += static_cast<std::size_t>(n);
    check(used);
    if (used == out.size()) out.resize(out.size() * 2 + 4096);  // it grew, or has no size (/proc)
  }
  out.resize(used);
  return out;
}

MappedFile::MappedFile(const std::filesystem::path& path, Access access) {
  const Fd fd = open_file(path, O_RDONLY | O_NONBLOCK, "map");  // a FIFO must not block before it is refused
  const struct stat status = status_of(fd, path, "map");
  if (!S_ISREG(status.st_mode))
    fail("map", fmt::format("{}: {}, a regular file was expected", path.native(), S_ISDIR(status.st_mode) ? "a directory" : "a device or pipe"));
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) return;
  void* p = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (p == MAP_FAILED) fail_file("map", path, errno);
  bytes_ = {static_cast<const std::byte*>(p), size};
  if (access != Access::normal) advise(access);
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::advise(Access access) const noexcept {
  constexpr int kAdvice[] = {MADV_NORMAL, MADV_SEQUENTIAL, MADV_RANDOM, MADV_WILLNEED};
  if (!bytes_.empty()) ::madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), kAdvice[static_cast<int>(access)]);
}

AppendFile::AppendFile(std::filesystem::path path, std::uint64_t keep) : path_(std::move(path)) {
  std::error_code ignored;
  const bool made = !std::filesystem::exists(path_, ignored);
  fd_ = open_file(path_, O_WRONLY | O_CREAT | O_APPEND, "open");
  if (made) sync_directory(path_.parent_path());
  size_ = static_cast<std::uint64_t>(status_of(fd_, path_, "open").st_size);
  if (size_ > keep) {
    if (::ftruncate(fd_.get(), static_cast<off_t>(keep)) != 0) fail_file("truncate", path_, errno);
    size_ = keep;
  }
}

AppendFile::~AppendFile() {
  if (!fd_) return;
  try {
    flush();
  } catch (const Error& e) { log(LogLevel::warning, e.what()); }
}

void AppendFile::append(std::string_view record) {
  constexpr std::size_t kMuch = 1 << 16;
  buffer_ += record;
  if (buffer_.size() >= kMuch) flush();
}

void AppendFile::flush() {
  std::uint64_t written = 0;
  if (const int error = write_all(fd_.get(), as_bytes(buffer_), written)) {
    // Back to the last whole record. Should even that fail, the next open finds a torn tail, which readers of logs must expect anyway.
    if (written > 0 && ::ftruncate(fd_.get(), static_cast<off_t>(size_)) != 0) size_ += written, buffer_.erase(0, written);
    fail_file("append", path_, error, size_);
  }
  size_ += buffer_.size();
  buffer_.clear();
}

void AppendFile::sync() {
  flush();
  if (::fsync(fd_.get()) != 0 && errno != EINVAL && errno != ENOTSUP) fail_file("sync", path_, errno, size_);
}

DirectoryLock::DirectoryLock(const std::filesystem::path& directory) : directory_(directory) {
  const auto path = directory / ".lock";
  Fd fd = open_file(path, O_RDWR | O_CREAT, "lock");
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      log_once(LogLevel::warning, directory.native(),
               fmt::format("{}: this file system has no locks ({}); nothing keeps a second process out", directory.native(), message_of(errno)));
      fd_ = std::move(fd);
      return;
    }
    char text[16];
    const ssize_t n = ::pread(fd.get(), text, sizeof text, 0);
    long pid = 0;
    if (n > 0) std::from_chars(text, text + n, pid);
    const std::string holder = pid == ::getpid() ? "this process" : pid > 0 ? fmt::format("process {}", pid) : "another process";
    fail("lock", fmt::format("{} is in use by {}, one at a time was expected", directory.native(), holder),
         "wait until it ends, or choose another directory");
  }
  // Only a help to whoever reads the message above: the lock itself is the system's.
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd.get(), 0) != 0 || ::pwrite(fd.get(), pid.data(), pid.size(), 0) < 0)
    log(LogLevel::debug, fmt::format("{}: could not note the process id ({})", path.native(), message_of(errno)));
  fd_ = std::move(fd);
}

void DirectoryLock::require_held() const {
  struct stat ours {
  }, named{};
  if (::fstat(fd_.get(), &ours) == 0 && ::stat((directory_ / ".lock").c_str(), &named) == 0 && ours.st_dev == named.st_dev &&
      ours.st_ino == named.st_ino)
    return;
  fail("lock", fmt::format("{}: this is no longer the directory that the run was writing to: it, or its .lock, was removed, renamed or replaced",
                           directory_.native()));
}

}  // namespace mezzo::io

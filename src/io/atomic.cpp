// atomic.cpp - files and directories that appear complete or not at all.
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <system_error>

#include <fmt/core.h>

#include "core/fail.h"
#include "io/file.h"
#include "io/signals.h"

namespace mezzo::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = ".tmp-";
constexpr std::size_t kBuffer = 1 << 20;

/// `.tmp-PID-N-name` in the destination's directory, so that the rename stays on one file system.
fs::path temporary_beside(const fs::path& destination) {
  static std::atomic<unsigned> counter{0};
  const std::string name = destination.filename().native().substr(0, 200);  // a name has at most 255 bytes
  return destination.parent_path() / fmt::format("{}{}-{}-{}", kPrefix, ::getpid(), counter.fetch_add(1, std::memory_order_relaxed), name);
}

bool is_temporary(std::string_view name) {
  if (!name.starts_with(kPrefix)) return false;
  name.remove_prefix(kPrefix.size());
  for (int number = 0; number < 2; ++number) {  // PID-N-
    const std::size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
    if (digits == 0 || digits == name.size() || name[digits] != '-') return false;
    name.remove_prefix(digits + 1);
  }
  return true;
}

int lock(int fd, int how) {
  while (::flock(fd, how) != 0)
    if (errno != EINTR) return errno;
  return 0;
}

/// A living writer holds a lock on its temporary. Between making and locking it, clean_stale of another process may have taken it away:
/// false then. A file system without locks has no clean_stale either, and the writer goes on.
bool lock_as_alive(const Fd& fd, const fs::path& path) {
  lock(fd.get(), LOCK_EX);
  struct stat ours {
  }, named{};
  return ::fstat(fd.get(), &ours) == 0 && ::lstat(path.c_str(), &named) == 0 && ours.st_dev == named.st_dev && ours.st_ino == named.st_ino;
}

void require_name(const fs::path& destination, std::string_view operation) {
  const fs::path name = destination.filename();
  if (name.empty() || name == "." || name == "..") fail(operation, fmt::format("`{}` does not end in a name", destination.native()));
}

}  // namespace

AtomicFile::AtomicFile(fs::path path, std::uint64_t expected) : path_(std::move(path)), buffer_(new std::byte[kBuffer]) {
  require_name(path_, "create");
  do {
    temporary_ = temporary_beside(path_);
    const int fd = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 && errno != EEXIST && errno != EINTR) fail_file("create", path_, errno);
    fd_ = Fd(fd);
  } while (!fd_ || !lock_as_alive(fd_, temporary_));

  if (expected == 0) return;
  FileSizeSignalOff guard;
  if (::fallocate(fd_.get(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(expected)) == 0) return;
  const int error = guard.seen(errno);
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {  // others: this file system cannot reserve
    ::unlink(temporary_.c_str());                              // no destructor runs for a constructor that throws
    fail_file(fmt::format("reserve {} bytes", expected), path_, error);
  }
}

AtomicFile::~AtomicFile() {
  if (fd_) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  MEZZO_CHECK(fd_);
  checksum_.update(bytes);
  size_ += bytes.size();
  if (buffered_ + bytes.size() > kBuffer) flush();
  if (bytes.size() >= kBuffer) return put(bytes);
  if (!bytes.empty()) std::memcpy(buffer_.get() + buffered_, bytes.data(), bytes.size());
  buffered_ += bytes.size();
}

void AtomicFile::flush() { put({buffer_.get(), std::exchange(buffered_, 0)}); }

void AtomicFile::put(std::span<const std::byte> bytes) {
  if (const int error = write_all(fd_.get(), bytes, written_)) fail_file("write", path_, error, written_);
}

void AtomicFile::overwrite(std::uint64_t offset, std::string_view bytes) {
  flush();
  MEZZO_CHECK(offset + bytes.size() <= written_);
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::pwrite(fd_.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno != EINTR) fail_file("write", path_, errno, written_);
    if (n > 0) done += static_cast<std::size_t>(n);
  }
}

void AtomicFile::commit() {
  MEZZO_CHECK(fd_);
  flush();
  if (written_ != size_) fail("write", fmt::format("{}: an earlier write failed, the file is not complete", path_.native()));
  if (::ftruncate(fd_.get(), static_cast<off_t>(written_)) != 0) fail_file("write", path_, errno, written_);  // gives back unused reserve
  if (::fsync(fd_.get()) != 0) fail_file("sync", path_, errno, written_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_file("rename into", path_, errno);
  fd_.close();
  sync_directory(path_.parent_path());
}

void write_file(const fs::path& path, std::string_view contents) {
  AtomicFile file(path);
  file.write(contents);
  file.commit();
}

AtomicDirectory::AtomicDirectory(fs::path destination) : destination_(std::move(destination)) {
  if (!destination_.has_filename()) destination_ = destination_.parent_path();  // "a/b/" is "a/b"
  require_name(destination_, "create");
  do {
    temporary_ = temporary_beside(destination_);
    if (::mkdir(temporary_.c_str(), 0777) != 0) {
      if (errno == EEXIST) continue;
      fail_file("create", destination_, errno);
    }
    fd_ = Fd(::open(temporary_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd_ && errno != ENOENT) {
      const int error = errno;
      ::rmdir(temporary_.c_str());
      fail_file("create", destination_, error);
    }
  } while (!fd_ || !lock_as_alive(fd_, temporary_));
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  if (fd_) fs::remove_all(temporary_, ignored);
}

void AtomicDirectory::commit() {
  MEZZO_CHECK(fd_);
  try {
    for (const auto& entry : fs::recursive_directory_iterator(temporary_)) {
      if (entry.is_symlink() || !(entry.is_regular_file() || entry.is_directory())) continue;
      const Fd fd = open_file(entry.path(), O_RDONLY, "sync");
      if (::fsync(fd.get()) != 0) fail_file("sync", destination_ / entry.path().lexically_relative(temporary_), errno);
    }
  } catch (const fs::filesystem_error& e) { fail_file("sync", destination_, e.code().value()); }
  if (::fsync(fd_.get()) != 0 && errno != EINVAL) fail_file("sync", destination_, errno);

  std::error_code ignored;
  if (::rename(temporary_.c_str(), destination_.c_str()) != 0) {
    if (errno != ENOTEMPTY && errno != EEXIST) fail_file("rename into", destination_, errno);
    if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, destination_.c_str(), RENAME_EXCHANGE) == 0) {
      fs::remove_all(temporary_, ignored);  // what the destination was
    } else {
      // A file system that cannot exchange: for a moment nothing has the name, and the old directory waits under one that clean_stale spares.
      if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) fail_file("rename into", destination_, errno);
      const fs::path aside = destination_.native() + ".replaced";
      fs::remove_all(aside, ignored);
      if (::rename(destination_.c_str(), aside.c_str()) != 0) fail_file("rename", destination_, errno);
      if (::rename(temporary_.c_str(), destination_.c_str()) != 0) fail_file("rename into", destination_, errno);
      fs::remove_all(aside, ignored);
    }
  }
  fd_.close();
  sync_directory(destination_.parent_path());
}

int clean_stale(const fs::path& directory) {
  int removed = 0;
  std::error_code error;
  fs::directory_iterator entries(directory, error);
  if (error == std::errc::no_such_file_or_directory) return 0;
  if (error) fail_file("read directory", directory, error.value());
  for (const fs::directory_entry& entry : entries) {
    if (!is_temporary(entry.path().filename().native())) continue;
    if (entry.is_symlink(error) || !(entry.is_regular_file(error) || entry.is_directory(error))) continue;
    const Fd fd(::open(entry.path().c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd || lock(fd.get(), LOCK_EX | LOCK_NB) != 0) continue;  // its writer lives, or it is not ours to judge
    fs::remove_all(entry.path(), error);
    if (!error) ++removed;
  }
  return removed;
}

}  // namespace mezzo::io

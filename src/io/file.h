// file.h - files read whole or mapped, and files and directories that appear complete or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "io/checksum.h"

namespace mezzo::io {

inline std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }
inline std::string_view as_text(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// Throws "[operation] path: what `error` (an errno) means". Disk full and file-size limits are said plainly, with `written`, the bytes of
/// this file that had been written.
[[noreturn]] void fail_file(std::string_view operation, const std::filesystem::path& path, int error, std::uint64_t written = 0);

/// An open file descriptor, closed at the end of the scope.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) noexcept : fd_(fd) {}
  Fd(Fd&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  Fd& operator=(Fd&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  ~Fd() { close(); }
  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  /// The errno of close(2), or 0: some file systems report a failed write only here.
  int close() noexcept;

 private:
  int fd_ = -1;
};

/// Opens with O_CLOEXEC and O_NOCTTY added; throws where it cannot.
Fd open_file(const std::filesystem::path&, int flags, std::string_view operation);

/// Writes all of `bytes`, however the system cuts them up. Returns 0, or the errno that stopped it; `written` counts up as it goes.
/// A file-size limit (RLIMIT_FSIZE) gives EFBIG and never a signal.
int write_all(int fd, std::span<const std::byte> bytes, std::uint64_t& written) noexcept;

/// Makes a directory's entries durable.
void sync_directory(const std::filesystem::path&);
/// Makes a directory whose parent is there, unless it is there itself: durable when this returns. Error: it cannot, or something else has the name.
void make_directory(const std::filesystem::path&, std::string_view operation);
/// The same with all of its parents.
void make_directories(const std::filesystem::path&, std::string_view operation);

// ---- reading ---------------------------------------------------------------------------------

/// The whole file. Error if it is longer than `limit` bytes.
std::string read_file(const std::filesystem::path&, std::uint64_t limit = std::numeric_limits<std::int64_t>::max());

enum class Access : std::uint8_t { normal, sequential, random, will_need };  // madvise(2)

/// A regular file mapped read-only. The bytes live as long as this object; others must not shorten the file meanwhile (the system
/// answers with SIGBUS).
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path&, Access = Access::normal);
  MappedFile(MappedFile&& o) noexcept : bytes_(std::exchange(o.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& o) noexcept {
    std::swap(bytes_, o.bytes_);
    return *this;
  }
  ~MappedFile();
  std::span<const std::byte> bytes() const& noexcept { return bytes_; }
  std::string_view text() const& noexcept { return as_text(bytes_); }
  void advise(Access) const noexcept;

 private:
  std::span<const std::byte> bytes_;
};

// ---- writing ---------------------------------------------------------------------------------

/// A file written beside its destination (`.tmp-PID-N-name`) that takes its name only when it is complete and on the disk: whoever opens
/// `path` finds the old file or the new one, whatever happens in between. Without commit() the temporary is removed.
class AtomicFile {
 public:
  /// `expected` bytes, when known, are reserved now: a full disk is noticed before the work and not after.
  explicit AtomicFile(std::filesystem::path path, std::uint64_t expected = 0);
  AtomicFile(AtomicFile&&) noexcept = default;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  void write(std::span<const std::byte>);
  void write(std::string_view text) { write(as_bytes(text)); }
  /// Writes once more over bytes that were written before; checksum() stays that of what write() was given.
  void overwrite(std::uint64_t offset, std::string_view bytes);
  /// Bytes given to write() so far, and their checksum.
  std::uint64_t size() const noexcept { return size_; }
  std::uint64_t checksum() const noexcept { return checksum_.value(); }
  const std::filesystem::path& path() const noexcept { return path_; }
  /// Flushes, syncs, renames over `path`, syncs the directory. Once.
  void commit();

 private:
  void flush();
  void put(std::span<const std::byte>);

  std::filesystem::path path_, temporary_;
  Fd fd_;
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t buffered_ = 0;
  std::uint64_t size_ = 0, written_ = 0;
  Checksum64 checksum_;
};

/// The whole of a small file, atomically.
void write_file(const std::filesystem::path&, std::string_view contents);

/// A directory built beside its destination (`.tmp-PID-N-name`): put files into path(), then commit(). Without commit() it is removed.
class AtomicDirectory {
 public:
  explicit AtomicDirectory(std::filesystem::path destination);
  AtomicDirectory(AtomicDirectory&&) noexcept = default;
  AtomicDirectory& operator=(AtomicDirectory&&) = delete;
  ~AtomicDirectory();
  /// Where to write meanwhile.
  const std::filesystem::path& path() const noexcept { return temporary_; }
  /// Syncs everything inside and takes the destination's name. A directory that has it already is replaced in the same instant, and removed.
  void commit();

 private:
  std::filesystem::path destination_, temporary_;
  Fd fd_;  // holds the lock that says the writer is alive
};

/// Removes what AtomicFile and AtomicDirectory left in `directory` when their process died. Temporaries of living writers, in this
/// process or another, are locked and stay. Returns how many it removed.
int clean_stale(const std::filesystem::path& directory);

/// A file that grows by whole records and is never replaced: logs. A flush that fails (disk full) leaves the records before it and keeps
/// its own for the next try.
class AppendFile {
 public:
  /// Opens or makes the file, and cuts it to its first `keep` bytes.
  explicit AppendFile(std::filesystem::path path, std::uint64_t keep = std::numeric_limits<std::uint64_t>::max());
  AppendFile(AppendFile&&) noexcept = default;
  AppendFile& operator=(AppendFile&&) = delete;
  ~AppendFile();
  /// Buffers; hands over to the system when there is much.
  void append(std::string_view record);
  void flush();
  /// Flushes, and waits until all of it is on the disk.
  void sync();
  /// Bytes, those in the buffer included.
  std::uint64_t size() const noexcept { return size_ + buffer_.size(); }
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
  Fd fd_;
  std::string buffer_;
  std::uint64_t size_ = 0;
};

// ---- exclusion -------------------------------------------------------------------------------

/// Keeps other processes (and other objects of this one) out of a directory while it lives: flock(2) on `directory/.lock`, which goes
/// with the process however it ends. Error that names the holder's pid when the directory is taken.
class DirectoryLock {
 public:
  explicit DirectoryLock(const std::filesystem::path& directory);
  /// Error if the directory's name is no longer that of the one that was locked: it was removed, renamed or replaced.
  void require_held() const;

 private:
  std::filesystem::path directory_;
  Fd fd_;
};

}  // namespace mezzo::io

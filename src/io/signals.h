// signals.h - a file-size limit answered by an errno instead of a signal.
#pragma once

#include <signal.h>

#include <cerrno>

namespace mezzo::io {

/// In its scope a write beyond RLIMIT_FSIZE does not end the process: SIGXFSZ, which the kernel sends to the writing thread, is blocked in
/// this thread and taken off again. The process's own handlers stay as they are.
class FileSizeSignalOff {
 public:
  [[nodiscard]] FileSizeSignalOff() noexcept;
  ~FileSizeSignalOff();
  FileSizeSignalOff(const FileSizeSignalOff&) = delete;
  FileSizeSignalOff& operator=(const FileSizeSignalOff&) = delete;
  /// Tell it each errno: EFBIG may have come with a signal. Returns it.
  int seen(int error) noexcept {
    raised_ |= error == EFBIG;
    return error;
  }

 private:
  sigset_t signal_, before_;
  bool was_pending_ = false, raised_ = false;
};

}  // namespace mezzo::io

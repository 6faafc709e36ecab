// log.cpp - delivers messages to the sink, one at a time.
#include "core/log.h"

#include <atomic>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <utility>

namespace mezzo {
namespace {

struct Log {
  std::recursive_mutex mutex;  // recursive: a sink may log or replace itself
  LogSink sink;
  std::set<std::string, std::less<>> said;
  std::atomic<bool> listening{false};
};

Log& the_log() {
  static Log& log = *new Log;  // never destroyed: static objects may log from their destructors
  return log;
}

void deliver(Log& log, LogLevel level, std::string_view message) {
  const LogSink sink = log.sink;  // a copy: the sink may replace itself while it runs
  if (!sink) return;
  try {
    sink(level, message);
  } catch (...) {  // a message that cannot be shown must not end a training run
  }
}

}  // namespace

LogSink set_log_sink(LogSink sink) {
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  log.listening = static_cast<bool>(sink);
  std::swap(sink, log.sink);
  return sink;
}

void log(LogLevel level, std::string_view message) {
  Log& log = the_log();
  if (!log.listening) return;
  const std::lock_guard lock(log.mutex);
  deliver(log, level, message);
}

void log_once(LogLevel level, std::string_view key, std::string_view message) {
  Log& log = the_log();
  if (!log.listening) return;  // nobody has heard it: it may still be said later
  const std::lock_guard lock(log.mutex);
  if (log.said.find(key) != log.said.end()) return;
  log.said.emplace(key);
  deliver(log, level, message);
}

}  // namespace mezzo

// test_log.cpp - the sink: set, replaced, used by several threads, misbehaving.
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "core/log.h"

using namespace mezzo;

namespace {
struct SinkScope {
  explicit SinkScope(LogSink sink) : before(set_log_sink(std::move(sink))) {}
  ~SinkScope() { set_log_sink(before); }
  LogSink before;
};
}  // namespace

TEST_CASE("messages reach the sink that is set, with their level") {
  std::vector<std::pair<LogLevel, std::string>> heard;
  {
    SinkScope scope([&](LogLevel level, std::string_view message) { heard.emplace_back(level, message); });
    log(LogLevel::info, "a");
    log(LogLevel::warning, "b");
  }
  log(LogLevel::info, "nobody hears this");
  REQUIRE(heard.size() == 2);
  CHECK(heard[0] == std::pair{LogLevel::info, std::string("a")});
  CHECK(heard[1] == std::pair{LogLevel::warning, std::string("b")});
}

TEST_CASE("log_once says a thing once, and not to nobody") {
  log_once(LogLevel::info, "test_log key", "unheard");
  std::vector<std::string> heard;
  SinkScope scope([&](LogLevel, std::string_view message) { heard.emplace_back(message); });
  for (int i = 0; i < 3; ++i) log_once(LogLevel::info, "test_log key", "once");
  log_once(LogLevel::info, "test_log other key", "other");
  CHECK(heard == std::vector<std::string>{"once", "other"});
}

TEST_CASE("messages of several threads come one at a time") {
  std::vector<std::string> heard;  // unguarded: the log's promise is the guard
  SinkScope scope([&](LogLevel, std::string_view message) { heard.emplace_back(message); });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([] {
      for (int i = 0; i < 200; ++i) log(LogLevel::debug, "message");
    });
  for (auto& t : threads) t.join();
  CHECK(heard.size() == 800);
}

TEST_CASE("a sink may throw, log and replace itself") {
  int calls = 0;
  SinkScope scope([&](LogLevel, std::string_view message) {
    ++calls;
    if (message == "nest") log(LogLevel::info, "inner");
    if (message == "replace") set_log_sink({});
    if (message == "throw") throw std::runtime_error("a full disk");
  });
  CHECK_NOTHROW(log(LogLevel::info, "throw"));
  log(LogLevel::info, "nest");
  CHECK(calls == 3);
  log(LogLevel::info, "replace");
  log(LogLevel::info, "unheard");
  CHECK(calls == 4);
}

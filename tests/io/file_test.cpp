// file_test.cpp - reading, mapping, append-only logs, locks.
#include "io/file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "io/support.h"

using namespace mezzo;
using namespace mezzo::io;
using namespace mezzo::test;

TEST_CASE("read_file: whole files, files without a size, limits, errors that name path and cause") {
  const TempDir dir;
  const std::string contents =
      "one\0two\xff"
      "three";
  spit(dir / "a", contents);
  spit(dir / "empty", "");
  CHECK(read_file(dir / "a") == slurp(dir / "a"));
  CHECK(read_file(dir / "empty").empty());
  CHECK(read_file("/proc/self/cmdline").size() > 0);
  CHECK(read_file(dir / "a", 3).size() == 3);
  CHECK(contains(error_of([&] { read_file(dir / "a", 2); }), "longer than 2 bytes"));
  CHECK(error_of([&] { read_file(dir / "none"); }) == "[read] " + (dir / "none").native() + ": No such file or directory.");
  CHECK(contains(error_of([&] { read_file(dir.path()); }), "Is a directory"));
}

TEST_CASE("MappedFile: bytes, empty files, moves, and what is not a regular file") {
  const TempDir dir;
  const std::string text(10000, 'x');
  spit(dir / "a", text);
  spit(dir / "empty", "");
  MappedFile a(dir / "a", Access::sequential);
  CHECK(a.text() == text);
  a.advise(Access::random);
  MappedFile b = std::move(a);
  CHECK(a.bytes().empty());
  CHECK(b.text() == text);
  b = MappedFile(dir / "empty");
  CHECK(b.bytes().empty());
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  CHECK(contains(error_of([&] { MappedFile(dir / "fifo"); }), "a device or pipe, a regular file was expected"));
  CHECK(contains(error_of([&] { MappedFile m(dir.path()); }), "a directory, a regular file was expected"));
  CHECK(contains(error_of([&] { MappedFile(dir / "none"); }), "[map] "));
}

TEST_CASE("AppendFile: appends across openings and cuts to what is to be kept") {
  const TempDir dir;
  {
    AppendFile log(dir / "log");
    log.append("one\n");
    log.flush();
    log.append("two\n");
    CHECK(log.size() == 8);
    CHECK(slurp(dir / "log") == "one\n");
  }
  CHECK(slurp(dir / "log") == "one\ntwo\n");
  AppendFile log(dir / "log", 4);
  CHECK(slurp(dir / "log") == "one\n");
  log.append("three\n");
  log.flush();
  CHECK(slurp(dir / "log") == "one\nthree\n");
  CHECK(AppendFile(dir / "log", 1000).size() == 10);
}

TEST_CASE("AppendFile: a full disk leaves whole records, and the next flush completes them") {
  const TempDir dir;
  const int status = in_child([&] {
    const std::string record(3000, 'r');
    AppendFile log(dir / "log");
    log.append(record);
    log.flush();
    const rlimit small{5000, RLIM_INFINITY}, large{RLIM_INFINITY, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &small);
    log.append(record);
    for (int again = 0; again < 2; ++again) {
      const std::string error = error_of([&] { log.flush(); });
      if (!contains(error, "[append] " + (dir / "log").native()) || !contains(error, "nothing already written was lost")) return 1;
      if (std::filesystem::file_size(dir / "log") != 3000) return 2;
    }
    ::setrlimit(RLIMIT_FSIZE, &large);
    log.flush();
    return slurp(dir / "log") == record + record ? 0 : 3;
  });
  CHECK(exited_with(status, 0));
}

TEST_CASE("write_all: the file-size signal neither ends the process nor changes how it handles signals") {
  const TempDir dir;
  const int status = in_child([&] {
    static volatile sig_atomic_t signals = 0;
    ::signal(SIGXFSZ, [](int) { signals = signals + 1; });
    const rlimit small{100, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &small);
    const Fd fd = open_file(dir / "f", O_WRONLY | O_CREAT, "test");
    std::uint64_t written = 0;
    if (write_all(fd.get(), as_bytes(std::string(300, 'x')), written) != EFBIG || written != 100) return 1;
    if (signals != 0) return 2;                                     // taken off, not delivered late
    if (::write(fd.get(), "x", 1) != -1 || signals != 1) return 3;  // the program's own writes behave as it chose
    sigset_t mask;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    return ::sigismember(&mask, SIGXFSZ) == 0 ? 0 : 4;
  });
  CHECK(exited_with(status, 0));
}

TEST_CASE("DirectoryLock: one holder at a time, named by its pid, released however it ends") {
  const TempDir dir;
  const std::string own_pid = std::to_string(::getpid());
  {
    const DirectoryLock lock(dir.path());
    CHECK(contains(error_of([&] { DirectoryLock again(dir.path()); }), "[lock] " + dir.path().native() + " is in use by this process"));
    const int status = in_child([&] { return contains(error_of([&] { DirectoryLock other(dir.path()); }), "in use by process " + own_pid) ? 0 : 1; });
    CHECK(exited_with(status, 0));
  }
  { const DirectoryLock again(dir.path()); }

  int ready[2], release[2];
  REQUIRE(::pipe(ready) == 0);
  REQUIRE(::pipe(release) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const DirectoryLock lock(dir.path());
    char c = 'r';
    ::close(release[1]);
    if (::write(ready[1], &c, 1) == 1 && ::read(release[0], &c, 1) == 0) ::raise(SIGKILL);
    ::_exit(1);
  }
  char c;
  REQUIRE(::read(ready[0], &c, 1) == 1);
  CHECK(contains(error_of([&] { DirectoryLock mine(dir.path()); }), "in use by process " + std::to_string(child)));
  ::close(release[1]);
  ::waitpid(child, nullptr, 0);
  { const DirectoryLock mine(dir.path()); }
  for (const int fd : {ready[0], ready[1], release[0]}) ::close(fd);
  CHECK(contains(error_of([&] { DirectoryLock none(dir / "none"); }), "No such file or directory"));
}

// atomic_test.cpp - the old file or the new one, never less: full disks, kills, failing renames.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>

#include "io/file.h"
#include "io/support.h"

using namespace mezzo;
using namespace mezzo::io;
using namespace mezzo::test;
namespace fs = std::filesystem;

TEST_CASE("AtomicFile: pieces of every size arrive, with their count and checksum") {
  const TempDir dir;
  std::string all;
  AtomicFile file(dir / "f", 1234);
  for (const std::size_t n : {0, 1, 1000, (1 << 20) - 1001, 1, 1 << 20, (1 << 20) + 1, 5}) {
    const std::string piece(n, static_cast<char>('a' + n % 23));
    file.write(piece);
    all += piece;
  }
  CHECK(file.size() == all.size());
  CHECK(file.checksum() == checksum64(as_bytes(all)));
  CHECK_FALSE(fs::exists(dir / "f"));
  file.commit();
  CHECK(slurp(dir / "f") == all);
  CHECK(dir.names() == std::vector<std::string>{"f"});
  CHECK_THROWS_AS(file.commit(), std::logic_error);
}

TEST_CASE("AtomicFile: without commit the old file stays and the temporary goes") {
  const TempDir dir;
  spit(dir / "f", "old");
  {
    AtomicFile file(dir / "f");
    file.write("new");
    AtomicFile moved = std::move(file);
    moved.write("er");
    CHECK(dir.names().size() == 2);
  }
  CHECK(slurp(dir / "f") == "old");
  CHECK(dir.names().size() == 1);
  write_file(dir / "f", "new");
  CHECK(slurp(dir / "f") == "new");
}

TEST_CASE("AtomicFile: errors name operation, path and cause, and leave nothing behind") {
  const TempDir dir;
  fs::create_directories(dir / "taken/by");
  CHECK(error_of([&] { AtomicFile((dir / "none") / "f"); }) == "[create] " + ((dir / "none") / "f").native() + ": No such file or directory.");
  CHECK(contains(error_of([&] { write_file(dir / "taken", "x"); }), "[rename into] " + (dir / "taken").native() + ": Is a directory"));
  CHECK(contains(error_of([&] { AtomicFile file(dir.path() / ""); }), "does not end in a name"));
  CHECK(dir.names() == std::vector<std::string>{"taken"});
  const std::string longest(255, 'n');
  write_file(dir / longest, "x");
  CHECK(slurp(dir / longest) == "x");
}

TEST_CASE("AtomicFile: a full disk is an Error, the old file stays whole and the temporary goes") {
  const TempDir dir;
  spit(dir / "f", "old");
  for (const bool reserve : {false, true}) {
    const int status = in_child([&] {
      const rlimit small{2'000'000, RLIM_INFINITY};
      ::setrlimit(RLIMIT_FSIZE, &small);
      const std::string error = error_of([&] {
        AtomicFile file(dir / "f", reserve ? 3'000'000 : 0);
        for (int i = 0; i < 30; ++i) file.write(std::string(100'000, 'x'));
        file.commit();
      });
      return contains(error, (dir / "f").native()) && contains(error, "nothing already written was lost") && contains(error, "ulimit") ? 0 : 1;
    });
    CHECK(exited_with(status, 0));
    CHECK(slurp(dir / "f") == "old");
    CHECK(dir.names() == std::vector<std::string>{"f"});
  }
  CHECK(contains(
      error_of([&] { fail_file("write", "/a/b", ENOSPC, 42); }),
      "[write] /a/b: no space left on its file system after 42 bytes of this file (No space left on device); nothing already written was lost"));
}

TEST_CASE("AtomicFile: a file whose write failed cannot be committed") {
  const TempDir dir;
  const int status = in_child([&] {
    const rlimit small{2'000'000, RLIM_INFINITY}, large{RLIM_INFINITY, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &small);
    AtomicFile file(dir / "f");
    if (!contains(error_of([&] { file.write(std::string(3'000'000, 'x')); }), "[write]")) return 1;
    ::setrlimit(RLIMIT_FSIZE, &large);
    return contains(error_of([&] { file.commit(); }), "not complete") && !fs::exists(dir / "f") ? 0 : 2;
  });
  CHECK(exited_with(status, 0));
}

TEST_CASE("clean_stale: removes what killed writers left, spares living ones and everything else") {
  const TempDir dir;
  spit(dir / "f", "old");
  spit(dir / ".tmp-notes", "a user's");
  spit(dir / ".tmp-12-x-f", "a user's");
  spit(dir / ".tmp-999999-0-f", "left by a dead process");
  AtomicFile living(dir / "g");
  const AtomicDirectory living_too(dir / "h");
  const int status = in_child([&] {
    AtomicFile file(dir / "f");
    file.write(std::string(3 << 20, 'x'));
    AtomicDirectory directory(dir / "d");
    spit(directory.path() / "sub/part", "x");
    ::raise(SIGKILL);  // all data written, nothing renamed
    return 0;
  });
  CHECK(WIFSIGNALED(status));
  CHECK(slurp(dir / "f") == "old");
  CHECK(dir.names().size() == 8);
  CHECK(clean_stale(dir.path()) == 3);
  CHECK(clean_stale(dir.path()) == 0);
  CHECK(dir.names().size() == 5);
  CHECK(fs::exists(dir / ".tmp-notes"));
  CHECK(fs::exists(dir / ".tmp-12-x-f"));
  living.write("g");
  living.commit();
  CHECK(slurp(dir / "g") == "g");
  CHECK(clean_stale(dir / "none") == 0);
  CHECK(contains(error_of([&] { clean_stale(dir / "f"); }), "Not a directory"));
}

TEST_CASE("AtomicDirectory: appears with everything in it, replaces what was there, or is as if it had never been") {
  const TempDir dir;
  {
    AtomicDirectory d(dir / "step-1");
    spit(d.path() / "weights", "w1");
    spit(d.path() / "sub/state", "s1");
    CHECK_FALSE(fs::exists(dir / "step-1"));
    d.commit();
  }
  CHECK(slurp(dir / "step-1/weights") == "w1");
  CHECK(slurp(dir / "step-1/sub/state") == "s1");
  {
    AtomicDirectory d(dir / "step-1/");  // as the shell completes it
    spit(d.path() / "weights", "w2");
  }
  CHECK(slurp(dir / "step-1/weights") == "w1");
  {
    AtomicDirectory d(dir / "step-1");
    write_file(d.path() / "weights", "w2");
    d.commit();
  }
  CHECK(slurp(dir / "step-1/weights") == "w2");
  CHECK_FALSE(fs::exists(dir / "step-1/sub"));
  CHECK(dir.names() == std::vector<std::string>{"step-1"});

  spit(dir / "file", "x");
  CHECK(contains(error_of([&] { AtomicDirectory(dir / "file").commit(); }), "[rename into] " + (dir / "file").native() + ": Not a directory"));
  CHECK(contains(error_of([&] { AtomicDirectory((dir / "none") / "d"); }), "[create]"));
  CHECK(dir.names() == std::vector<std::string>{"file", "step-1"});
}

TEST_CASE("relative paths work in the current directory") {
  const TempDir dir;
  const int status = in_child([&] {
    fs::current_path(dir.path());
    write_file("f", "x");
    AtomicDirectory("d").commit();
    return fs::is_directory("d") && slurp("f") == "x" ? 0 : 1;
  });
  CHECK(exited_with(status, 0));
}

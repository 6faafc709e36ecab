// test_machine.cpp - what the library says about the CPU, and the two environment variables.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include <doctest/doctest.h>

#include <mezzo/runtime.h>

using namespace mezzo;

namespace {

// Output and exit code of this test program, run again with variables in its environment.
std::pair<std::string, int> run_self(const std::string& environment) {
  char path[4096];
  const auto length = readlink("/proc/self/exe", path, sizeof path - 1);
  REQUIRE(length > 0);
  path[length] = '\0';
  FILE* pipe = popen(("env " + environment + " '" + path + "' --no-skip --test-case='environment probe' 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string out;
  for (char buffer[512]; std::fgets(buffer, sizeof buffer, pipe);) out += buffer;
  const int status = pclose(pipe);
  return {out, WIFEXITED(status) ? WEXITSTATUS(status) : -1};
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

}  // namespace

TEST_CASE("environment probe" * doctest::skip()) {
  std::string threads;
  try {
    threads = std::to_string(num_threads());
  } catch (const Error& e) { threads = e.what(); }
  std::printf("isa=%s threads=%s\n", std::string(name(active_isa())).c_str(), threads.c_str());
}

TEST_CASE("MEZZO_ISA lowers the instruction set; an unknown one is an Error with near names") {
  CHECK(active_isa() <= detected_isa());
  for (Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16}) {
    const auto [out, code] = run_self("MEZZO_ISA=" + std::string(name(isa)));
    if (isa <= detected_isa()) {
      CHECK(code == 0);
      CHECK(contains(out, "isa=" + std::string(name(isa)) + " "));
    } else {
      CHECK(code == 77);
      CHECK(contains(out, "this machine's best is " + std::string(name(detected_isa()))));
    }
  }
  const auto [out, code] = run_self("MEZZO_ISA=avx51");
  CHECK(code == 77);
  CHECK(contains(out, "MEZZO_ISA=avx51 is not one of"));
  CHECK(contains(out, "did you mean"));
}

TEST_CASE("MEZZO_NUM_THREADS sets the number of threads; nonsense is an Error") {
  CHECK(contains(run_self("MEZZO_NUM_THREADS=3").first, "threads=3\n"));
  CHECK(contains(run_self("-u MEZZO_NUM_THREADS").first, "threads=" + std::to_string(cpu_info().cores) + "\n"));
  for (const char* bad : {"0", "-1", "two", "4x", "99999999999999999999"})
    CHECK(contains(run_self(std::string("MEZZO_NUM_THREADS=") + bad).first, std::string("MEZZO_NUM_THREADS=") + bad + " is not a number from 1 to"));
}

TEST_CASE("cores are the affinity mask's") {
  if (system("taskset --version > /dev/null 2>&1") != 0) return;
  CHECK(contains(run_self("-u MEZZO_NUM_THREADS taskset -c 0").first, "threads=1\n"));
}

TEST_CASE("facts about the machine are within reason") {
  const CpuInfo& info = cpu_info();
  CHECK(!info.model.empty());
  CHECK(info.cores >= 1);
  CHECK(info.memory > (std::int64_t{1} << 26));
  CHECK(info.l1d >= 0);
  if (info.l2 && info.l1d) CHECK(info.l2 > info.l1d);
  if (detected_isa() >= Isa::avx2) CHECK(info.f16c);
}

TEST_CASE("version and names") {
  CHECK(version() == "0.1.0");
  CHECK(name(Isa::avx512_bf16) == "avx512_bf16");
  CHECK(name(Memory::weights) == "weights");
  CHECK(name(Memory::cast_cache) == "cast_cache");
  CHECK(name(Memory::data) == "data");
}

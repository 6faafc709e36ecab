// process.cpp
#include "cli/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include <mezzo/random.h>

namespace mezzo::test {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

}  // namespace

std::vector<std::string> Result::lines() const {
  std::vector<std::string> all;
  std::istringstream stream(err);
  for (std::string line; std::getline(stream, line);) all.push_back(line);
  return all;
}

Arguments join(Arguments a, const Arguments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Result run(const Arguments& arguments, const RunOptions& options) {
  const Scratch scratch;
  const std::string out = options.stdout_path.empty() ? scratch / "out" : options.stdout_path, err = scratch / "err";
  Arguments all{MEZZO_PROGRAM};
  all.insert(all.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (auto& a : all) argv.push_back(a.data());
  argv.push_back(nullptr);

  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    const int o = ::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), e = ::open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600),
              i = ::open("/dev/null", O_RDONLY);
    ::dup2(i, STDIN_FILENO);
    ::dup2(o, STDOUT_FILENO);
    ::dup2(e, STDERR_FILENO);
    const auto limit = [](int resource, const std::optional<std::uint64_t>& bytes) {
      if (!bytes) return;
      const rlimit both{*bytes, *bytes};
      ::setrlimit(resource, &both);
    };
    limit(RLIMIT_FSIZE, options.file_limit);
    limit(RLIMIT_AS, options.address_limit);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  int status = 0;
  int interrupted = 0;
  auto next_interrupt = Clock::now();
  const auto begin = Clock::now(), deadline = begin + std::chrono::minutes(2);
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (options.interrupt_when && interrupted < options.interrupts && Clock::now() >= next_interrupt && options.interrupt_when()) {
      ::kill(child, options.signal);
      ++interrupted;
      next_interrupt = Clock::now() + std::chrono::milliseconds(50);
    }
    if (Clock::now() > deadline || (options.kill_after && Clock::now() >= begin + *options.kill_after)) ::kill(child, SIGKILL);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status), options.stdout_path.empty() ? read(out) : "", read(err)};
}

Scratch::Scratch() {
  std::string name = (fs::temp_directory_path() / "mezzo-cli-XXXXXX").native();
  if (!::mkdtemp(name.data())) throw std::runtime_error("mkdtemp failed");
  path_ = name;
}
Scratch::~Scratch() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void write(const std::string& path, const std::string& content) { std::ofstream(path, std::ios::binary) << content; }
std::string read(const std::string& path) {
  std::ostringstream s;
  s << std::ifstream(path, std::ios::binary).rdbuf();
  return s.str();
}

std::string some_text(std::size_t bytes) {
  constexpr std::array<const char*, 16> kWords{"the",   "half", "of",     "what", "a",   "number", "says", "is",
                                               "where", "it",   "rounds", "to",   "and", "never",  "how",  "far"};
  Generator random(1);
  std::string text;
  while (text.size() < bytes) text += std::string(kWords[random.below(kWords.size())]) + (random.below(9) == 0 ? ".\n" : " ");
  return text;
}

}  // namespace mezzo::test

// machine.cpp - caches, and the cores and memory that Linux grants this process: affinity, topology, cgroups v1 and v2.
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/machine.h"

namespace mezzo {
namespace {

std::optional<std::string> first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return {};
  return line;
}

std::optional<std::int64_t> to_integer(const std::string& s) {
  try {
    return std::stoll(s);
  } catch (const std::exception&) {  // "max": no limit
    return {};
  }
}

std::optional<std::int64_t> integer_in(const std::string& path) {
  const auto line = first_line(path);
  return line ? to_integer(*line) : std::nullopt;
}

// Whether `name` is one of a comma-separated list.
bool names(std::string_view list, std::string_view name) {
  for (;;) {
    const auto comma = list.find(',');
    if (list.substr(0, comma) == name) return true;
    if (comma == list.npos) return false;
    list.remove_prefix(comma + 1);
  }
}

// The directories whose limits bind this process: its own cgroup and the ones above it, as /proc/self/cgroup names them. In a
// container the path may be the host's and absent here; the mount's root then stands for it.
std::vector<std::string> cgroup_directories(const std::string& controller) {
  std::ifstream file("/proc/self/cgroup");
  std::vector<std::string> out;
  for (std::string line; std::getline(file, line);) {  // id:controllers:path
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const bool v2 = second == first + 1;
    if (!v2 && !names(std::string_view(line).substr(first + 1, second - first - 1), controller)) continue;
    const std::string mount = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controller;
    for (std::string path = line.substr(second + 1);; path.resize(path.rfind('/'))) {
      if (path == "/") path.clear();
      out.push_back(mount + path);
      if (path.empty()) break;
    }
  }
  return out;
}

// CPUs' worth of time a period, rounded down.
int quota_cores() {
  std::int64_t cores = std::numeric_limits<int>::max();
  for (const auto& directory : cgroup_directories("cpu")) {
    std::optional<std::int64_t> quota, period;
    if (const auto both = first_line(directory + "/cpu.max")) {
      const auto space = both->find(' ');
      quota = to_integer(both->substr(0, space));
      if (space != both->npos) period = to_integer(both->substr(space + 1));
    } else {
      quota = integer_in(directory + "/cpu.cfs_quota_us");
      period = integer_in(directory + "/cpu.cfs_period_us");
    }
    if (quota && period && *quota > 0 && *period > 0) cores = std::min(cores, *quota / *period);
  }
  return static_cast<int>(std::max<std::int64_t>(cores, 1));
}

int affinity_cores() {
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return static_cast<int>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  std::set<std::string> cores;  // a core is known by the list of the hardware threads it holds
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    const auto siblings = first_line("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
    cores.insert(siblings.value_or("cpu" + std::to_string(cpu)));
  }
  return std::max(1, static_cast<int>(cores.size()));
}

}  // namespace

int usable_cores() { return std::min(affinity_cores(), quota_cores()); }

std::int64_t usable_memory() {
  std::int64_t bytes = static_cast<std::int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  for (const auto& directory : cgroup_directories("memory"))
    for (const char* file : {"/memory.max", "/memory.limit_in_bytes"})
      if (const auto limit = integer_in(directory + file); limit && *limit > 0) bytes = std::min(bytes, *limit);
  return bytes;
}

std::int64_t data_cache(int level) {
  for (int i = 0;; ++i) {
    const std::string directory = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i);
    const auto this_level = integer_in(directory + "/level");
    if (!this_level) return 0;
    if (*this_level != level || first_line(directory + "/type") == "Instruction") continue;
    return integer_in(directory + "/size").value_or(0) * 1024;  // "32K"
  }
}

}  // namespace mezzo

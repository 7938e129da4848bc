// The CPU quota of a container.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace mipp {
namespace quota {

constexpr int most = 1 << 16;

inline int least(int a, int b) { return a == 0 ? b : b == 0 ? a : std::min(a, b); }

// Rounded up; 0 for no limit and for nonsense.
inline int processors(double quota, double period) {
    if (!(quota > 0) || !(period > 0) || quota / period >= most) return 0;
    const int whole = static_cast<int>(quota / period);
    return std::max(1, whole < quota / period ? whole + 1 : whole);
}

// cgroup v2: "max 100000" or "150000 100000".
inline int unified(const std::string& folder) {
    std::ifstream file(folder + "/cpu.max");
    std::string quota;
    double period = 0;
    if (!(file >> quota >> period) || quota == "max") return 0;
    return processors(std::strtod(quota.c_str(), nullptr), period);
}

// cgroup v1: two files, a quota of -1 is none.
inline int legacy(const std::string& folder) {
    std::ifstream quotas(folder + "/cpu.cfs_quota_us"), periods(folder + "/cpu.cfs_period_us");
    double quota = 0, period = 0;
    if (!(quotas >> quota) || !(periods >> period)) return 0;
    return processors(quota, period);
}

// The least over a group and all above it, up to the mount. In a container the path may be the host's, which is not
// there: then only the mount itself says something.
inline int along(const std::string& mount, std::string path, int (*read)(const std::string&)) {
    int found = 0;
    for (;;) {
        while (!path.empty() && path.back() == '/') path.pop_back();
        found = least(found, read(mount + path));
        const std::size_t cut = path.rfind('/');
        if (path.empty() || cut == std::string::npos) return found;
        path.resize(cut);
    }
}

}  // namespace quota

// Processors that the control groups of this process leave it: its CPU quota, rounded up, the least over the group and
// those above it. 0 where there is no quota, or none can be read. Paths are below `root`: "" but for tests.
inline int quota_processors(const char* root) {
    const std::string base(root), mounts = base + "/sys/fs/cgroup";
    std::ifstream groups(base + "/proc/self/cgroup");
    int found = 0;
    // "0::/path" for v2, "4:cpu,cpuacct:/path" for v1
    for (std::string line; std::getline(groups, line);) {
        const std::size_t first = line.find(':');
        const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string names = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
        if (path.find("..") != std::string::npos) continue;  // a group outside this name space
        if (names.empty()) found = quota::least(found, quota::along(mounts, path, quota::unified));
        std::istringstream list(names);
        for (std::string name; std::getline(list, name, ',');) {
            if (name != "cpu") continue;
            for (const std::string& mount : {std::string("/cpu"), "/" + names})
                found = quota::least(found, quota::along(mounts + mount, path, quota::legacy));
        }
    }
    return found;
}

}  // namespace mipp

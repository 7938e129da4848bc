#pragma once

namespace mipp {

// Processors that the control groups of this process leave it: its CPU quota, rounded up, the least over the group and
// those above it. 0 where there is no quota, or none can be read. Paths are below `root`: "" but for tests.
int quota_processors(const char* root);

}  // namespace mipp

// Counts heap allocations through operator new in this test program. In a file of its own: seen together with its
// callers, the replaced operators confuse the compiler's new/delete checks.
#pragma once

#include <cstdint>

namespace sprun {

int64_t allocation_count();

}  // namespace sprun

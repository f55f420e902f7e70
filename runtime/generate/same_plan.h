// Whether two plans do the same: what makes a plan that was built for one position valid at all others.
#pragma once

#include <string>

#include "runtime/plan/plan.h"

namespace sprun {

// Compares steps one by one: operator, attributes, shapes, constants by content. Empty if all agree, else where they
// first differ. The attribute left_window alone may be missing in `near`: a window that the text has not filled yet.
std::string difference(const Plan& near, const Plan& far);

}  // namespace sprun

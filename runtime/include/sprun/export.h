// SPRUN_API marks what the shared library exports; everything else in it is hidden.
#pragma once

#define SPRUN_API [[gnu::visibility("default")]]

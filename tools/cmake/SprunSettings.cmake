# Compiler settings shared by every target: C++20, warnings, helper to collect the sources of a folder.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
find_program(SPRUN_CCACHE ccache)
if(SPRUN_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SPRUN_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${SPRUN_CCACHE})
endif()

if(SPRUN_SANITIZE)
  add_compile_options(-fsanitize=${SPRUN_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${SPRUN_SANITIZE})
endif()

# Warnings stay inside the project: linked PRIVATE, never exported. -Wrestrict: g++ 12 reports ordinary string
# concatenation (gcc.gnu.org/bugzilla 105651).
add_library(sprun_warnings INTERFACE)
target_compile_options(sprun_warnings INTERFACE -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wno-restrict
                       $<$<BOOL:${SPRUN_WERROR}>:-Werror>)

# sprun_glob(OUT dir...): the .cc files directly in each folder. Used in registry folders, where the registry test
# compares files with list lines.
function(sprun_glob out)
  set(all)
  foreach(dir IN LISTS ARGN)
    file(GLOB found CONFIGURE_DEPENDS ${dir}/*.cc)
    list(APPEND all ${found})
  endforeach()
  set(${out} ${all} PARENT_SCOPE)
endfunction()

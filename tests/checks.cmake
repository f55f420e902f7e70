# Tests that look at the repository, the built objects and the installed package instead of calling code.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(dev ${PROJECT_SOURCE_DIR}/tools/dev)
set(python ${CMAKE_COMMAND} -E env PYTHONDONTWRITEBYTECODE=1 ${Python3_EXECUTABLE})

# sprun_add_check(NAME COMMAND ...): a test with the label "check".
function(sprun_add_check name)
  add_test(NAME check.${name} COMMAND ${ARGN})
  set_tests_properties(check.${name} PROPERTIES LABELS check TIMEOUT 120)
endfunction()

foreach(check IN ITEMS includes registries sizes links)
  sprun_add_check(${check} ${python} ${dev}/check_${check}.py ${PROJECT_SOURCE_DIR})
endforeach()
if(NOT SPRUN_SANITIZE)  # sanitizers add their own symbols and initialisers
  # A list in a file: the objects are many.
  file(GENERATE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/kernel_objects.txt
       CONTENT "$<JOIN:$<TARGET_OBJECTS:sprun_kernels>,\n>\n")
  sprun_add_check(isa_symbols ${python} ${dev}/check_isa_symbols.py --list
                  ${CMAKE_CURRENT_BINARY_DIR}/kernel_objects.txt)
endif()

# Every public header compiles alone and without extensions.
file(GLOB public_headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/runtime/include
     ${PROJECT_SOURCE_DIR}/runtime/include/sprun/*.h)
set(header_sources)
foreach(header IN LISTS public_headers)
  string(REGEX REPLACE "[/.]" "_" stem ${header})
  set(source ${CMAKE_CURRENT_BINARY_DIR}/headers/${stem}.cc)
  set(CONTENT "#include \"${header}\"\n#include \"${header}\"\n")
  file(CONFIGURE OUTPUT ${source} CONTENT "${CONTENT}" @ONLY)
  list(APPEND header_sources ${source})
endforeach()
add_library(sprun_header_check OBJECT ${header_sources})
target_include_directories(sprun_header_check PRIVATE ${PROJECT_SOURCE_DIR}/runtime/include)
target_compile_options(sprun_header_check PRIVATE -pedantic -Wall -Wextra -Wshadow -Wconversion -Werror)

# The command: help of every command, every exit code, broken files.
if(TARGET sprun_cli)
  add_test(NAME tools.cli COMMAND ${python} ${CMAKE_CURRENT_SOURCE_DIR}/tools/cli_test.py $<TARGET_FILE:sprun_cli>)
  set_tests_properties(tools.cli PROPERTIES LABELS "unit;tools" TIMEOUT 600)
endif()

# Against the formulas in numpy: skipped, with a line that says so, where no Python has it.
find_program(SPRUN_NUMPY_PYTHON NAMES python3 PATHS /usr/bin NO_DEFAULT_PATH DOC "Python with numpy, for tests")
foreach(candidate IN ITEMS "${SPRUN_NUMPY_PYTHON}" "${Python3_EXECUTABLE}")
  execute_process(COMMAND "${candidate}" -c "import numpy" RESULT_VARIABLE has_no_numpy OUTPUT_QUIET ERROR_QUIET)
  set(numpy_python "${candidate}")
  if(has_no_numpy EQUAL 0)
    break()
  endif()
endforeach()
if(TARGET sprun_cli AND TARGET sprun-modelgen)
  foreach(name IN ITEMS prune slice quantize imports)
    add_test(NAME e2e.${name}_like_numpy
             COMMAND ${CMAKE_COMMAND} -E env PYTHONDONTWRITEBYTECODE=1 "${numpy_python}"
                     ${CMAKE_CURRENT_SOURCE_DIR}/e2e/${name}_like_numpy.py $<TARGET_FILE:sprun_cli> $<TARGET_FILE:sprun-modelgen>)
    set_tests_properties(e2e.${name}_like_numpy PROPERTIES LABELS "unit;tools" TIMEOUT 600 SKIP_RETURN_CODE 77)
  endforeach()
endif()

# Scripts of bench.
add_test(NAME bench.sparse_curve COMMAND ${python} ${CMAKE_CURRENT_SOURCE_DIR}/bench/kernels/sparse_curve_test.py
         ${PROJECT_SOURCE_DIR}/bench/kernels/sparse_curve.py)
set_tests_properties(bench.sparse_curve PROPERTIES LABELS "unit;bench" TIMEOUT 120)

# Install, move the prefix, build an outside project against it, run a model.
if(TARGET sprun_cli AND NOT SPRUN_SANITIZE)
  foreach(way IN ITEMS cmake pkg-config)
    add_test(NAME install.${way}
             COMMAND ${python} ${CMAKE_CURRENT_SOURCE_DIR}/consumer/consumer_test.py ${way} ${PROJECT_BINARY_DIR})
    set_tests_properties(install.${way} PROPERTIES LABELS outside TIMEOUT 300 ENVIRONMENT "CXX=${CMAKE_CXX_COMPILER}")
  endforeach()
endif()

# The one place that maps the suffix of a kernel file to its compiler flags.
#
#   sprun_apply_isa_flags(target)     after every source has been added to the target
#
# kernels/foo/foo_avx2.cc is compiled with the flags of "avx2", and so on; a file without such a
# suffix gets the x86-64 baseline. ISA files are optimised in every preset: their helpers must be
# inlined, or weak symbols with newer instructions could leak into the program.
set(SPRUN_ISA_SUFFIXES avx2 avxvnni avx512 avx512vnni avx512vbmi2 avx512bf16 avx512vbmi2bf16
    amxint8 amxbf16)
set(_sprun_avx2 -mavx2 -mfma -mf16c)
set(_sprun_avx512 ${_sprun_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd
                  -mprefer-vector-width=512
                  # g++ 12's own avx512fintrin.h triggers these (GCC bug 105593).
                  -Wno-uninitialized -Wno-maybe-uninitialized)
set(SPRUN_ISA_FLAGS_avx2 ${_sprun_avx2})
set(SPRUN_ISA_FLAGS_avxvnni ${_sprun_avx2} -mavxvnni)
set(SPRUN_ISA_FLAGS_avx512 ${_sprun_avx512})
set(SPRUN_ISA_FLAGS_avx512vnni ${_sprun_avx512} -mavx512vnni)
set(SPRUN_ISA_FLAGS_avx512vbmi2 ${_sprun_avx512} -mavx512vnni -mavx512vbmi2)
set(SPRUN_ISA_FLAGS_avx512bf16 ${_sprun_avx512} -mavx512bf16)
set(SPRUN_ISA_FLAGS_avx512vbmi2bf16 ${_sprun_avx512} -mavx512vbmi2 -mavx512bf16)
set(SPRUN_ISA_FLAGS_amxint8 ${_sprun_avx512} -mavx512vnni -mamx-tile -mamx-int8)
set(SPRUN_ISA_FLAGS_amxbf16 ${_sprun_avx512} -mavx512bf16 -mamx-tile -mamx-bf16)
set(SPRUN_ISA_COMMON_FLAGS -O3 -ffp-contract=fast -fno-math-errno)
if(SPRUN_SANITIZE)
  # AddressSanitizer stays. The undefined-behaviour checks make unrolled vector code take minutes to compile.
  list(APPEND SPRUN_ISA_COMMON_FLAGS -O1 -fno-sanitize=undefined)
endif()

# Sets the flags of every source of `target` whose name ends in _<suffix>.cc, and those of _sse2.cc
# (baseline instructions, but optimised like the others).
function(sprun_apply_isa_flags target)
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    if(source MATCHES "_sse2\\.cc$")
      set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS ${SPRUN_ISA_COMMON_FLAGS})
    endif()
    foreach(suffix IN LISTS SPRUN_ISA_SUFFIXES)
      if(source MATCHES "_${suffix}\\.cc$")
        set_property(SOURCE ${source} APPEND PROPERTY
                     COMPILE_OPTIONS ${SPRUN_ISA_COMMON_FLAGS} ${SPRUN_ISA_FLAGS_${suffix}})
      endif()
    endforeach()
  endforeach()
endfunction()

# Drops the sources of `list_name` that need AVX-512 (preset "portable"), those for AMX among them.
function(sprun_drop_avx512_sources list_name)
  list(FILTER ${list_name} EXCLUDE REGEX "_(avx512[a-z0-9]*|amxint8|amxbf16)\\.cc$")
  set(${list_name} "${${list_name}}" PARENT_SCOPE)
endfunction()

# Drops the sources of `list_name` for AMX: MemorySanitizer does not see what a tile store writes.
function(sprun_drop_amx_sources list_name)
  list(FILTER ${list_name} EXCLUDE REGEX "_(amxint8|amxbf16)\\.cc$")
  set(${list_name} "${${list_name}}" PARENT_SCOPE)
endfunction()

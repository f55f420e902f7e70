# Installed form: library, public headers, command, CMake package and pkg-config file. The prefix may be moved.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/sprun)
install(TARGETS sprun EXPORT sprunTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/runtime/include/sprun DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h")
if(TARGET sprun_cli)
  install(TARGETS sprun_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(EXPORT sprunTargets NAMESPACE sprun:: DESTINATION ${package_dir})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/sprunConfig.cmake.in ${PROJECT_BINARY_DIR}/sprunConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/sprunConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/sprunConfig.cmake ${PROJECT_BINARY_DIR}/sprunConfigVersion.cmake
        DESTINATION ${package_dir})

# pkg-config files name their own folder, so that they move with the prefix.
cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig
           OUTPUT_VARIABLE prefix_from_pc)
configure_file(${CMAKE_CURRENT_LIST_DIR}/sprun.pc.in ${PROJECT_BINARY_DIR}/sprun.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/sprun.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

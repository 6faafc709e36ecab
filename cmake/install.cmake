# install.cmake - what `cmake --install` puts in place: the library, its headers, the program, and the package that find_package(mezzo) reads.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/mezzo)

install(TARGETS mezzo EXPORT mezzoTargets)
install(DIRECTORY include/mezzo DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
if(TARGET mezzo_cli)
  install(TARGETS mezzo_cli)
endif()
install(EXPORT mezzoTargets NAMESPACE mezzo:: DESTINATION ${package_dir})

configure_package_config_file(cmake/mezzoConfig.cmake.in mezzoConfig.cmake INSTALL_DESTINATION ${package_dir})
# Before 1.0 a minor version may change names.
write_basic_package_version_file(mezzoConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/mezzoConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/mezzoConfigVersion.cmake DESTINATION ${package_dir})
# A static library names its dependencies to whoever links it: the same file finds them, by the same names, there and here.
if(NOT BUILD_SHARED_LIBS)
  install(FILES cmake/link_libraries.cmake DESTINATION ${package_dir})
endif()

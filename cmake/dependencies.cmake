# What mezzo stands on; all of it Debian packages (./dev setup installs them).
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
# oneDNN: by header and library. Debian's dnnl-config.cmake insists on OpenCL's development files, which a CPU build has no use for.
find_path(DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.hpp REQUIRED)
find_library(DNNL_LIBRARY dnnl REQUIRED)
add_library(DNNL::dnnl UNKNOWN IMPORTED)
set_target_properties(DNNL::dnnl PROPERTIES IMPORTED_LOCATION ${DNNL_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE_DIR})
find_package(nlohmann_json REQUIRED)
# XXH3 for checkpoints: 64 bits at 24 GB/s, where the CPU's CRC-32C instruction gives 32 at 9.6. Compiled in from its header: nothing to link.
find_path(XXHASH_INCLUDE_DIR xxhash.h REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(hwy REQUIRED IMPORTED_TARGET libhwy)
set(MEZZO_PRIVATE_LIBRARIES fmt::fmt DNNL::dnnl PkgConfig::hwy nlohmann_json::nlohmann_json Threads::Threads)
if(NOT MEZZO_STD_THREADS)
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  list(APPEND MEZZO_PRIVATE_LIBRARIES OpenMP::OpenMP_CXX)
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

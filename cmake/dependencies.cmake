# What mezzo stands on; all of it Debian packages (./dev setup installs them).
include(cmake/link_libraries.cmake)
find_path(DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.hpp REQUIRED)
set_target_properties(DNNL::dnnl PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE_DIR})
find_package(nlohmann_json REQUIRED)
# XXH3 for checkpoints: 64 bits at 24 GB/s, where the CPU's CRC-32C instruction gives 32 at 9.6. Compiled in from its header: nothing to link.
find_path(XXHASH_INCLUDE_DIR xxhash.h REQUIRED)
set(MEZZO_PRIVATE_LIBRARIES ${MEZZO_LINK_LIBRARIES} $<BUILD_INTERFACE:nlohmann_json::nlohmann_json>)

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

# Headers, library, CMake package (find_package(itera)) and itera.pc.
include(CMakePackageConfigHelpers)

install(TARGETS itera EXPORT itera-targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY host/include/itera DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h")
install(EXPORT itera-targets NAMESPACE itera::
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/itera)

configure_package_config_file(cmake/itera-config.cmake.in ${PROJECT_BINARY_DIR}/itera-config.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/itera)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/itera-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/itera-config.cmake ${PROJECT_BINARY_DIR}/itera-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/itera)

# Relative to itera.pc, so that the installed tree can be moved (or installed with --prefix).
file(RELATIVE_PATH ITERA_PC_UP /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" ITERA_PC_UP "${ITERA_PC_UP}")
# What a shared library finds by itself, whoever links the static one must name: so that one line,
# `pkg-config --cflags --libs itera`, serves both.
set(ITERA_PC_NEEDS "-lm -lpthread -ldl -lc")
if(BUILD_SHARED_LIBS)
    set(ITERA_PC_PRIVATE ".private")
    set(ITERA_PC_LIBS_PRIVATE "${ITERA_PC_NEEDS}")
else()
    set(ITERA_PC_LIBS " ${ITERA_PC_NEEDS}")
endif()
configure_file(cmake/itera.pc.in ${PROJECT_BINARY_DIR}/itera.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/itera.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# The OpenCL backend. It needs only headers: the loader, the drivers and CLBlast are found when the
# program runs.
set(ITERA_HAVE_OPENCL OFF)

if(NOT ITERA_OPENCL STREQUAL OFF)
    find_path(ITERA_OPENCL_INCLUDE CL/cl.h DOC "Folder that holds CL/cl.h")
    find_path(ITERA_CLBLAST_INCLUDE clblast_c.h DOC "Folder that holds clblast_c.h")
    mark_as_advanced(ITERA_OPENCL_INCLUDE ITERA_CLBLAST_INCLUDE)
    if(ITERA_OPENCL_INCLUDE)
        set(ITERA_HAVE_OPENCL ON)
    elseif(ITERA_OPENCL STREQUAL ON)
        message(FATAL_ERROR "ITERA_OPENCL is ON, and CL/cl.h is not found (package opencl-headers)")
    endif()
endif()

if(ITERA_HAVE_OPENCL)
    file(GLOB ITERA_OPENCL_SOURCES CONFIGURE_DEPENDS host/backend/opencl/*.c)
    file(GLOB ITERA_OPENCL_KERNELS CONFIGURE_DEPENDS kernels_cl/*.cl kernels_cl/*.clh
         kernels_cl/args/*.clh)
    set(embedded ${PROJECT_BINARY_DIR}/opencl/embedded.c)
    add_custom_command(
        OUTPUT ${embedded}
        COMMAND ${CMAKE_COMMAND} -DFOLDER=${PROJECT_SOURCE_DIR}/kernels_cl -DOUTPUT=${embedded}
                -P ${PROJECT_SOURCE_DIR}/cmake/embed_opencl.cmake
        DEPENDS ${ITERA_OPENCL_KERNELS} cmake/embed_opencl.cmake
        COMMENT "Embedding the OpenCL kernels"
        VERBATIM)
    target_sources(itera PRIVATE ${ITERA_OPENCL_SOURCES} ${embedded})
    target_include_directories(itera SYSTEM PRIVATE ${ITERA_OPENCL_INCLUDE})
    target_compile_definitions(itera PRIVATE ITERA_HAVE_OPENCL=1)
    if(ITERA_CLBLAST_INCLUDE)
        target_include_directories(itera SYSTEM PRIVATE ${ITERA_CLBLAST_INCLUDE})
        target_compile_definitions(itera PRIVATE ITERA_HAVE_CLBLAST=1)
    endif()
endif()

if(ITERA_HAVE_OPENCL)
    set(kernels "")
    foreach(file IN LISTS ITERA_OPENCL_KERNELS)
        file(STRINGS ${file} lines REGEX "^kernel void [a-z0-9_]+\\(")
        foreach(line IN LISTS lines)
            string(REGEX MATCH "^kernel void ([a-z0-9_]+)\\(" line "${line}")
            list(APPEND kernels ${CMAKE_MATCH_1})
        endforeach()
    endforeach()
    itera_check_kernels(OpenCL "${kernels}")
endif()

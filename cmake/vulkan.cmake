# The Vulkan backend. Every shaders/*.comp is compiled with operands as descriptors and as addresses
# (shaders/itera.glsl), each without and with subgroup arithmetic (shaders/reduce.glsl), validated, and
# embedded. The loader itself is opened at run time:
# only headers and shader tools are needed to build.
set(ITERA_HAVE_VULKAN OFF)

find_path(ITERA_VULKAN_INCLUDE vulkan/vulkan_core.h)
find_program(ITERA_GLSLANG NAMES glslangValidator glslang)
find_program(ITERA_SPIRV_VAL spirv-val)
mark_as_advanced(ITERA_VULKAN_INCLUDE ITERA_GLSLANG ITERA_SPIRV_VAL)

function(itera_vulkan_missing out)
    set(missing "")
    if(NOT ITERA_VULKAN_INCLUDE)
        list(APPEND missing "the Vulkan headers (libvulkan-dev)")
    endif()
    if(NOT ITERA_GLSLANG)
        list(APPEND missing "glslangValidator (glslang-tools)")
    endif()
    if(NOT ITERA_SPIRV_VAL)
        list(APPEND missing "spirv-val (spirv-tools)")
    endif()
    list(JOIN missing ", " missing)
    set(${out} "${missing}" PARENT_SCOPE)
endfunction()

# Whether the tools take a shader; `variable` remembers it.
function(itera_vulkan_try variable what text)
    if(DEFINED ${variable})
        return()
    endif()
    set(source ${CMAKE_CURRENT_BINARY_DIR}/try_${what}.comp)
    file(WRITE ${source} "${text}")
    execute_process(COMMAND ${ITERA_GLSLANG} -V --target-env vulkan1.1 -I${PROJECT_SOURCE_DIR}/shaders
                            ${source} -o ${source}.spv
                    RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
    if(NOT failed)
        execute_process(COMMAND ${ITERA_SPIRV_VAL} --target-env vulkan1.1 ${source}.spv
                        RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
    endif()
    if(failed)
        message(STATUS "Vulkan: no ${what} in this glslang and spirv-val")
        set(${variable} OFF CACHE INTERNAL "")
    else()
        set(${variable} ON CACHE INTERNAL "")
    endif()
endfunction()

# KHR cooperative matrices, and integer dot products by way of SPIR-V instructions in GLSL: without
# them shaders/*_coopmat.comp and shaders/*_dot.comp are left out.
function(itera_vulkan_try_extensions)
    itera_vulkan_try(ITERA_GLSLANG_COOPMAT GL_KHR_cooperative_matrix "#version 450
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
layout(local_size_x = 32) in;
void main()
{
    coopmat<float, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator> c;
    c = coopmat<float, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator>(0.0);
}
")
    itera_vulkan_try(ITERA_GLSLANG_DOT GL_EXT_spirv_intrinsics "#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_spirv_intrinsics : require
#define DOT
#include \"dot.glsl\"
layout(local_size_x = 32) in;
layout(set = 0, binding = 0) buffer Words { uint v[]; } words;
void main()
{
    words.v[0] = uint(dot_four(0, words.v[1], words.v[2]));
}
")
endfunction()

# One edge of the build per shader: all variants, validated, as a C file.
function(itera_vulkan_shader name)
    set(source ${PROJECT_SOURCE_DIR}/shaders/${name}.comp)
    set(out ${CMAKE_CURRENT_BINARY_DIR}/shaders/${name})
    set(compile ${ITERA_GLSLANG} -V --target-env vulkan1.1 -g0 --quiet
                -I${PROJECT_SOURCE_DIR}/kernels_cl) # args/<family>.clh
    set(validate ${ITERA_SPIRV_VAL} --target-env vulkan1.1)
    add_custom_command(
        OUTPUT ${out}.spv ${out}.address.spv ${out}.subgroups.spv ${out}.subgroups.address.spv
               ${out}.c
        COMMAND ${compile} --depfile ${out}.d ${source} -o ${out}.spv
        COMMAND ${compile} -DITERA_ADDRESS ${source} -o ${out}.address.spv
        COMMAND ${compile} -DITERA_SUBGROUPS ${source} -o ${out}.subgroups.spv
        COMMAND ${compile} -DITERA_SUBGROUPS -DITERA_ADDRESS ${source} -o
                ${out}.subgroups.address.spv
        COMMAND ${validate} ${out}.spv
        COMMAND ${validate} ${out}.address.spv
        COMMAND ${validate} ${out}.subgroups.spv
        COMMAND ${validate} ${out}.subgroups.address.spv
        COMMAND ${CMAKE_COMMAND} -DNAME=${name} -DOUT=${out} -P
                ${PROJECT_SOURCE_DIR}/cmake/embed_vulkan.cmake
        DEPENDS ${source} ${PROJECT_SOURCE_DIR}/cmake/embed_vulkan.cmake
        DEPFILE ${out}.d
        COMMENT "Shader ${name}"
        VERBATIM)
    target_sources(itera PRIVATE ${out}.c)
endfunction()

function(itera_vulkan_setup)
    file(GLOB sources CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/shaders
         ${PROJECT_SOURCE_DIR}/shaders/*.comp)
    list(SORT sources)
    itera_vulkan_try_extensions()
    set(names "")
    set(declarations "")
    set(entries "")
    foreach(source IN LISTS sources)
        string(REGEX REPLACE "\\.comp$" "" name ${source})
        if((name MATCHES "_coopmat$" AND NOT ITERA_GLSLANG_COOPMAT) OR
           (name MATCHES "_dot$" AND NOT ITERA_GLSLANG_DOT))
            continue()
        endif()
        list(APPEND names ${name})
        string(APPEND declarations "extern const struct itera_vulkan_shader itera_spirv_${name};\n")
        string(APPEND entries "    &itera_spirv_${name},\n")
    endforeach()
    itera_check_kernels(Vulkan "${names}")
    file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/shaders)
    foreach(name IN LISTS names)
        itera_vulkan_shader(${name})
    endforeach()
    set(table ${CMAKE_CURRENT_BINARY_DIR}/shaders/itera_vulkan_shaders.c)
    file(CONFIGURE OUTPUT ${table} @ONLY CONTENT "#include \"backend/vulkan/shader.h\"

@declarations@
const struct itera_vulkan_shader *const itera_vulkan_shaders[] = {
@entries@    0,
};
")
    file(GLOB backend CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/host/backend/vulkan/*.c)
    target_sources(itera PRIVATE ${backend} ${table})
    target_include_directories(itera SYSTEM PRIVATE ${ITERA_VULKAN_INCLUDE})
    target_compile_definitions(itera PRIVATE ITERA_HAVE_VULKAN=1)
endfunction()

if(ITERA_VULKAN)
    itera_vulkan_missing(missing)
    if(NOT missing)
        set(ITERA_HAVE_VULKAN ON)
        itera_vulkan_setup()
    elseif(ITERA_VULKAN STREQUAL "AUTO")
        message(STATUS "Vulkan backend: off, for want of ${missing}")
    else()
        message(FATAL_ERROR "ITERA_VULKAN=ON needs ${missing}")
    endif()
endif()

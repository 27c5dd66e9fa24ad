# The fast CPU kernels. cpu_fallback/simd/ holds kernels written over the small vector type of
# <isa>/vec.h; each is compiled once per ISA. <isa>/ adds kernels for that ISA alone.
# ITERA_ISA_LEVELS: what this target architecture can carry; which level runs is chosen at run time.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set(ITERA_ISA_LEVELS avx2 avx512)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    set(ITERA_ISA_LEVELS neon)
else()
    set(ITERA_ISA_LEVELS "")
endif()
set(ITERA_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(ITERA_ISA_FLAGS_avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
    -mprefer-vector-width=512)
set(ITERA_ISA_FLAGS_neon "")
# Levels that differ from another in the products of int8 blocks only: the level whose folder they
# share, and the flags that they add to its own.
set(ITERA_ISA_VARIANTS_avx512 avx512vnni)
set(ITERA_ISA_FLAGS_avx512vnni ${ITERA_ISA_FLAGS_avx512} -mavx512vnni)
set(ITERA_ISA_VARIANTS_neon neondot)
set(ITERA_ISA_FLAGS_neondot -march=armv8.2-a+dotprod)

file(GLOB ITERA_SIMD_SOURCES CONFIGURE_DEPENDS cpu_fallback/simd/*.c)
file(GLOB ITERA_VARIANT_SOURCES CONFIGURE_DEPENDS cpu_fallback/simd/matmul*.c)

# The objects of one level: sources..., with the headers of `folder`.
function(itera_add_isa isa folder)
    add_library(itera-${isa} OBJECT ${ARGN})
    set_target_properties(itera-${isa} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    target_include_directories(itera-${isa} PRIVATE cpu_fallback/${folder} host/include host .)
    target_compile_definitions(itera-${isa} PRIVATE ITERA_ISA=${isa} _GNU_SOURCE)
    target_compile_options(itera-${isa} PRIVATE ${ITERA_ISA_FLAGS_${isa}} -ffp-contract=fast)
    if(ITERA_SANITIZE MATCHES "undefined" AND CMAKE_C_COMPILER_ID MATCHES "Clang")
        # These checks at each of the unrolled accesses make clang compile one file for ten minutes;
        # AddressSanitizer sees the accesses themselves.
        target_compile_options(itera-${isa} PRIVATE
                               -fno-sanitize=pointer-overflow,alignment,null,object-size)
    endif()
    target_sources(itera PRIVATE $<TARGET_OBJECTS:itera-${isa}>)
    set(ITERA_ISA_OBJECTS ${ITERA_ISA_OBJECTS} $<TARGET_OBJECTS:itera-${isa}> PARENT_SCOPE)
    target_compile_definitions(itera PRIVATE ITERA_HAVE_${isa}=1)
endfunction()

foreach(isa IN LISTS ITERA_ISA_LEVELS)
    file(GLOB own CONFIGURE_DEPENDS cpu_fallback/${isa}/*.c)
    itera_add_isa(${isa} ${isa} ${ITERA_SIMD_SOURCES} ${own})
    foreach(variant IN LISTS ITERA_ISA_VARIANTS_${isa})
        itera_add_isa(${variant} ${isa} ${ITERA_VARIANT_SOURCES})
    endforeach()
endforeach()

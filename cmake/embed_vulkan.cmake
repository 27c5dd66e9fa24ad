# cmake -DNAME=<shader> -DOUT=<path without extension> -P embed_vulkan.cmake: writes OUT.c, with the
# modules OUT.spv and OUT.address.spv as words.
function(words file out)
    file(READ ${file} hex HEX)
    # SPIR-V files are read as words in this machine's order, as the compiler wrote them; a big-endian
    # module begins with 07 instead of 03.
    set(byte "([0-9a-f][0-9a-f])")
    if(hex MATCHES "^03022307")
        string(REGEX REPLACE "${byte}${byte}${byte}${byte}" "0x\\4\\3\\2\\1," hex "${hex}")
    else()
        string(REGEX REPLACE "${byte}${byte}${byte}${byte}" "0x\\1\\2\\3\\4," hex "${hex}")
    endif()
    string(REGEX REPLACE "(0x[0-9a-f]+,0x[0-9a-f]+,0x[0-9a-f]+,0x[0-9a-f]+,0x[0-9a-f]+,0x[0-9a-f]+,0x[0-9a-f]+,0x[0-9a-f]+,)"
                         "\\1\n" hex "${hex}")
    set(${out} "${hex}" PARENT_SCOPE)
endfunction()

words(${OUT}.spv plain)
words(${OUT}.address.spv address)
file(WRITE ${OUT}.c "#include \"backend/vulkan/shader.h\"

static const uint32_t plain[] = {
${plain}};
static const uint32_t address[] = {
${address}};
extern const struct itera_vulkan_shader itera_spirv_${NAME};
const struct itera_vulkan_shader itera_spirv_${NAME} = {
    \"${NAME}\", {{plain, sizeof plain}, {address, sizeof address}}};
")

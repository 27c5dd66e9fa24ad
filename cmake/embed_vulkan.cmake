# cmake -DNAME=<shader> -DOUT=<path without extension> -P embed_vulkan.cmake: writes OUT.c, with the
# modules OUT.spv and OUT.address.spv, and OUT.subgroups.spv and its twin where they differ, as words.
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
words(${OUT}.subgroups.spv subgroups)
words(${OUT}.subgroups.address.spv subgroups_address)
if(subgroups STREQUAL plain) # the shader has no use for them
    set(with "")
    set(table "")
else()
    set(with "static const uint32_t subgroups[] = {
${subgroups}};
static const uint32_t subgroups_address[] = {
${subgroups_address}};
")
    set(table ",
    {{subgroups, sizeof subgroups}, {subgroups_address, sizeof subgroups_address}}")
endif()
file(WRITE ${OUT}.c "#include \"backend/vulkan/shader.h\"

static const uint32_t plain[] = {
${plain}};
static const uint32_t address[] = {
${address}};
${with}extern const struct itera_vulkan_shader itera_spirv_${NAME};
const struct itera_vulkan_shader itera_spirv_${NAME} = {
    \"${NAME}\", {{plain, sizeof plain}, {address, sizeof address}}${table}};
")

# Writes OUTPUT, a C file with the texts of the files in FOLDER (*.cl and *.clh) and in its args:
#   cmake -DFOLDER=kernels_cl -DOUTPUT=embedded.c -P embed_opencl.cmake
file(GLOB files RELATIVE ${FOLDER} ${FOLDER}/*.cl ${FOLDER}/*.clh ${FOLDER}/args/*.clh)
list(SORT files)
set(code "#include \"backend/opencl/embedded.h\"\n")
set(table "")
foreach(name IN LISTS files)
    string(MAKE_C_IDENTIFIER ${name} symbol)
    file(READ ${FOLDER}/${name} bytes HEX)
    string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
    string(APPEND code "\nstatic const char ${symbol}[] = {\n${bytes}0};\n")
    string(APPEND table "    {\"${name}\", ${symbol}, sizeof ${symbol} - 1},\n")
endforeach()
list(LENGTH files count)
string(APPEND code "\nconst struct opencl_text opencl_embedded[] = {\n${table}};\n"
                   "const int opencl_n_embedded = ${count};\n")
file(WRITE ${OUTPUT} "${code}")

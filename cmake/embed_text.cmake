# cmake -DINPUT=file.js -DOUTPUT=file.c -DNAME=symbol -P embed_text.cmake: OUTPUT defines
# `const char NAME[]`, the text.
file(READ ${INPUT} bytes HEX)
string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE ${OUTPUT} "extern const char ${NAME}[];\nconst char ${NAME}[] = {\n${bytes}0};\n")

# Reports are single HTML files, style and plots included: Chart.js (Debian: libjs-chart.js) and
# report.css and .js are put into the command. Without Chart.js reports have their tables alone.
function(itera_embed name input)
    set(output ${PROJECT_BINARY_DIR}/${name}.c)
    add_custom_command(
        OUTPUT ${output}
        COMMAND ${CMAKE_COMMAND} -DINPUT=${input} -DOUTPUT=${output} -DNAME=${name} -P
                ${PROJECT_SOURCE_DIR}/cmake/embed_text.cmake
        DEPENDS ${input} ${PROJECT_SOURCE_DIR}/cmake/embed_text.cmake)
    target_sources(itera-command PRIVATE ${output})
endfunction()

itera_embed(report_style ${PROJECT_SOURCE_DIR}/tools/report/report.css)
itera_embed(report_setup ${PROJECT_SOURCE_DIR}/tools/report/report.js)
# What a result file is checked against.
itera_embed(results_schema ${PROJECT_SOURCE_DIR}/docs/bench.schema.json)

find_file(ITERA_CHARTJS chart.min.js PATHS /usr/share/javascript/chart.js
          DOC "Chart.js 3 or later, minified, for the plots of reports")
if(ITERA_CHARTJS)
    itera_embed(report_script ${ITERA_CHARTJS})
else()
    message(STATUS "Chart.js was not found (Debian: libjs-chart.js): reports will have no plots")
    set(report_script ${PROJECT_BINARY_DIR}/report_script.c)
    file(WRITE ${report_script} "extern const char report_script[];\nconst char report_script[] = \"\";\n")
    target_sources(itera-command PRIVATE ${report_script})
endif()

# Reports are single HTML files, plots included: Chart.js (Debian: libjs-chart.js) is put into the
# command. Without it reports have their tables alone.
find_file(ITERA_CHARTJS chart.min.js PATHS /usr/share/javascript/chart.js
          DOC "Chart.js 3 or later, minified, for the plots of reports")
set(report_script ${PROJECT_BINARY_DIR}/report_script.c)
if(ITERA_CHARTJS)
    add_custom_command(
        OUTPUT ${report_script}
        COMMAND ${CMAKE_COMMAND} -DINPUT=${ITERA_CHARTJS} -DOUTPUT=${report_script} -P
                ${PROJECT_SOURCE_DIR}/cmake/embed_text.cmake
        DEPENDS ${ITERA_CHARTJS} ${PROJECT_SOURCE_DIR}/cmake/embed_text.cmake)
else()
    message(STATUS "Chart.js was not found (Debian: libjs-chart.js): reports will have no plots")
    file(WRITE ${report_script} "extern const char report_script[];\nconst char report_script[] = \"\";\n")
endif()
target_sources(itera-command PRIVATE ${report_script})

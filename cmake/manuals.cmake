# Man pages and completions for shells, which the command makes of its own tables.
if(CMAKE_CROSSCOMPILING)
    message(STATUS "itera: no man pages and completions: the command does not run on this machine")
    return()
endif()
set(ITERA_MANUALS ${PROJECT_BINARY_DIR}/manuals)
add_custom_command(
    OUTPUT ${ITERA_MANUALS}/itera
    COMMAND ${PROJECT_SOURCE_DIR}/tools/make-manuals $<TARGET_FILE:itera-command> ${ITERA_MANUALS}
    DEPENDS itera-command ${PROJECT_SOURCE_DIR}/tools/make-manuals
    COMMENT "Writing man pages and completions")
add_custom_target(itera-manuals ALL DEPENDS ${ITERA_MANUALS}/itera)
install(DIRECTORY ${ITERA_MANUALS}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${ITERA_MANUALS}/itera DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${ITERA_MANUALS}/_itera DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${ITERA_MANUALS}/itera.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)

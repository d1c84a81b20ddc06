# Installs a build into a temporary prefix, builds the program beside this file against it, once
# with find_package and once with pkg-config, and runs both.
#
#   cmake -DBUILD=<build directory> -DWORK=<directory to fill> -P tests/out_of_tree/check.cmake
function(run)
    execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE out)
    if(NOT code EQUAL 0)
        message(FATAL_ERROR "failed (${code}): ${ARGN}\n${out}")
    endif()
    message(STATUS "${out}")
endfunction()

set(source ${CMAKE_CURRENT_LIST_DIR})
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)

run(${CMAKE_COMMAND} -S ${source} -B ${WORK}/cmake -DCMAKE_PREFIX_PATH=${WORK}/prefix)
run(${CMAKE_COMMAND} --build ${WORK}/cmake)
run(${WORK}/cmake/bidder)

# Where the build was configured for another prefix, pkg-config is told of this one.
file(GLOB_RECURSE packages ${WORK}/prefix/*/bidstore.pc)
list(GET packages 0 package)
cmake_path(GET package PARENT_PATH package_directory)
file(READ ${package} text)
string(REGEX MATCH "prefix=([^\n]*)" ignored "${text}")
string(REPLACE "${CMAKE_MATCH_1}" "${WORK}/prefix" text "${text}")
file(WRITE ${package} "${text}")
file(COPY ${source}/Makefile ${source}/program.cc DESTINATION ${WORK}/pkg_config)
run(${CMAKE_COMMAND} -E env PKG_CONFIG_PATH=${package_directory}
    make -C ${WORK}/pkg_config bidder)
run(${WORK}/pkg_config/bidder)
file(REMOVE_RECURSE ${WORK})
